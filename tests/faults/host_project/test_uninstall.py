"""`install()` puts our names into SQLAlchemy's modules, `uninstall()` takes them out.

Goal: afterwards SQLAlchemy is as it was, and what others have put there meanwhile is still there.
Method: every attribute of SQLAlchemy's modules and classes, before and after, in a process of its own; a tool that
wraps a name between the two calls.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types
import warnings

import pytest
from sqlalchemy.ext.asyncio import engine as stock_engine

import forebay
from forebay.errors import InstallWarning
from tests.faults.marks import not_yet, ours_only

_PROGRAM = """
    import importlib, sys
    import sqlalchemy, sqlalchemy.dialects, sqlalchemy.ext.asyncio, sqlalchemy.orm
    for name in ("postgresql.asyncpg", "postgresql.psycopg", "mysql.asyncmy", "mysql.aiomysql", "sqlite.aiosqlite"):
        importlib.import_module("sqlalchemy.dialects." + name)
    URLS = ("postgresql+asyncpg://a@h/d", "postgresql+psycopg://a@h/d", "mysql+asyncmy://a@h/d", "mysql+aiomysql://a@h/d",
            "sqlite+aiosqlite://")

    def everything():
        found = {}
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] != "sqlalchemy":
                continue
            for key, value in vars(module).items():
                found[name, key] = value
                if isinstance(value, type) and value.__module__.startswith("sqlalchemy"):
                    found.update({(value.__qualname__, inner): what for inner, what in vars(value).items()})
        for what in ("registry", "plugins"):
            registry = getattr(sqlalchemy.dialects, what)
            found.update({(what, key): value for key, value in registry.impls.items()})
        return found

    for url in URLS:  # what SQLAlchemy itself keeps of a first engine
        sqlalchemy.ext.asyncio.create_async_engine(url)
    before = everything()
    import forebay
    forebay.install()
    for url in URLS:
        sqlalchemy.ext.asyncio.create_async_engine(url)
    forebay.uninstall()
    after = everything()
    owners = {owner for owner, _ in before}
    for key in sorted(set(before) | set(after)):
        changed = before[key] is not after.get(key) if key in before else key[0] in owners
        if changed and key[1] not in ("_memoized_keys", "__annotations__"):
            print(*key, sep=".")
"""


@pytest.mark.slow
@ours_only
@not_yet("the wrapping of driver errors and the text of MissingGreenlet stay as we have made them")
def test_uninstall_leaves_nothing_of_sqlalchemy_changed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@ours_only
@not_yet("uninstall() puts back what it has saved, whatever stands there now")
def test_uninstall_keeps_what_a_tool_has_put_there_meanwhile() -> None:
    """A tracing tool wraps `create_async_engine` after `install()`; `uninstall()` must not switch it off."""
    ours = forebay.create_async_engine
    assert stock_engine.create_async_engine is not ours
    stock = stock_engine.create_async_engine

    def traced(*args: object, **options: object) -> object:
        return ours(*args, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InstallWarning)
        forebay.install()
    try:
        stock_engine.create_async_engine = traced
        forebay.uninstall()
        assert stock_engine.create_async_engine is traced
    finally:
        forebay.uninstall()
        stock_engine.create_async_engine = stock


@ours_only
@not_yet("the names are replaced first, and the warning that is raised as an error comes after")
def test_install_that_raises_its_warning_has_installed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `python -W error` the warning of a late `install()` is an error: what raises must change nothing."""
    early = types.ModuleType("imported_early")
    early.__dict__["create_async_engine"] = stock = stock_engine.create_async_engine
    monkeypatch.setitem(sys.modules, "imported_early", early)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InstallWarning)
            with pytest.raises(InstallWarning):
                forebay.install()
        assert stock_engine.create_async_engine is stock
    finally:
        forebay.uninstall()
