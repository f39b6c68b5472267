"""URLs: what the commands accept, what they say about the rest, and that no password gets out."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy.engine import make_url

from forebay.cli.database import Database, chosen_database, open_engine, parse_database, server_version
from forebay.cli.errors import CliError

SECRET = "s3cr3t/p w"
QUOTED = "s3cr3t%2Fp%20w"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"{SECRET}", "cannot parse the database URL"),
        (f"postgresql+asyncpg://u:{SECRET}@h:port/d", "cannot parse the database URL"),
        (f"postgresql+asyncpg://u:x@{QUOTED}@h/d", "must be percent-encoded"),
        (f"postgresql+psycopg2://u:{QUOTED}@h/d", "postgresql+asyncpg:// or postgresql+psycopg://"),
        (f"mysql+pymysql://u:{QUOTED}@h/d", "mysql+asyncmy:// or mysql+aiomysql://"),
        (f"mariadb+mariadbconnector://u:{QUOTED}@h/d", "mariadb+asyncmy:// or mariadb+aiomysql://"),
        ("sqlite:///file.db", "sqlite+aiosqlite://"),
        (f"oracle+oracledb://u:{QUOTED}@h/d", "'oracle' is not supported"),
        (f"mssql+aioodbc://u:{QUOTED}@h/d", "'mssql' is not supported"),
        (f"nothing+real://u:{QUOTED}@h/d", "'nothing' is not supported"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line_without_its_password(url: str, says: str) -> None:
    """Goal: the user learns what to write instead. Method: every kind of wrong URL, each with a password in it."""
    with pytest.raises(CliError) as caught:
        parse_database(url)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert "s3cr3t" not in message
    assert caught.value.exit_code == 1
    # What main() does not print must not be printed by a traceback either.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_label_shows_everything_but_secrets() -> None:
    """Goal: a line the user can place, and may paste. Method: a URL with a password in two places."""
    database = Database(make_url(f"postgresql+asyncpg://ann:{QUOTED}@db.example:5433/shop?sslpassword={QUOTED}"))
    assert database.label == "postgresql+asyncpg://ann@db.example:5433/shop"


@pytest.mark.parametrize("spelled", [SECRET, QUOTED, "s3cr3t%2Fp+w"])
def test_a_secret_in_a_drivers_message_is_blanked_however_it_is_spelled(spelled: str) -> None:
    """Goal: a driver that repeats its arguments does no harm. Method: a message with the secret in each encoding."""
    database = Database(make_url(f"postgresql+asyncpg://ann:{QUOTED}@db.example/shop"))
    failure = database.failure("connect", OSError(f"no luck with {spelled}!"))
    assert str(failure) == "could not connect (postgresql+asyncpg://ann@db.example/shop): no luck with ***!"


@pytest.mark.parametrize(
    ("url", "in_memory"),
    [
        ("sqlite+aiosqlite://", True),
        ("sqlite+aiosqlite:///:memory:", True),
        ("sqlite+aiosqlite:///file:x?mode=memory&cache=shared&uri=true", True),
        ("sqlite+aiosqlite:///file.db", False),
        ("postgresql+asyncpg://h/memory", False),
    ],
)
def test_a_database_in_memory_is_recognised(url: str, in_memory: bool) -> None:
    """Goal: such a database lives in one connection and is treated so. Method: its spellings, and look-alikes."""
    assert Database(make_url(url)).in_memory is in_memory


@pytest.mark.parametrize(
    ("url", "extra"),
    [("postgresql+asyncpg://u:s3cr3t@h/d", "asyncpg"), ("sqlite+aiosqlite:///x.db", "sqlite")],
)
def test_a_driver_that_is_not_installed_is_named_with_its_extra(url: str, extra: str) -> None:
    """Goal: the user learns what to install. Method: take the driver away in a process of its own."""
    driver = url.partition("+")[2].partition(":")[0]
    code = (
        f"import sys; sys.modules[{driver!r}] = None\n"
        "from forebay.cli.database import parse_database\n"
        "from forebay.cli.errors import CliError\n"
        f"try: parse_database({url!r})\n"
        "except CliError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert f"forebay[{extra}]" in done.stdout
    assert driver in done.stdout
    assert "s3cr3t" not in done.stdout


async def test_a_server_that_is_not_there_is_reported_without_the_password(unused_port: int) -> None:
    """Goal: one clear line. Method: connect to a port nobody listens on, by both PostgreSQL drivers."""
    for driver in ("asyncpg", "psycopg"):
        database = parse_database(f"postgresql+{driver}://ann:s3cr3t@127.0.0.1:{unused_port}/shop")
        engine = open_engine(database)
        with pytest.raises(CliError, match=r"(?i)could not connect .*connection refused$") as caught:
            await server_version(engine, database)
        assert "s3cr3t" not in str(caught.value)
        await engine.dispose()


def test_the_embedded_database_is_gone_afterwards() -> None:
    """Goal: nothing stays on the user's disk. Method: look at the folder inside and after the block."""
    from pathlib import Path

    with chosen_database(None, "test") as database:
        file = Path(str(database.url.database))
        assert file.exists()
        assert str(file) not in database.label
    assert not file.parent.exists()
