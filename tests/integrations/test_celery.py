"""Celery: one engine at module level, a loop per task or per worker process, a real worker and a real broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.testing.servers._base import free_port
from forebay.testing.servers.postgres import PostgresServer
from tests.integrations.programs import EXAMPLES, Program, python
from tests.support.availability import require

pytest.importorskip("celery")

FOLDER = EXAMPLES / "celery_worker"
CHILDREN, LIMIT = 4, 3  # pool_size + max_overflow of the example


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A Redis of our own, in memory only."""
    require("redis-server", "redis")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with Program(command, tmp_path, {}) as redis:
        redis.wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def worker(broker: str, private_postgres: PostgresServer) -> Iterator[tuple[Program, Any, PostgresServer]]:
    """The example's worker with four processes, a Celery application to send it tasks, and its database."""
    require("asyncpg", "celery")
    from celery import Celery

    private_postgres.query("CREATE TABLE done (number integer)")
    environment = {
        "DATABASE_URL": private_postgres.url("asyncpg"),
        "CELERY_BROKER": broker,
        "CELERY_BACKEND": broker,
    }
    arguments = ("-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", str(CHILDREN))
    with python(*arguments, "--loglevel", "INFO", folder=FOLDER, **environment) as program:
        program.wait_for_text("ready.", timeout_s=60)
        app = Celery("sender", broker=broker, backend=broker)
        yield program, app, private_postgres
        app.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", ["with_a_loop_each", "with_the_workers_loop"])
def test_a_thousand_tasks_raise_nothing_and_stay_within_the_limit(
    worker: tuple[Program, Any, PostgresServer], task: str
) -> None:
    """Goal: an engine at module level just works under prefork. Method: 1000 tasks with two connections each, the
    server asked meanwhile; then the worker ends and so does every connection.
    """
    program, app, postgres = worker
    for number in range(1, 1001):
        app.send_task(f"tasks.{task}", [number], ignore_result=True)
    most = 0
    deadline = time.monotonic() + 150
    while (done := postgres.query("SELECT count(*) FROM done")[0][0]) < 2000:
        most = max(most, len(postgres.sessions("celery-worker")))
        assert time.monotonic() < deadline, f"{done} of 2000 rows\n{program.output()[-3000:]}"
        time.sleep(0.05)
    assert postgres.query("SELECT count(DISTINCT number) FROM done") == [(2000,)]
    assert 0 < most <= CHILDREN * LIMIT
    assert program.terminate(30) == 0
    output = program.output()
    for word in (
        "different loop",
        "loop is closed",
        "Traceback",
        "never awaited",
        "was destroyed",
        "garbage collector",
    ):
        assert word not in output, word
    assert output.count("succeeded in") == 1000
    assert postgres.sessions("celery-worker") == []
    if task == "with_the_workers_loop":
        # Kept from task to task: far fewer backends than transactions were started.
        assert most >= CHILDREN


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_past_its_time_limit_gives_its_connection_back(worker: tuple[Program, Any, PostgresServer]) -> None:
    """Goal: `soft_time_limit` leaves the process usable. Method: such a task on each process, then an ordinary one."""
    program, app, postgres = worker
    for _ in range(CHILDREN):
        app.send_task("tasks.interrupted", [30], ignore_result=True)
    program.wait_for_text("SoftTimeLimitExceeded", times=CHILDREN, timeout_s=30)
    for number in range(1, 21):
        app.send_task("tasks.with_the_workers_loop", [number], ignore_result=True)
    program.wait_for_text("succeeded in", times=20, timeout_s=30)
    states = [row["state"] for row in postgres.sessions("celery-worker")]
    assert set(states) <= {"idle"}, states
    assert program.terminate(30) == 0
    assert postgres.sessions("celery-worker") == []


def test_the_loop_of_a_process_is_kept_and_its_connections_with_it(aiosqlite_url: str) -> None:
    """Goal: no connect per task. Method: two runs on an engine, the pool in between; then the process's end."""
    import forebay
    from forebay.integrations.celery import _close, run

    engine = forebay.create_async_engine(aiosqlite_url)

    async def work() -> asyncio.AbstractEventLoop:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
        return asyncio.get_running_loop()

    first = run(work())
    assert engine.pool.checkedin() == 1
    assert run(work()) is first
    assert engine.pool.statistics().connects == 1  # type: ignore[attr-defined]
    _close()
    assert first.is_closed()
    assert engine.pool.statistics().idle == 0  # type: ignore[attr-defined]


def test_an_interrupt_cancels_the_task_before_the_next_one_runs() -> None:
    """Goal: no leftover of one task runs within another. Method: an exception raised into the loop from outside."""
    from forebay.integrations.celery import _close, run

    ended: list[str] = []

    async def long() -> None:
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("long")

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def short() -> list[str]:
        return list(ended)

    try:
        with pytest.raises(KeyboardInterrupt):
            run(long())
        assert run(short()) == ["long"]
    finally:
        _close()


def test_within_a_running_loop_it_says_so_and_leaves_no_coroutine_behind() -> None:
    """Goal: misuse is told. Method: call it from a coroutine."""
    from forebay.integrations.celery import _close, run

    async def inner() -> None:
        raise AssertionError("it must not run")

    async def outer() -> None:
        run(inner())

    try:
        with pytest.raises(RuntimeError, match="await the coroutine there instead"):
            asyncio.run(outer())
    finally:
        _close()


def _script(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_green_threads_of_gevent_get_a_clear_error() -> None:
    """Goal: nobody hunts strange loop errors. Method: gevent's own monkey patching, in a process of its own."""
    require("gevent")
    out = _script(
        "from gevent import monkey; monkey.patch_all()\n"
        "from forebay.integrations.celery import run, UnsupportedPoolError\n"
        "async def work(): raise AssertionError\n"
        "try: run(work())\n"
        "except UnsupportedPoolError as error: print(error)\n"
    )
    assert "green threads of gevent" in out
    assert "--pool prefork" in out


@pytest.mark.slow
def test_a_gevent_worker_ends_at_its_start_with_the_reason(tmp_path: Path) -> None:
    """Goal: the mistake shows at deployment, not in the first task. Method: a real worker with `--pool gevent`."""
    require("gevent")
    arguments = ("-m", "celery", "-A", "tasks", "worker", "--pool", "gevent")
    environment = {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}", "CELERY_BROKER": "memory://"}
    with python(*arguments, folder=FOLDER, **environment) as program:
        assert program.wait(60) != 0
        assert "green threads of gevent" in program.output()


def test_green_threads_of_eventlet_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the same for the other one. Method: a stand-in for eventlet's patcher, which warns when it is imported."""
    from forebay.integrations.celery import UnsupportedPoolError, refuse_green_threads

    class Patcher:
        @staticmethod
        def is_monkey_patched(module: str) -> bool:
            return module == "socket"

    refuse_green_threads()
    monkeypatch.setitem(sys.modules, "eventlet.patcher", Patcher)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedPoolError, match="green threads of eventlet"):
        refuse_green_threads()
