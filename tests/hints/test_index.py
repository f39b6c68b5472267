"""The index itself: complete, consistent, recognised by its own texts, and the same as its pages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.hints import INDEX, Hint, explain, find, hint_for, nearest
from forebay.hints._pages import index_page, page

DOCS = Path(__file__).parents[2] / "docs" / "errors"

# What users see, word for word, with the code it must lead to.
SEEN = {
    "No module named 'asyncpg'": "driver-not-installed",
    "sqlalchemy.exc.MissingGreenlet: greenlet_spawn has not been called; can't call await_only() here.": (
        "missing-greenlet"
    ),
    "GreenletSpawnError": "missing-greenlet",
    "MissingGreenletError": "missing-greenlet",
    "Could not parse SQLAlchemy URL from given URL string": "url-unparsable",
    "Could not parse rfc1738 URL from string ''": "url-unparsable",
    "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00": "pool-timeout",
    "20 callers are waiting for a connection already, as many as pool_max_waiting=20 allows": "pool-overloaded",
    "asyncio.TimeoutError": "timeout-at-checkout",
    "asyncio.exceptions.TimeoutError": "timeout-at-checkout",
    "ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 5432)": "connection-refused",
    "asyncpg.exceptions.CannotConnectNowError: the database system is starting up": "server-starting",
    "FATAL:  the database system is shutting down": "server-starting",
    "asyncpg.exceptions.ConnectionDoesNotExistError: connection was closed in the middle of operation": (
        "connection-closed-mid-operation"
    ),
    "asyncpg.exceptions.InvalidCachedStatementError: cached statement plan is invalid due to a database schema or "
    "configuration change": "stale-plan",
    'prepared statement "__asyncpg_stmt_1__" already exists': "prepared-statement-exists",
    'InvalidSQLStatementNameError: prepared statement "__asyncpg_stmt_1__" does not exist': (
        "prepared-statement-missing"
    ),
    "asyncpg.exceptions.TooManyConnectionsError: sorry, too many clients already": "too-many-clients",
    "remaining connection slots are reserved for non-replication superuser connections": "slots-reserved",
    "remaining connection slots are reserved for non-replication superuser, rds_reserved, and rds_superuser "
    "connections": "slots-reserved",
    "sqlalchemy.orm.exc.DetachedInstanceError: Instance <Order at 0x1> is not bound to a Session": (
        "detached-instance"
    ),
    "RuntimeError: Event loop is closed": "event-loop-closed",
    "RuntimeError: Task <Task> got Future <Future pending> attached to a different loop": "different-loop",
    "InterfaceError: cannot perform operation: another operation is in progress": "operation-in-progress",
    "The garbage collector is trying to clean up non-checked-in connection": "connection-not-returned",
    "greenlet.error: cannot switch to a different thread": "greenlet-thread",
    "connect() got an unexpected keyword argument 'sslmode'": "sslmode-keyword",
    "ProtocolViolationError: unsupported startup parameter: jit": "startup-parameter",
    "cannot execute INSERT in a read-only transaction": "read-only-transaction",
    "sqlalchemy.exc.PendingRollbackError: Can't reconnect until invalid transaction is rolled back.": (
        "pending-rollback"
    ),
    "(sqlite3.OperationalError) database is locked": "sqlite-locked",
    "(2006, 'MySQL server has gone away')": "mysql-gone-away",
    "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed": "tls-certificate",
    "The asyncio extension requires an async driver to be used. The loaded 'psycopg2' is not async.": (
        "async-driver-required"
    ),
    "OperationalError: (1040, 'Too many connections')": "too-many-connections",
    "Task was destroyed but it is pending!": "task-destroyed",
    "RuntimeError: This event loop is already running": "loop-already-running",
    "server closed the connection unexpectedly": "server-closed-connection",
    "the statement did not end within statement_timeout=5 s and was cancelled": "statement-timeout",
    "QueryCanceledError: canceling statement due to statement timeout": "query-canceled",
}


@pytest.mark.parametrize(("text", "code"), SEEN.items())
def test_every_text_users_meet_leads_to_its_page(text: str, code: str) -> None:
    """Goal: no error of the list is unknown. Method: the texts, alone and within a traceback."""
    assert explain(text)[0].hint.code == code
    within = f'Traceback (most recent call last):\n  File "app.py", line 3, in main\n    await run()\n{text}\n'
    assert code in {each.hint.code for each in explain(within)}


@pytest.mark.parametrize("hint", INDEX, ids=lambda hint: hint.code)
def test_an_entry_recognises_its_own_texts_first(hint: Hint) -> None:
    """Goal: an entry that hides another is noticed. Method: each text it shows must lead to itself."""
    for text in hint.texts:
        assert explain(text)[0].hint is hint, text


@pytest.mark.parametrize("hint", INDEX, ids=lambda hint: hint.code)
def test_an_entry_is_whole(hint: Hint) -> None:
    """Goal: no entry without a cause or a remedy. Method: its fields."""
    assert re.fullmatch(r"[a-z]+(?:-[a-z]+)*", hint.code)
    assert hint.cause.endswith(".")
    assert hint.remedies
    assert all(remedy.endswith((".", ").")) for remedy in hint.remedies)
    assert hint.code in hint.note
    assert hint.page in hint.note
    assert find(hint.code) is hint


def test_codes_are_unique() -> None:
    """Goal: a code means one thing. Method: count them."""
    assert len({hint.code for hint in INDEX}) == len(INDEX)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "everything is fine",
        "KeyError: 'price'",
        'duplicate key value violates unique constraint "tag_pkey"',
        'relation "orders" does not exist',
        "TimeoutError: the payment service did not answer",
        "UNIQUE constraint failed: tag.name",
        "requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='x', port=443): Read timed out.",
    ],
)
def test_other_errors_are_not_taken_for_one_of_the_index(text: str) -> None:
    """Goal: a wrong explanation is worse than none. Method: usual errors of other kinds."""
    assert explain(text) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("queue pool limit size overflow reached timed out", "pool-timeout"),
        ("event loop closed", "event-loop-closed"),
        ("greenlet_spawn not called", "missing-greenlet"),
        ("sqlite databse locked", "sqlite-locked"),
        ("too many client already", "too-many-clients"),
    ],
)
def test_what_comes_near_is_offered(text: str, code: str) -> None:
    """Goal: a text retyped from memory still leads somewhere. Method: texts with words missing or misspelt."""
    assert explain(text) == []
    assert code in {hint.code for hint in nearest(text)}


def test_nothing_is_near_to_nonsense() -> None:
    """Goal: no offers at random. Method: words of no error."""
    assert nearest("the quick brown fox jumps over the lazy dog") == []
    assert nearest("") == []


def test_statements_and_parameters_are_never_looked_at() -> None:
    """Goal: data that reads like an error is not one. Method: an error whose parameters hold such a text."""
    from sqlalchemy.exc import IntegrityError

    error = IntegrityError("insert into log values (?)", ("database is locked",), Exception("not unique"))
    assert "database is locked" in str(error)
    assert hint_for(error) is None


def test_a_circle_of_causes_ends() -> None:
    """Goal: recognising cannot hang. Method: two exceptions that cause each other."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert hint_for(first) is None


def test_a_very_long_text_is_explained_by_its_end() -> None:
    """Goal: a whole log can be piped in. Method: megabytes before the error."""
    assert explain("x" * 3_000_000 + "\nRuntimeError: Event loop is closed\n")[0].hint.code == "event-loop-closed"


def test_the_index_needs_no_sqlalchemy() -> None:
    """Goal: `explain` is quick and works where the installation is broken. Method: take SQLAlchemy away."""
    code = "import sys; sys.modules['sqlalchemy'] = None; from forebay.hints import explain; assert explain('3o7r')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


@pytest.mark.parametrize("hint", INDEX, ids=lambda hint: hint.code)
def test_the_page_says_what_the_index_says(hint: Hint) -> None:
    """Goal: one source. Method: the page made anew; `python -m forebay.hints docs/errors` writes it."""
    assert (DOCS / f"{hint.code}.md").read_text(encoding="utf-8") == page(hint)


def test_there_is_a_page_for_each_error_and_no_other() -> None:
    """Goal: no page is orphaned. Method: the folder against the index."""
    assert (DOCS / "index.md").read_text(encoding="utf-8") == index_page(INDEX)
    assert {path.stem for path in DOCS.glob("*.md")} == {hint.code for hint in INDEX} | {"index"}
