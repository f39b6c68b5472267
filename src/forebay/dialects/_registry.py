"""Which of our dialect classes stands for which of SQLAlchemy's.

The key is the exact class: a dialect that a user or another package derived from SQLAlchemy's keeps its own ways. No
driver is imported here, and a dialect module only when a URL asks for it.
"""

from __future__ import annotations

from importlib import import_module

from sqlalchemy.engine import Dialect

#: SQLAlchemy's async dialect -> (our module, our class).
_ADAPTED = {
    "sqlalchemy.dialects.postgresql.asyncpg.PGDialect_asyncpg": ("forebay.dialects.asyncpg", "AsyncpgDialect"),
    "sqlalchemy.dialects.postgresql.psycopg.PGDialectAsync_psycopg": ("forebay.dialects.psycopg", "PsycopgDialect"),
    "sqlalchemy.dialects.mysql.asyncmy.MySQLDialect_asyncmy": ("forebay.dialects.asyncmy", "AsyncmyDialect"),
    "sqlalchemy.dialects.mysql.aiomysql.MySQLDialect_aiomysql": ("forebay.dialects.aiomysql", "AiomysqlDialect"),
    "sqlalchemy.dialects.sqlite.aiosqlite.SQLiteDialect_aiosqlite": ("forebay.dialects.sqlite", "SqliteDialect"),
}


#: Our dialect class -> the class made of it for MariaDB.
_COMBINED: dict[type[Dialect], type[Dialect]] = {}


def adapted_dialect_for(stock: type[Dialect]) -> type[Dialect] | None:
    """Return our dialect class for SQLAlchemy's ``stock``, or None where we have none."""
    entry = _ADAPTED.get(f"{stock.__module__}.{stock.__qualname__}")
    if entry is not None:
        module, name = entry
        dialect: type[Dialect] = getattr(import_module(module), name)
        return dialect
    if stock.__module__ == "sqlalchemy.dialects.mysql.mariadb" and len(stock.__bases__) == 2:
        return _on_mariadb(stock)
    return None


def _on_mariadb(stock: type[Dialect]) -> type[Dialect] | None:
    # For a mariadb:// URL SQLAlchemy makes a class on the spot, of MariaDB's ways and the driver's dialect.
    mariadb, driver = stock.__bases__
    ours = adapted_dialect_for(driver)
    if ours is None:
        return None
    combined = _COMBINED.get(ours)
    if combined is None:
        members = {"supports_statement_cache": True, "__module__": ours.__module__}
        combined = _COMBINED[ours] = type(stock.__name__, (mariadb, ours), members)
    return combined


def adapted_names() -> dict[str, tuple[str, str]]:
    """Return the whole table: SQLAlchemy's dialect class to the module and class of ours."""
    return dict(_ADAPTED)
