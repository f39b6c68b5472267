"""A URL whose driver is synchronous, unknown or not installed is refused with the name of the right one."""

from __future__ import annotations

import importlib.abc
import sys

import pytest
import sqlalchemy
from sqlalchemy import exc

from forebay import create_async_engine, create_async_pool_from_url
from forebay.errors import AsyncDriverRequiredError, ConfigurationError, DriverNotInstalledError, UnknownDriverError

SYNC = "The asyncio extension requires an async driver to be used. The loaded '{}' is not async. Write {} instead of {}"
SQLALCHEMY_20 = sqlalchemy.__version__.startswith("2.0.")


@pytest.mark.parametrize(
    ("url", "loaded", "instead"),
    [
        ("sqlite://", "pysqlite", "sqlite+aiosqlite://"),
        ("sqlite+pysqlite://", "pysqlite", "sqlite+aiosqlite://"),
        ("postgresql+psycopg2://", "psycopg2", "postgresql+asyncpg:// or postgresql+psycopg://"),
        ("postgresql+pg8000://", "pg8000", "postgresql+asyncpg:// or postgresql+psycopg://"),
        ("mysql://", "mysqldb", "mysql+asyncmy:// or mysql+aiomysql://"),
        ("mysql+pymysql://", "pymysql", "mysql+asyncmy:// or mysql+aiomysql://"),
        ("mariadb+pymysql://", "pymysql", "mariadb+asyncmy:// or mariadb+aiomysql://"),
        ("mssql+pyodbc://", "pyodbc", "mssql+aioodbc://"),
        ("oracle+cx_oracle://", "cx_oracle", "oracle+oracledb://"),
    ],
)
def test_a_synchronous_driver_is_refused_with_the_name_of_the_async_one(url: str, loaded: str, instead: str) -> None:
    """Goal: the correction can be pasted, whether the synchronous driver is installed or not. Method: each database."""
    with pytest.raises(exc.InvalidRequestError) as caught:  # what SQLAlchemy raises
        create_async_engine(f"{url}/db")
    assert str(caught.value) == SYNC.format(loaded, instead, url)
    assert isinstance(caught.value, AsyncDriverRequiredError)
    assert isinstance(caught.value, ConfigurationError)


def test_a_url_without_a_driver_is_what_this_version_of_sqlalchemy_makes_of_it() -> None:
    """Goal: `postgresql://` means psycopg 3 since SQLAlchemy 2.1, which works, and psycopg2 before. Method: both."""
    if SQLALCHEMY_20:
        with pytest.raises(AsyncDriverRequiredError) as caught:
            create_async_engine("postgresql://host/db")
        assert str(caught.value) == SYNC.format(
            "psycopg2", "postgresql+asyncpg:// or postgresql+psycopg://", "postgresql://"
        )
    else:
        assert create_async_engine("postgresql://host/db").dialect.driver == "psycopg"


def test_a_pool_of_a_synchronous_driver_is_made_as_sqlalchemy_makes_it() -> None:
    """Goal: `create_async_pool_from_url` refuses nothing that SQLAlchemy takes. Method: what its own tests call."""
    assert create_async_pool_from_url("sqlite://").status()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pgsql://", "pgsql. Did you mean postgresql+asyncpg:// or postgresql+psycopg://?"),
        ("postgres+asyncpg://", "postgres.asyncpg. Did you mean postgresql+asyncpg://?"),
        ("asyncpg://", "asyncpg. Did you mean postgresql+asyncpg://?"),
        ("postgresql+asynpg://", "postgresql.asynpg. Did you mean postgresql+asyncpg:// or postgresql+psycopg://?"),
        ("mysql+aiomysq://", "mysql.aiomysq. Did you mean mysql+aiomysql://"),
        ("sqlite3://", "sqlite3. Did you mean sqlite+aiosqlite://?"),
        ("nonesuch://", "nonesuch."),
    ],
)
def test_an_unknown_driver_is_refused_with_near_ones(url: str, message: str) -> None:
    """Goal: a typing error is corrected by the message. Method: usual mistakes, and a name like no other."""
    with pytest.raises(exc.NoSuchModuleError) as caught:  # what SQLAlchemy raises
        create_async_engine(f"{url}u:s3cret@host/db")
    assert str(caught.value).startswith(f"Can't load plugin: sqlalchemy.dialects:{message}")
    assert isinstance(caught.value, UnknownDriverError)


class _Hidden(importlib.abc.MetaPathFinder):
    """Makes one package look as if it were not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname.split(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql+asyncpg", "asyncpg", "asyncpg"),
        ("postgresql+psycopg", "psycopg", "psycopg"),
        ("mysql+asyncmy", "asyncmy", "asyncmy"),
        ("mysql+aiomysql", "aiomysql", "aiomysql"),
        ("sqlite+aiosqlite", "aiosqlite", "sqlite"),
    ],
)
def test_a_driver_that_is_not_installed_is_refused_with_the_extra_that_brings_it(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the command to paste is in the message. Method: each driver hidden from the import system in turn."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden(module), *sys.meta_path])

    with pytest.raises(ModuleNotFoundError) as caught:  # what SQLAlchemy raises
        create_async_engine(f"{url}:///db")

    assert str(caught.value) == (
        f"No module named '{module}'. The driver of {url}:// is missing. Install it: pip install \"forebay[{extra}]\""
    )
    assert caught.value.name == module
    assert isinstance(caught.value, DriverNotInstalledError)


def test_a_url_without_a_driver_names_the_installed_one_where_sqlalchemys_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: a platform's `postgresql://` with only asyncpg installed says what to write. Method: psycopg hidden."""
    if SQLALCHEMY_20:
        pytest.skip("postgresql:// is psycopg2 there, and refused as synchronous")
    for name in [name for name in sys.modules if name.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Hidden("psycopg"), *sys.meta_path])
    with pytest.raises(DriverNotInstalledError) as caught:
        create_async_engine("postgresql://u:s3cret@host/db")
    assert str(caught.value) == (
        "No module named 'psycopg'. The driver of postgresql:// is missing. Install it: pip install "
        '"forebay[psycopg]", or write postgresql+asyncpg://, which is installed'
    )


def test_a_driver_we_have_no_adapter_for_is_named_by_its_package() -> None:
    """Goal: no extra of ours is promised for it. Method: one that is not installed here."""
    pytest.importorskip("sqlalchemy.dialects.mssql")
    with pytest.raises(DriverNotInstalledError) as caught:
        create_async_engine("mssql+aioodbc://host/db")
    assert str(caught.value).endswith("Install it: pip install aioodbc")
