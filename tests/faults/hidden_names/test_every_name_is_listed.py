"""Every private name of a driver that the adapters use is in the driver's table, so that it is checked at connect."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import forebay
from forebay.dialects._asyncpg.parts import PARTS as ASYNCPG
from forebay.dialects._mysql.parts import AIOMYSQL, ASYNCMY
from forebay.dialects._parts import Parts
from forebay.dialects._psycopg.parts import PARTS as PSYCOPG
from forebay.dialects._sqlite.parts import PARTS as AIOSQLITE
from tests.faults.marks import ours_only

pytestmark = ours_only

DIALECTS = Path(forebay.__file__).parent / "dialects"

#: The files of each driver, and its tables.
FILES: dict[str, tuple[Parts, ...]] = {
    "asyncpg.py": (ASYNCPG,),
    "_asyncpg": (ASYNCPG,),
    "psycopg.py": (PSYCOPG,),
    "_psycopg": (PSYCOPG,),
    "_postgresql": (ASYNCPG, PSYCOPG),
    "asyncmy.py": (ASYNCMY,),
    "aiomysql.py": (AIOMYSQL,),
    "_mysql": (ASYNCMY, AIOMYSQL),
    "sqlite.py": (AIOSQLITE,),
    "_sqlite": (AIOSQLITE,),
}

#: Names that are no driver's, and whose they are.
NOT_A_DRIVERS = {
    "_connection": "SQLAlchemy's adapter: the driver's connection (aiosqlite has one of that name, in its table)",
    "_cursor": "SQLAlchemy's cursors: the driver's cursor",
    "_execute_mutex": "SQLAlchemy's adapter for asyncpg",
    "_transaction": "SQLAlchemy's adapter for asyncpg",
    "_isolation_setting": "SQLAlchemy's adapter for asyncpg",
    "_prepare": "SQLAlchemy's adapter for asyncpg, overridden",
    "_start_transaction": "SQLAlchemy's adapter for asyncpg, overridden",
    "_check_type_cache_invalidation": "SQLAlchemy's adapter for asyncpg",
    "_async_ping": "SQLAlchemy's adapter for asyncpg, overridden",
    "_handle_exception": "SQLAlchemy's adapters",
    "_asyncpg_error_translate": "SQLAlchemy's module for asyncpg, overridden",
    "_started": "SQLAlchemy 2.0's adapter for asyncpg",
    "_dialect": "SQLAlchemy's pool",
    "_invalidate_schema_cache": "SQLAlchemy's dialect for asyncpg",
    "_invalidate_schema_cache_asof": "SQLAlchemy's dialect for asyncpg",
    "_get_server_version_info": "SQLAlchemy's dialects, overridden",
    "_set_backslash_escapes": "SQLAlchemy's dialects, overridden",
    "_type_info_fetch": "SQLAlchemy's dialect for psycopg, overridden",
    "_checkout": "ours: PsycopgConnection, of another one",
    "_handed_in": "ours: PsycopgConnection, of another one",
    "_note_use": "ours: PsycopgConnection, of another one",
    "_run": "ours: RestingConnection, overridden",
    "_scripts": "ours: Replies, looked at by the rider at each piece that arrives",
    "_try_cancel_bounded": "ours: BoundedAsyncConnection",
    "_call_connection_lost": "asyncio's transport, of a loop that is closed",
    "_closing": "asyncio's transport, of a loop that is closed",
    "_sock": "asyncio's transport, asked for with a default",
}

#: Our classes that are a driver's, too: what they take of themselves may be the driver's.
A_DRIVERS_CLASS = {"BoundedAsyncConnection", "Manager"}


def _taken(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every private attribute that is taken of something, by a dot or by its name as a string,
    but what an object of ours takes of itself.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in A_DRIVERS_CLASS:
            own = set(_defined_in(node))
            yield from ((line, name) for line, name in _of_self(node) if name not in own)
        if isinstance(node, ast.Attribute) and not _is_self(node.value) and _is_private(node.attr):
            yield node.lineno, node.attr
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "hasattr", "setattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
            and _is_private(str(node.args[1].value))
        ):
            yield node.lineno, str(node.args[1].value)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.module.startswith("forebay"):
            yield from ((node.lineno, alias.name) for alias in node.names if _is_private(alias.name))


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _of_self(node: ast.AST) -> Iterator[tuple[int, str]]:
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and _is_self(one.value) and _is_private(one.attr):
            yield one.lineno, one.attr


def _defined_in(node: ast.ClassDef) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield one.name
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id
        elif isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store) and _is_self(one.value):
            yield one.attr


def _files(place: str) -> list[Path]:
    path = DIALECTS / place
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


@pytest.mark.parametrize("place", list(FILES))
def test_every_private_name_is_in_the_table(place: str) -> None:
    """Goal: a name that is used and not checked cannot come in. Method: the source, each name against the tables."""
    listed = {name for parts in FILES[place] for need in parts.needs for name in need.names}
    unlisted = [
        f"{path.name}:{line}: {name}"
        for path in _files(place)
        for line, name in _taken(ast.parse(path.read_text(encoding="utf-8")))
        if name not in listed and name not in NOT_A_DRIVERS
    ]
    assert unlisted == []


def test_no_name_is_listed_in_vain() -> None:
    """Goal: tables that can be believed. Method: each private name of a table, and each exception, is in the source."""
    used: set[str] = set()
    for path in DIALECTS.rglob("*.py"):
        if path.name != "parts.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            used |= {name for _, name in _taken(tree)} | {name for _, name in _of_self(tree)}
    parts_of = (ASYNCPG, PSYCOPG, ASYNCMY, AIOMYSQL, AIOSQLITE)
    listed = {name for parts in parts_of for need in parts.needs for name in need.names if _is_private(name)}
    helpers = {"_protocol", "_transport", "_prepared"}  # taken in parts.py itself
    assert listed - used - helpers == set()
    assert set(NOT_A_DRIVERS) - used == set()


def test_other_files_take_nothing_of_a_driver() -> None:
    """Goal: the tables are all there is. Method: every other file of the package that touches drivers."""
    found = [
        f"{path.name}:{line}: {name}"
        for folder in (DIALECTS, DIALECTS.parent / "engine", DIALECTS.parent / "hints")
        for path in sorted(folder.glob("*.py"))
        if path.name not in FILES
        for line, name in _taken(ast.parse(path.read_text(encoding="utf-8")))
        if name not in NOT_A_DRIVERS
    ]
    # SQLAlchemy's transaction and its mark of mock objects; the interpreter's.
    known = {"_assign_proxied", "_sqla_is_testing_if_this_is_a_mock_object", "_getframe"}
    assert [one for one in found if one.rsplit(" ", 1)[1] not in known] == []
