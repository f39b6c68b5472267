"""The pages about frameworks: their Python runs as it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.integrations.programs import EXAMPLES
from tests.support.availability import require

PAGES = EXAMPLES.parent / "docs" / "how-to"


def blocks(page: str) -> dict[str, str]:
    """Return the Python of a page by the title of its blocks; those without one together, under the empty title."""
    found: dict[str, str] = {}
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    for title, code in re.findall(r'^```python(?: title="(.*?)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL):
        found[title] = found.get(title, "") + code
    return found


def python(folder: Path, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("page", "needs"), [("fastapi", "fastapi"), ("starlette", "starlette"), ("celery", "celery")])
def test_the_python_of_a_page_runs(page: str, needs: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """Goal: what is copied from a page works. Method: its blocks in a process of its own, and its functions called."""
    require(needs, "asyncpg", "httpx")
    calls = {
        "fastapi": """
import asyncio, httpx
async def main():
    async with app.router.lifespan_context(app):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            made = await client.post("/orders?item=book")
            assert made.status_code == 201, made.text
            assert (await client.get(f"/orders/{made.json()}", headers={"X-Show-SQL": "1"})).json() == "book"
            assert (await client.get("/readyz")).json() == {"status": "ready"}
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
    async with own_lifespan(app):
        pass
asyncio.run(main())
""",
        "starlette": """
import asyncio, httpx
app.routes.extend([Route("/by-hand", by_hand), Route("/numbers", numbers)])
async def main():
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.get("/")).json() == (await client.get("/by-hand")).json() == 42
            assert (await client.get("/numbers")).text == "012"
asyncio.run(main())
""",
        "celery": "assert with_a_loop_each(3) == 3\nassert with_the_workers_loop(4) == with_the_workers_loop(4) == 4\n",
    }
    code = blocks(page)[""] + calls[page]
    python(tmp_path, "-c", code, DATABASE_URL=postgres.url("asyncpg"))


@pytest.mark.long
def test_the_python_of_the_alembic_page_runs(postgres: PostgresServer, tmp_path: Path) -> None:
    """Goal: the same for migrations. Method: the page's env.py and program in the example's project."""
    require("alembic", "asyncpg")
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "alembic_project", project)
    found = blocks("alembic")
    (project / "shop").mkdir()
    (project / "models.py").rename(project / "shop" / "models.py")
    (project / "migrations" / "env.py").write_text(found["migrations/env.py"])
    python(project, "-c", found[""], DATABASE_URL=postgres.url("asyncpg"))
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}"
    python(project, "-m", "alembic", "upgrade", "head", DATABASE_URL_DIRECT=url)


@pytest.mark.long
def test_the_tests_of_the_pytest_page_pass(tmp_path: Path) -> None:
    """Goal: the first test a reader copies is green. Method: run them, in memory, with pytest-asyncio as installed."""
    require("aiosqlite")
    found = blocks("pytest")
    for name in ("conftest.py", "test_orders.py"):
        (tmp_path / name).write_text(found[name])
    # pytest-asyncio warns in every project that does not set this.
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
