"""Tables the commands make in somebody's database: none is made beside existing ones, only ours are dropped."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

from forebay.cli import tables
from forebay.cli.database import Database, open_engine, parse_database
from forebay.cli.errors import CliError, Refused
from forebay.cli.tables import own_tables

METADATA = MetaData()
PARENT = Table(
    "forebay_test_parent", METADATA, Column("id", Integer, primary_key=True), Column("n", Integer, index=True)
)
CHILD = Table("forebay_test_child", METADATA, Column("parent", ForeignKey(PARENT.c.id), primary_key=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A SQLite file of somebody's, with a table and a row in it."""
    path = tmp_path / "theirs.db"
    run(path, "CREATE TABLE theirs (n INTEGER)", "INSERT INTO theirs VALUES (1)")
    return path


@pytest.fixture
def database(file: Path) -> Database:
    """The same, as the commands see it."""
    return parse_database(f"sqlite+aiosqlite:///{file}")


def run(path: Path, *statements: str) -> None:
    """Execute statements from outside."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def names(path: Path) -> set[str]:
    """Return the names of all tables and views in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        }


async def test_the_tables_exist_inside_the_block_only(database: Database, file: Path) -> None:
    """Goal: made and removed, with nothing else touched. Method: list the file's tables inside and after."""
    async with own_tables(database, open_engine(database), METADATA):
        assert names(file) == {"theirs", PARENT.name, CHILD.name}
    assert names(file) == {"theirs"}


async def test_the_tables_go_when_the_block_fails(database: Database, file: Path) -> None:
    """Goal: an error leaves nothing behind and is not replaced. Method: raise inside the block."""
    with pytest.raises(ZeroDivisionError):
        async with own_tables(database, open_engine(database), METADATA):
            raise ZeroDivisionError
    assert names(file) == {"theirs"}


@pytest.mark.parametrize("kind", ["TABLE {} (n INTEGER)", "VIEW {} AS SELECT n FROM theirs"])
@pytest.mark.parametrize("table", [PARENT, CHILD], ids=lambda table: table.name)
async def test_one_existing_table_or_view_is_reason_to_touch_nothing(
    database: Database, file: Path, table: Table, kind: str
) -> None:
    """Goal: never run beside, or drop, something that was there. Method: each name taken, by a table and by a view."""
    run(file, "CREATE " + kind.format(table.name))
    before = file.read_bytes()
    engine = open_engine(database)
    with pytest.raises(Refused, match=f"{table.name} already exists .* nothing was touched") as caught:
        async with own_tables(database, engine, METADATA):
            pytest.fail("the block must not run")
    assert caught.value.exit_code == 2
    assert file.read_bytes() == before


async def test_a_table_somebody_else_makes_first_is_not_dropped(
    database: Database, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: two runs racing each other are safe. Method: the child appears between the look and the creation."""

    def looked(connection: object, wanted: object) -> list[str]:
        run(file, f"CREATE TABLE {CHILD.name} (n INTEGER)", f"INSERT INTO {CHILD.name} VALUES (7)")
        return []

    monkeypatch.setattr(tables, "existing_tables", looked)
    with pytest.raises(Refused, match=CHILD.name):
        async with own_tables(database, open_engine(database), METADATA):
            pytest.fail("the block must not run")
    assert names(file) == {"theirs", CHILD.name}


@pytest.mark.long
async def test_a_cancel_at_any_moment_leaves_nothing_behind(database: Database, file: Path) -> None:
    """Goal: Ctrl-C is safe from the first statement to the last. Method: cancel after 0, 1, 2 … turns of the loop."""
    finished = False
    turns = 0
    while not finished:

        async def use() -> None:
            async with own_tables(database, open_engine(database), METADATA):
                pass

        task = asyncio.create_task(use())
        for _ in range(turns):
            await asyncio.sleep(0.001 if turns % 2 else 0)
        finished = task.done() or turns > 40
        task.cancel()
        await asyncio.wait([task])
        assert names(file) == {"theirs"}, f"cancelled after {turns} turns"
        turns += 1
    assert turns > 3


async def test_tables_that_cannot_be_removed_are_named_with_the_sql_to_do_it(
    database: Database, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what stays behind is said, with the way out. Method: the database file becomes garbage meanwhile."""
    monkeypatch.setattr(tables, "RETRY_S", 0)
    with pytest.raises(
        CliError, match=r"could not remove .*DROP TABLE forebay_test_child; DROP TABLE forebay_test_par"
    ):
        async with own_tables(database, open_engine(database), METADATA):
            file.write_bytes(b"not a database" * 1000)


@pytest.mark.parametrize("fault", [CliError("the traffic failed"), ZeroDivisionError("a fault of ours")], ids=repr)
async def test_the_first_error_is_told_together_with_what_stayed_behind(
    database: Database, file: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """Goal: the clean-up's failure does not hide why the run ended. Method: both fail."""
    monkeypatch.setattr(tables, "RETRY_S", 0)
    with pytest.raises(type(fault)) as caught:
        async with own_tables(database, open_engine(database), METADATA):
            file.write_bytes(b"not a database" * 1000)
            raise fault
    told = "; then ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert told.startswith(f"{fault}; then ")
    assert "could not remove forebay_test_parent" in told


async def test_removing_is_tried_again_while_the_database_refuses(
    database: Database, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a server that restarts at the wrong moment gets no tables left in it. Method: garbage, put right later."""
    monkeypatch.setattr(tables, "RETRY_PAUSE_S", 0.01)
    async with own_tables(database, open_engine(database), METADATA):
        good = file.read_bytes()
        file.write_bytes(b"not a database" * 1000)
        asyncio.get_running_loop().call_later(0.05, file.write_bytes, good)
    assert names(file) == {"theirs"}
