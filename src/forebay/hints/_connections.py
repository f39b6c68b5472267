"""Errors of the pool, and of connections that were lost or shared."""

from __future__ import annotations

from forebay.hints._entry import Hint

CONNECTIONS = (
    Hint(
        "pool-timeout",
        ("QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00",),
        (r"QueuePool limit of size \S+ overflow \S+ reached.*", r"QueuePool limit of size.*", r"\b3o7r\b"),
        "Every connection the pool may have was out for as long as pool_timeout: a leak, a slow statement, or more "
        "callers than connections.",
        (
            "Read who holds them, at the end of the message. Give back early: leave the block before you call another "
            "service, and never keep a session for longer than one unit of work.",
            "Find leaks with pool_leak_after=30: what is held for longer is reported with the stack of its checkout.",
            "Only then raise pool_size, within what the server has: forebay size URL.",
        ),
        """\
from forebay import async_sessionmaker, create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop", pool_size=10, pool_leak_after=30)
Session = async_sessionmaker(engine, expire_on_commit=False)
""",
    ),
    Hint(
        "pool-overloaded",
        (
            "The connection pool is overloaded: this call was refused after it had waited 0.10 s for a connection",
            "20 callers are waiting for a connection already, as many as pool_max_waiting=20 allows",
        ),
        (
            r"The connection pool is overloaded: this call was refused.*",
            r"\d+ callers are waiting for a connection already.*",
        ),
        "More callers than the connections can serve, and a limit you set says not to let them wait: pool_max_waiting "
        "(too many wait) or pool_shed_target (nobody is served in time).",
        (
            "Answer 503 and let the client come back; exception_handlers() of the FastAPI and Starlette integrations "
            "do. It is what these limits are for: those who are served are served in time.",
            "If ordinary load does it, hold connections for a shorter time, then allow more: forebay size URL.",
        ),
        """\
from forebay import create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop", pool_size=10, pool_shed_target=0.1)
""",
    ),
    Hint(
        "timeout-at-checkout",
        ("asyncio.TimeoutError", "TimeoutError"),
        (r"^(?:\s*(?:E\s+)?)(?:asyncio\.|builtins\.)?(?:exceptions\.)?TimeoutError:?\s*$",),
        "A time limit around the call ended it (asyncio.timeout, wait_for, asyncpg's timeout or command_timeout), and "
        "that error has no text. While connecting or waiting for the pool, it hides what was waited for.",
        (
            "Let the pool's own limit come first: pool_timeout below the limit around the call. Its error names phase, "
            "numbers and holders.",
            "asyncpg's command_timeout raises this too, not QueryCanceledError: a statement took longer than that.",
        ),
    ),
    Hint(
        "connection-not-returned",
        ("The garbage collector is trying to clean up non-checked-in connection",),
        (r"garbage collector is trying to clean up non-checked-in connection",),
        "A connection or session was dropped without close(). The collector cannot await, so the connection was "
        "terminated.",
        (
            "Use async with for every session and connection; await close() in a finally where that is impossible.",
            "Set pool_leak_after=30 to see where such a connection was checked out.",
        ),
        """\
from sqlalchemy import text

from forebay import create_async_engine

engine = create_async_engine("sqlite+aiosqlite://")
async with engine.connect() as connection:
    await connection.execute(text("select 1"))
""",
    ),
    Hint(
        "connection-closed-mid-operation",
        ("ConnectionDoesNotExistError: connection was closed in the middle of operation",),
        (
            r"connection was closed in the middle of operation",
            r"ConnectionDoesNotExistError.*",
            r"InterfaceError.*connection is closed",
        ),
        "The server, a pooler or something on the network path closed the connection while asyncpg waited for an "
        "answer: a restart, a crash, out of memory, an idle or lifetime limit.",
        (
            "Look into the server's log at that second. A statement whose connection was lost before it began is sent "
            "again on another one; a transaction under way must be repeated by you.",
            "For idle limits on the path set pool_recycle to 80 % of the smallest and pool_pre_ping=True.",
        ),
        """\
from forebay import create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop", pool_pre_ping=True, pool_recycle=280)
""",
    ),
    Hint(
        "server-closed-connection",
        (
            "server closed the connection unexpectedly",
            "terminating connection due to administrator command",
        ),
        (
            r"server closed the connection unexpectedly",
            r"terminating connection due to (?!idle).*",
            r"connection (?:is|has been) lost",
            r"consuming input failed.*",
            r"AdminShutdown.*",
            r"SSL connection has been closed unexpectedly",
        ),
        "The server ended the connection: it was restarted, failed over, crashed, or an administrator or a pooler "
        "terminated the session.",
        (
            "Repeat the transaction; the pool has replaced the dead connections already. pool_pre_ping=True hides this "
            "from whoever had not begun.",
            "When it keeps happening, the server's log says why; a connection idle for too long wants pool_recycle.",
        ),
    ),
    Hint(
        "idle-timeout",
        (
            "terminating connection due to idle-in-transaction timeout",
            "terminating connection due to idle-session timeout",
        ),
        (r"terminating connection due to idle.*", r"IdleInTransactionSessionTimeout\w*.*", r"IdleSessionTimeout\w*.*"),
        "The server ends sessions that wait too long: between statements of a transaction "
        "(idle_in_transaction_session_timeout) or outside of one (idle_session_timeout).",
        (
            "In a transaction: commit before you wait for anything but the database. Outside: pool_recycle at 80 % of "
            "idle_session_timeout.",
        ),
    ),
    Hint(
        "mysql-gone-away",
        (
            '(2006, "MySQL server has gone away")',
            "(2013, 'Lost connection to MySQL server during query')",
        ),
        (
            r"server has gone away.*",
            r"Lost connection to (?:MySQL|MariaDB) server.*",
            r"\((?:2006|2013|2055|4031),",
        ),
        "The server closed the connection: it was idle for longer than wait_timeout, the server was restarted, or a "
        "packet was larger than max_allowed_packet.",
        (
            "Set pool_recycle to 80 % of wait_timeout (SHOW VARIABLES LIKE 'wait_timeout') and pool_pre_ping=True.",
            "When it comes with one large statement: raise max_allowed_packet or send smaller pieces.",
        ),
        """\
from forebay import create_async_engine

engine = create_async_engine("mysql+asyncmy://app@localhost/shop", pool_pre_ping=True, pool_recycle=3600)
""",
    ),
    Hint(
        "operation-in-progress",
        (
            "cannot perform operation: another operation is in progress",
            "This session is provisioning a new connection; concurrent operations are not permitted",
        ),
        (
            r"cannot perform operation: another operation is in progress",
            r"another operation is in progress",
            r"concurrent operations are not permitted",
            r"Method '\w+\(\)' can't be called here; method '\w+\(\)' is already in progress.*",
            r"readexactly\(\) called while another coroutine is already waiting.*",
            r"this connection was given back to the pool while a statement of yours was under way.*",
            r"got result for unknown protocol state.*",
            r"\bisce\b",
        ),
        "Two tasks used one connection or one session at the same time. A connection does one thing at a time. Nobody "
        "else is harmed: a connection of which nobody knows what is under way on it is closed.",
        (
            "One session per task: open it inside the task, for example with asyncio.gather over functions that open "
            "one.",
            "A fixture or dependency that is cached may hand the same session to two callers: look there.",
        ),
        """\
import asyncio

from sqlalchemy import text

from forebay import async_sessionmaker, create_async_engine

Session = async_sessionmaker(create_async_engine("sqlite+aiosqlite://"), expire_on_commit=False)


async def count() -> int:
    async with Session() as session:
        return await session.scalar(text("select 1"))


assert await asyncio.gather(count(), count()) == [1, 1]
""",
    ),
    Hint(
        "sqlite-locked",
        ("database is locked", "sqlite3.OperationalError: database is locked"),
        (r"database (?:table )?is locked", r"\bSQLITE_(?:BUSY|LOCKED)\b"),
        "Another connection holds SQLite's one write lock, for longer than this one is willing to wait.",
        (
            "Keep write transactions short, let connections wait (connect_args={'timeout': 30}), and use the "
            "write-ahead log (PRAGMA journal_mode=WAL) so that readers and the writer do not block each other.",
            "A transaction that reads first and writes later cannot wait when another has written in between: begin it "
            "with the write.",
        ),
        """\
from forebay import create_async_engine

engine = create_async_engine("sqlite+aiosqlite:///shop.sqlite", connect_args={"timeout": 30})
""",
    ),
)
