"""Celery: ``asyncio.run`` per task with an engine at module level, and one event loop per worker process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.availability import require

TASKS = """
import asyncio
import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_init
from sqlalchemy import text

from forebay import create_async_engine

app = Celery("tasks")
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control",
    },
    result_backend="file://results",
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)

# At module level: made once in the parent, used in every child, in a new event loop per task.
engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=2, max_overflow=1)


async def work(number):
    async with engine.begin() as connection:
        return await connection.scalar(text("SELECT CAST(:number AS INTEGER) * 2"), {"number": number})


@app.task
def double(number):
    return asyncio.run(work(number))


loop = None


@worker_process_init.connect
def make_loop(**kwargs):
    global loop
    loop = asyncio.new_event_loop()


@app.task
def double_in_one_loop(number):
    return loop.run_until_complete(work(number))
"""

MANY_RUNS = """
import asyncio
import tasks

print([tasks.double.apply(args=(number,)).get() for number in range(10)])

tasks.make_loop()
print([tasks.double_in_one_loop.apply(args=(number,)).get() for number in range(10)])
tasks.loop.run_until_complete(tasks.engine.dispose())
tasks.loop.close()
"""

ASK = """
import tasks
jobs = [tasks.{}.delay(number) for number in range(10)]
print([job.get(timeout=40) for job in jobs])
"""


def lay_out(place: Path, tasks: str) -> None:
    (place / "tasks.py").write_text(tasks)
    for folder in ("queue", "control", "results"):
        (place / folder).mkdir()


TWICE = [number * 2 for number in range(10)]


@pytest.mark.long
def test_a_loop_per_task_and_a_loop_per_process(url: str, tmp_path: Path, run_python: Callable[..., str]) -> None:
    """Goal: E5 with the code of Celery's users. Method: tasks run in this process's place, one after another."""
    require("celery")
    lay_out(tmp_path, TASKS)
    assert run_python(MANY_RUNS, DATABASE_URL=url) == f"{TWICE}\n{TWICE}\n"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["double", "double_in_one_loop"])
def test_a_prefork_worker_serves(postgres_url: str, tmp_path: Path, task: str) -> None:
    """Goal: the same in real worker processes, forked after the engine was used. Method: a worker of two processes,
    tasks through a queue of files, then a look at what it said while it ended.
    """
    require("celery")
    # Used before the fork: the children must not touch the parent's connection.
    used = (
        "\n\nasync def use():\n    await work(1)\n\n\nif 'worker' in __import__('sys').argv:\n    asyncio.run(use())\n"
    )
    lay_out(tmp_path, TASKS + used)
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": postgres_url,
        "PYTHONPATH": str(tmp_path),
        "C_FORCE_ROOT": "1",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "-c", "2", "-l", "INFO"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        asked = subprocess.run(
            [
                sys.executable,
                "-c",
                ASK.format(task),
            ],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert asked.stdout == f"{TWICE}\n", asked.stderr
    finally:
        worker.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        worker.kill()
        log = worker.communicate()[0]
    assert "Traceback" not in log, log
    assert "Task was destroyed" not in log, log
