"""Every Python block of the README and the documentation is run, and every link between the pages leads somewhere.

A page is one program: its blocks run in order, in one namespace, with `await` at top level, in an empty directory, with
`DATABASE_URL` pointing to a SQLite file. A block with a title is a file: tests are given to pytest, all
others are run as scripts. Comments that no reader sees say what else a page needs:

    <!-- setup
    Python that runs before the next block
    -->
    <!-- not run: why the next block cannot be -->
    <!-- run with: sqlite, postgresql, fastapi -->

The last names the databases (run with each; a real server stands for `postgresql+asyncpg://app@localhost/shop` too) and
the packages without which it is skipped.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from forebay.dialects._switch_pages import as_markdown as engine_options
from forebay.pool._pages import as_markdown as pool_options
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
POSTGRES_URL = "postgresql+asyncpg://app@localhost/shop"

_PIECE = re.compile(
    r"^<!-- (?P<mark>setup|not run:|run with:)(?P<text>.*?)-->"
    r"|^```python(?P<info>[^\n]*)\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```|`[^`\n]*`|<!--.*?-->", re.MULTILINE | re.DOTALL)

# Compiles each block at the line where it stands, so that a traceback leads to the page. Only a block that awaits runs
# in an event loop, one for all of them: others may make loops of their own.
_RUNNER = """
import ast, asyncio, inspect, json, sys

page, blocks = json.load(sys.stdin)
namespace = {"__name__": "__main__", "__file__": page}
with asyncio.Runner() as runner:
    for line, code in blocks:
        tree = compile("\\n" * line + code, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(tree, namespace)
        if inspect.iscoroutine(result):
            runner.run(result)
"""


@dataclass(frozen=True)
class Block:
    """One piece of Python on a page: where it begins, and what it is."""

    line: int
    code: str
    skipped: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Program:
    """What of a page is run."""

    blocks: tuple[Block, ...]
    needs: frozenset[str]


def read(path: Path) -> Program:
    """Return the program that a page is."""
    text = path.read_text(encoding="utf-8")
    blocks, needs, reason = [], set(), None
    for piece in _PIECE.finditer(text):
        line = text.count("\n", 0, piece.start())
        if piece["mark"] == "setup":
            blocks.append(Block(line, piece["text"].lstrip("\n")))
        elif piece["mark"] == "not run:":
            reason = piece["text"].strip()
        elif piece["mark"] == "run with:":
            needs.update(piece["text"].replace(",", " ").split())
        else:
            title = re.search(r'title="([^"]+)"', piece["info"])
            blocks.append(Block(line + 1, piece["code"], reason, title[1] if title else None))
            reason = None
    return Program(tuple(blocks), frozenset(needs))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


WITH_CODE = [path for path in PAGES if any(block.skipped is None for block in read(path).blocks)]
RUNS = [
    pytest.param(path, database, id=f"{name(path)}-{database}")
    for path in WITH_CODE
    for database in sorted(read(path).needs & {"sqlite", "postgresql"}) or ["sqlite"]
]


def run(folder: Path, url: str, *arguments: str, given: str = "") -> None:
    """Run Python in a folder; fail the test if it fails, or leaves a task or a coroutine behind."""
    done = subprocess.run(
        [sys.executable, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUTF8": "1", "DATABASE_URL": url},
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "Task was destroyed" not in done.stderr
    assert "never awaited" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("path", "database"), RUNS)
def test_the_python_of_a_page_runs(path: Path, database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Goal: what the documentation shows works. Method: the page's blocks as one program in a process of its own."""
    program = read(path)
    require(*(program.needs - {"sqlite", "postgresql"}), "aiosqlite", *(["asyncpg"] * (database == "postgresql")))
    if database == "sqlite":
        run_page(path, program, tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'docs.sqlite'}")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    created = server.create_database("docs_page")
    try:
        run_page(path, program, tmp_path, server.url("asyncpg", database=created))
    finally:
        server.drop_database(created)


def run_page(path: Path, program: Program, folder: Path, url: str) -> None:
    """Run everything of a page that is to be run."""
    blocks = [block for block in program.blocks if block.skipped is None]
    files = [block for block in blocks if block.file is not None]
    for block in files:
        (folder / str(block.file)).write_text(block.code, encoding="utf-8")
    plain = [(block.line, block.code.replace(POSTGRES_URL, url)) for block in blocks if block.file is None]
    if not url.startswith("postgresql"):
        plain = [(block.line, block.code) for block in blocks if block.file is None]
    if plain:
        run(folder, url, "-c", _RUNNER, given=json.dumps([name(path), plain]))
    tests = [str(block.file) for block in files if str(block.file).startswith("test_")]
    for block in files:
        if str(block.file) not in (*tests, "conftest.py"):
            run(folder, url, str(block.file))
    if tests:
        database = ["--db-url", url] if url.startswith("postgresql") else []
        run(folder, url, "-m", "pytest", "-q", "-p", "no:cacheprovider", *database, *tests)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_what_is_not_run_says_why(path: Path) -> None:
    """Goal: no block escapes unnoticed. Method: each one that is marked has a reason of more than a word."""
    for block in read(path).blocks:
        assert block.skipped is None or len(block.skipped.split()) > 2, f"{name(path)}:{block.line}"
    text = path.read_text(encoding="utf-8")
    fences = [piece for piece in _PIECE.finditer(text) if piece["code"] is not None]
    assert len(fences) == len(re.findall(r"^```python", text, re.MULTILINE))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_to_files(path: Path) -> None:
    """Goal: no dead ends. Method: the targets of all relative links of a page."""
    prose = _FENCED.sub("", path.read_text(encoding="utf-8"))
    dead = []
    for link in _LINK.finditer(prose):
        target = link["target"].partition("#")[0]
        if target and "://" not in target and not (path.parent / target).exists():
            dead.append(target)
    assert dead == []


def test_the_pages_were_found() -> None:
    """Goal: the other tests cannot pass by looking at nothing. Method: pages that exist, and code on them."""
    assert len(PAGES) > 50
    assert ROOT / "README.md" in WITH_CODE
    assert sum(len(read(path).blocks) for path in PAGES) > 50


def test_a_new_users_path_is_run_on_both_databases() -> None:
    """Goal: the ten minutes of the README stay true. Method: script, application and test of the tutorial are files
    that are run, on SQLite and on PostgreSQL; the README leads there.
    """
    tutorial = ROOT / "docs" / "tutorial"
    path = {"first-script.md": "shop.py", "web-application.md": "app.py", "testing.md": "test_orders.py"}
    for page, file in path.items():
        program = read(tutorial / page)
        assert program.needs >= {"sqlite", "postgresql"}
        assert [block.skipped for block in program.blocks if block.file == file] == [None]
        assert page in (tutorial / "index.md").read_text(encoding="utf-8")
    assert "(docs/tutorial/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_page_of_the_pools_options_says_what_they_are() -> None:
    """Goal: one source. Method: the page made anew; `python -m forebay.pool._pages FILE` writes it."""
    assert (ROOT / "docs" / "reference" / "pool-options.md").read_text(encoding="utf-8") == pool_options()


def test_the_page_of_the_off_switches_says_what_they_are() -> None:
    """Goal: one source. Method: the page made anew; `python -m forebay.dialects._switch_pages FILE` writes it."""
    assert (ROOT / "docs" / "reference" / "engine-options.md").read_text(encoding="utf-8") == engine_options()


def test_every_page_is_in_the_menu() -> None:
    """Goal: a page nobody finds is no page. Method: mkdocs.yml against the folder; errors and checks are listed by
    their own index pages.
    """
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/.-]+\.md", menu.partition("\nnav:")[2]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    wanted = {page for page in pages if not page.startswith(("errors/", "doctor/")) or page.endswith("index.md")}
    assert wanted - listed == set()
    assert listed - pages == set()


@pytest.mark.long
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Goal: the pages can be published. Method: mkdocs, strict, as `make docs` does."""
    require("mkdocs")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site / "errors" / "pool-timeout" / "index.html").exists()
