"""A driver more, added by the page *Add a driver*: what it says, and no more, is done to a copy of the package."""

from __future__ import annotations

import re
import shutil
import textwrap
import tomllib
from pathlib import Path

import pytest

import forebay
from forebay.drivers import DRIVERS, by_database, driver_of_class, driver_of_url, ours
from tests.support.programs import run_program

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-driver.md"

_PROGRAM = """
import asyncio

from tests.support.fake_dialect import FakeDialect  # as its package's entry point would
from tests.support.fake_driver import FakeDatabase
from sqlalchemy import make_url, text

import forebay
from forebay.dialects._adapter import pooled
from forebay.errors import DriverNotInstalledError, UnknownDriverError

URL = "fake+gates://"


async def use(create_async_engine, url):
    database = FakeDatabase()
    engine = create_async_engine(url, connect_args={"database": database}, pool_size=1, max_overflow=0)
    assert type(engine.dialect).__module__ == "forebay.dialects.gates", type(engine.dialect)
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.commit()
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
            adapted = connection.sync_connection.connection.dbapi_connection
            assert pooled(adapted) is adapted
            assert not adapted.peer_closed()
    assert database.opened == 1
    assert engine.sync_engine.pool.statistics().idle == 1
    await engine.dispose()
    assert database.sessions == {}


def create():
    asyncio.run(use(forebay.create_async_engine, URL))
    assert forebay.async_url("fake://").drivername == "fake+gates"
    assert forebay.async_url("fake+gates_sync://").drivername == "fake+gates"
    assert forebay.sync_url(URL).drivername == "fake+gates_sync"
    try:
        forebay.create_async_engine("fake+gate://")
    except UnknownDriverError as error:
        assert "Did you mean fake+gates://?" in str(error), error
    else:
        raise AssertionError("a misspelt driver was taken")


def install():
    forebay.install()
    from sqlalchemy.ext.asyncio import create_async_engine

    asyncio.run(use(create_async_engine, URL))


def doctor():
    from forebay.cli.any_url import any_database
    from forebay.cli.database import parse_database
    from forebay.cli.doctor.target import subject_of
    from forebay.cli.errors import CliError

    assert any_database("fake://").label == URL
    subject = subject_of(URL, timeout_s=5.0)
    assert subject.problem is None or not subject.problem, subject.problem
    assert subject.label == URL
    try:
        parse_database("fake+other://")
    except CliError as error:
        assert "write fake+gates://" in str(error), error
    else:
        raise AssertionError("an unknown driver was taken")


def hints():
    from forebay.hints import explain, hint_for

    found = explain("ModuleNotFoundError: No module named 'tests.support.fake_driver'")
    assert [one.hint.code for one in found] == ["driver-not-installed"], found
    assert "gates" in found[0].hint.remedies[0]

    def not_here(cls):
        raise ModuleNotFoundError("No module named 'tests.support.fake_driver'", name="tests.support.fake_driver")

    from forebay.dialects.gates import GatesDialect

    GatesDialect.import_dbapi = classmethod(not_here)
    try:
        forebay.create_async_engine(URL)
    except DriverNotInstalledError as error:
        assert 'pip install "forebay[gates]"' in str(error), error
        assert hint_for(error).code == "driver-not-installed"
    else:
        raise AssertionError("a driver that is not there was taken")


{what}()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's blocks in it."""
    folder = tmp_path_factory.mktemp("sixth")
    source = Path(forebay.__file__).parent
    shutil.copytree(source, folder / "forebay", ignore=shutil.ignore_patterns("__pycache__"))
    blocks = dict(
        re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
    assert set(blocks) == {"drivers.py", "dialects/gates.py"}
    table = folder / "forebay" / "drivers.py"
    text = table.read_text(encoding="utf-8")
    end = text.index("\n)\n\n\ndef ours")
    entry = textwrap.indent(blocks["drivers.py"].rstrip(), "    ") + ","
    table.write_text(f"{text[:end]}\n{entry}{text[end:]}", encoding="utf-8")
    (folder / "forebay" / "dialects" / "gates.py").write_text(blocks["dialects/gates.py"], encoding="utf-8")
    return folder


@pytest.mark.parametrize("what", ["create", "install", "doctor", "hints"])
def test_a_driver_is_added_by_the_page(package: Path, what: str) -> None:
    """Goal: nothing else needs to know. Method: a program on the copy, for each thing that does."""
    run_program(_PROGRAM.replace("{what}", what), "-W", "error", path=[package, ROOT])


def test_each_driver_has_its_extra() -> None:
    """Goal: what an error message says to install can be. Method: the extras of `pyproject.toml`, beside the table."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    everything = extras["all"][0]
    for driver in ours():
        assert driver.extra is not None
        assert any(re.match(rf"{driver.package}\b", requirement) for requirement in extras[driver.extra]), driver.name
        assert driver.extra in re.split(r"[\[\],]", everything), driver.name


def test_each_driver_must_be_there_where_every_change_is_tested() -> None:
    """Goal: none is skipped unnoticed. Method: `.ci/run`, beside the table."""
    required = re.findall(r"[\w-]+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert {driver.name for driver in ours()} <= set(required)


def test_the_table_answers() -> None:
    """Goal: its few functions. Method: each, for a driver, for another name of it, and for none."""
    assert len({driver.name for driver in DRIVERS}) == len(DRIVERS)
    assert by_database()["postgresql"][0] == "asyncpg"
    psycopg = driver_of_url("postgresql+psycopg")
    assert psycopg is not None
    assert driver_of_url("postgresql+psycopg_async") is psycopg
    assert driver_of_url("postgresql") is None
    assert driver_of_url("mysql+psycopg") is None
    from forebay.dialects.psycopg import PsycopgDialect

    assert driver_of_class(type("Derived", (PsycopgDialect,), {})) is psycopg
    assert driver_of_class(object) is None
