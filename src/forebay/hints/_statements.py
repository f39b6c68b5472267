"""Errors of statements, transactions and loaded objects."""

from __future__ import annotations

from forebay.hints._entry import Hint

_UNPREPARED = """\
from forebay import create_async_engine, preset

url = "postgresql+asyncpg://app@localhost:6432/shop"
engine = create_async_engine(url, **preset("pgbouncer-transaction", url))
"""

STATEMENTS = (
    Hint(
        "statement-timeout",
        ("the statement did not end within statement_timeout=5 s and was cancelled",),
        (r"the statement did not end within statement_timeout=.*",),
        "The statement took longer than the statement_timeout in its execution options: on the engine, the connection "
        "or the statement. The server was asked to stop it; in PostgreSQL the transaction is aborted.",
        (
            "Roll back, and repeat the unit of work if that makes sense. Find out what it waited for (EXPLAIN, "
            "pg_locks).",
            "A statement that may take longer gets its own limit: "
            "statement.execution_options(statement_timeout=60), None for no limit.",
        ),
        """\
from sqlalchemy import text

from forebay import create_async_engine

engine = create_async_engine("sqlite+aiosqlite://", execution_options={"statement_timeout": 5})
report = text("select 1").execution_options(statement_timeout=60)
async with engine.connect() as connection:
    await connection.execute(report)
""",
    ),
    Hint(
        "prepared-statement-exists",
        ('prepared statement "__asyncpg_stmt_1__" already exists', "DuplicatePreparedStatementError"),
        (r'prepared statement ".*" already exists', r"DuplicatePreparedStatement\w*"),
        "A pooler in transaction mode gave this client a server connection on which another client has prepared a "
        "statement of the same name.",
        (
            "Below PgBouncer 1.21, or with max_prepared_statements = 0: create_async_engine(url, "
            "**preset('pgbouncer-transaction', url)).",
            "From 1.21 on set max_prepared_statements = 200 in PgBouncer and keep prepared statements.",
        ),
        _UNPREPARED,
        stock="statement_cache_size=0 alone is not enough there: SQLAlchemy prepares under asyncpg's names anyway.",
    ),
    Hint(
        "prepared-statement-missing",
        ('prepared statement "__asyncpg_stmt_1__" does not exist', "InvalidSQLStatementNameError"),
        (r'prepared statement ".*" does not exist', r"InvalidSQLStatementName\w*"),
        "The statement was prepared on another server connection: a pooler in transaction mode has changed it in "
        "between, or somebody ran DEALLOCATE or DISCARD ALL.",
        (
            "Below PgBouncer 1.21, or with max_prepared_statements = 0: create_async_engine(url, "
            "**preset('pgbouncer-transaction', url)).",
            "From 1.21 on set max_prepared_statements = 200 in PgBouncer and keep prepared statements.",
        ),
        _UNPREPARED,
    ),
    Hint(
        "stale-plan",
        (
            "InvalidCachedStatementError: cached statement plan is invalid due to a database schema or configuration "
            "change",
            "cached plan must not change result type",
        ),
        (
            r"cached statement plan is invalid.*",
            r"cached plan must not change result type",
            r"InvalidCachedStatementError.*",
        ),
        "A table was changed (a migration, SET search_path) while connections kept prepared statements for its old "
        "shape. It has nothing to do with a pooler.",
        (
            "Repeat the transaction. Where nothing can be lost Forebay has done so; in a transaction that has done "
            "something it must not.",
            "Deploy migrations that old code can live with, and restart or dispose() afterwards.",
        ),
    ),
    Hint(
        "read-only-transaction",
        (
            "cannot execute INSERT in a read-only transaction",
            "The MySQL server is running with the --read-only option so it cannot execute this statement",
        ),
        (
            r"cannot execute .* in a read-only transaction",
            r"ReadOnlySQLTransaction\w*",
            r"running with the --read-only option.*",
            r"attempt to write a readonly database",
            r"Cannot execute statement in a READ ONLY transaction",
        ),
        "The statement writes, but the server is a replica (perhaps the old primary after a failover), or the "
        "transaction or account is read-only.",
        (
            "Connect to the primary: the writer's address, or several hosts with target_session_attrs=read-write. "
            "After a failover the pool replaces its connections by itself; repeat the transaction.",
            "Check SHOW transaction_read_only and default_transaction_read_only.",
        ),
    ),
    Hint(
        "query-canceled",
        (
            "QueryCanceledError: canceling statement due to statement timeout",
            "canceling statement due to user request",
            "canceling statement due to lock timeout",
        ),
        (
            r"canceling statement due to.*",
            r"QueryCanceled(?:Error)?\b",
            r"Query execution was interrupted.*",
            r"maximum statement execution time exceeded",
        ),
        "The server cancelled the statement: statement_timeout or lock_timeout passed, or somebody (a cancelled task "
        "too) asked for it.",
        (
            "Find out what it waited for (EXPLAIN, pg_locks). A statement that may take longer gets its own limit: SET "
            "LOCAL statement_timeout in its transaction.",
        ),
    ),
    Hint(
        "pending-rollback",
        (
            "PendingRollbackError: This Session's transaction has been rolled back due to a previous exception during "
            "flush.",
            "Can't reconnect until invalid transaction is rolled back.",
        ),
        (
            r"\bPendingRollbackError\b",
            r"transaction has been rolled back due to a previous exception.*",
            r"Can't reconnect until invalid.*transaction is rolled back",
            r"current transaction is aborted, commands ignored until end of transaction block",
            r"\b(?:7s2a|8s2b)\b",
        ),
        "An error earlier in this transaction ended it, the error was caught, and the session went on as if nothing "
        "had happened.",
        (
            "Roll back where you catch: await session.rollback(), or better, leave the async with session.begin() "
            "block by the exception and begin again.",
            "For an error you expect, such as a duplicate key, use a savepoint: async with session.begin_nested().",
        ),
        """\
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

async with Session.begin() as session:
    try:
        async with session.begin_nested():
            await session.execute(text("insert into tag (name) values ('new')"))
    except IntegrityError:
        pass  # it is there already; the transaction goes on
""",
        """\
from sqlalchemy import text
from forebay import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite://")
Session = async_sessionmaker(engine, expire_on_commit=False)
async with engine.begin() as connection:
    await connection.execute(text("create table tag (name text primary key)"))
    await connection.execute(text("insert into tag values ('new')"))
""",
    ),
    Hint(
        "detached-instance",
        (
            "DetachedInstanceError: Instance <Order at 0x7f...> is not bound to a Session; attribute refresh operation "
            "cannot proceed",
            "Parent instance <Order at 0x7f...> is not bound to a Session; lazy load operation of attribute 'lines' "
            "cannot proceed",
        ),
        (
            r"\bDetachedInstanceError\b",
            r"is not bound to a Session; .* operation.*cannot proceed",
            r"\bbhk3\b",
        ),
        "An attribute was read after its session was closed, and its value was not loaded: a relationship, or a column "
        "that the commit has expired.",
        (
            "Create the session maker with expire_on_commit=False, and load what you need with the query "
            "(selectinload).",
            "Or read it inside the session's block and hand out plain data.",
        ),
        """\
from forebay import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite://")
Session = async_sessionmaker(engine, expire_on_commit=False)
""",
    ),
)
