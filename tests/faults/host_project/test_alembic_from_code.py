"""A program runs its migrations itself, with Alembic's `command.upgrade`.

Goal: they go where the program says, and leave its thread as it was.
Method: migrations of SQLite files, with an address in the environment that must not be used.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from tests.faults.marks import not_yet, ours_only

pytest.importorskip("alembic")

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event

pytestmark = ours_only


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A project without migrations, whose `env.py` is the one of our documentation."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(
        "from sqlalchemy import MetaData\nfrom forebay.integrations.alembic import run\nrun(MetaData())\n",
        encoding="utf-8",
    )
    made = Config()
    made.set_main_option("script_location", str(tmp_path))
    made.set_main_option("path_separator", "os")
    return made


@not_yet("DATABASE_URL_DIRECT goes before the address that the program has set")
def test_the_address_that_a_program_sets_goes_before_the_environment(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test suite migrates its own database, on a machine whose environment names the production server."""
    meant, environments = tmp_path / "meant.db", tmp_path / "environments.db"
    config.set_main_option("sqlalchemy.url", f"sqlite+aiosqlite:///{meant}")
    monkeypatch.setenv("DATABASE_URL_DIRECT", f"sqlite+aiosqlite:///{environments}")
    command.upgrade(config, "head")
    assert (meant.exists(), environments.exists()) == (True, False)


@not_yet("the migrations run in asyncio.run, which leaves the thread without an event loop")
def test_the_threads_event_loop_is_still_there_after_a_migration(config: Config, tmp_path: Path) -> None:
    """A program with a loop of its own migrates before it starts the loop, and finds its loop gone."""
    config.set_main_option("sqlalchemy.url", f"sqlite+aiosqlite:///{tmp_path / 'meant.db'}")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        command.upgrade(config, "head")
        try:
            found: object = asyncio.get_event_loop()
        except RuntimeError:
            found = None
        assert found is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@not_yet("in a program whose loop runs, the migrations run in a thread that does not have the caller's context")
async def test_a_migration_from_a_running_program_sees_its_context_variables(config: Config, tmp_path: Path) -> None:
    """A program migrates each tenant's schema; a listener sets the search path of the tenant at hand."""
    seen: list[str] = []

    def listen(*_: Any) -> None:
        seen.append(tenant.get())

    config.set_main_option("sqlalchemy.url", f"sqlite+aiosqlite:///{tmp_path / 'meant.db'}")
    tenant.set("acme")
    event.listen(Engine, "connect", listen)
    try:
        command.upgrade(config, "head")
    finally:
        event.remove(Engine, "connect", listen)
    assert set(seen) == {"acme"}
