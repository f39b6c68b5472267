"""An option more is one entry in the table: all that knows of options knows it then."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import fields
from pathlib import Path

import forebay
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects.switches import SWITCHES, Switches
from forebay.pool import CoreConfig
from forebay.pool.options import OPTIONS
from tests.support.programs import run_program

_ENTRY = """    Option(
        "pool_example",
        "pool_example",
        float,
        "seconds",
        0.5,
        0.25,
        10,
        False,
        "What it means.",
        "Why.",
        core="permanent_retry_s",
    ),
"""

_PROGRAM = """
import os

import forebay
from forebay.errors import InvalidOptionError
from forebay.pool._pages import as_markdown

URL = "sqlite+aiosqlite:///x.db"


def core_of(engine):
    return engine.sync_engine.pool._loops._config.permanent_retry_s


assert core_of(forebay.create_async_engine(URL)) == 0.5
engine = forebay.create_async_engine(URL, pool_example=2)
assert core_of(engine) == 2
engine.sync_engine.dispose()
assert core_of(engine) == 2  # the pool that came after
assert core_of(forebay.async_engine_from_config({"sqlalchemy.url": URL, "sqlalchemy.pool_example": "3"})) == 3.0
for wrong in (0.1, 11, "1", None):
    try:
        forebay.create_async_engine(URL, pool_example=wrong)
    except InvalidOptionError as error:
        assert "pool_example=" in str(error), error
    else:
        raise AssertionError(wrong)
try:
    forebay.create_async_engine(URL, pool_exampel=1)
except InvalidOptionError as error:
    assert "pool_example" in str(error), error
os.environ.update(DATABASE_URL=URL, DB_POOL_EXAMPLE="4")
assert forebay.settings_from_env().options["pool_example"] == 4.0
forebay.create_sync_engine(URL, pool_example=2)
assert "| `pool_example` | seconds | `0.5` |" in as_markdown()
"""


def test_an_option_more_is_one_entry(tmp_path: Path) -> None:
    """Goal: keyword, check, core, configuration, environment, page. Method: one entry in a copy of the package."""
    shutil.copytree(
        Path(forebay.__file__).parent, tmp_path / "forebay", ignore=shutil.ignore_patterns("__pycache__", "testing")
    )
    table = tmp_path / "forebay" / "pool" / "options.py"
    text = table.read_text(encoding="utf-8")
    end = text.index("\n)\n", text.index("OPTIONS: tuple")) + 1
    table.write_text(text[:end] + _ENTRY + text[end:], encoding="utf-8")
    run_program(_PROGRAM, cwd=tmp_path, path=[tmp_path])


def test_what_the_core_is_given_is_what_it_has() -> None:
    """Goal: no entry leads nowhere. Method: the core's fields, and that no two options go into one."""
    core = [option.core for option in OPTIONS if option.core is not None]
    assert set(core) <= {field.name for field in fields(CoreConfig)}
    assert len(set(core)) == len(core)


def test_the_off_switches_are_the_same_everywhere() -> None:
    """Goal: a switch that is in the table is taken by every dialect of ours, and told to its connections."""
    names = [switch.name for switch in SWITCHES]
    assert [(field.name, field.default) for field in fields(Switches)] == [(one.name, one.default) for one in SWITCHES]
    assert [
        name for name in inspect.signature(PooledDialect.__init__).parameters if name not in ("self", "kw")
    ] == names
