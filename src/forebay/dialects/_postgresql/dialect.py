"""What a dialect of ours does on every driver of PostgreSQL: it learns in one query what the server is."""

from __future__ import annotations

import re
from typing import Any

from forebay.dialects._adapter import DriverTraits, pooled
from forebay.dialects._batches import BatchReading
from forebay.dialects._postgresql.connection import PostgresqlConnection

__all__ = ["BatchesContext", "PostgresqlDialect"]


class BatchesContext:
    """Mixin in front of SQLAlchemy's execution context; tells a cursor that reads in batches how large they are."""

    execution_options: Any

    def create_server_side_cursor(self) -> Any:
        """Return a cursor that reads in batches of ``yield_per`` rows."""
        cursor: Any = super().create_server_side_cursor()  # type: ignore[misc]  # the context's
        if issubclass(type(cursor), BatchReading):
            options = self.execution_options
            cursor.batch = options.get("yield_per")
            cursor.most = options.get("max_row_buffer")
        return cursor


class PostgresqlDialect(DriverTraits):
    """Mixin in front of a dialect of SQLAlchemy's.

    What the server is, it says at the start of the session, and in the answer to one query (:attr:`_FACTS`).
    """

    #: BEGIN's answer comes before the first statement's, so it can stand for a pre-ping.
    answers_begin_early = True

    #: What the query returns besides schema, isolation level and process id, as one more column each.
    _MORE_FACTS: tuple[str, ...] = ()

    _isolation_at_start: str | None = None
    _backslash_escapes: bool

    def initialize(self, connection: Any) -> None:
        """Learn what the server is."""
        super().initialize(connection)  # type: ignore[misc]  # the dialect's
        adapted = pooled(connection.connection.dbapi_connection)
        # The ROLLBACK that follows this is then not waited for.
        if adapted.may_leave():
            adapted.leave()

    def _server_setting(self, driver: Any, name: str) -> Any:
        """Return what the server reported of a setting at the start of the session, as the driver has it."""
        raise NotImplementedError

    def _learn(self, facts: tuple[Any, ...]) -> None:
        """Take note of what was asked for as :attr:`_MORE_FACTS`."""

    def _get_server_version_info(self, connection: Any) -> Any:
        # version() says "PostgreSQL " and this, and then words about the compiler.
        found = re.match(r"(\d+)\.?(\d+)?(?:\.(\d+))?", self._setting(connection, "server_version") or "")
        if found is None:
            return super()._get_server_version_info(connection)  # type: ignore[misc]  # the dialect's
        return tuple(int(number) for number in found.groups() if number is not None)

    def _get_default_schema_name(self, connection: Any) -> Any:
        asked = (
            "pg_catalog.current_schema()",
            "pg_catalog.current_setting('transaction_isolation')",
            "pg_catalog.pg_backend_pid()",
            *self._MORE_FACTS,
        )
        schema, self._isolation_at_start, pid, *more = connection.exec_driver_sql(f"SELECT {', '.join(asked)}").one()
        adapted = connection.connection.dbapi_connection
        # A pooler makes its process ids up.
        self.talks_to_server = isinstance(adapted, PostgresqlConnection) and adapted.server_pid() == pid
        self._learn(tuple(more))
        return schema

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        """Return the level transactions have by themselves."""
        level, self._isolation_at_start = self._isolation_at_start, None
        if level is None:
            return super().get_default_isolation_level(dbapi_conn)  # type: ignore[misc]  # the dialect's
        return level.upper()

    def _set_backslash_escapes(self, connection: Any) -> None:
        setting = self._setting(connection, "standard_conforming_strings")
        if setting is None:
            super()._set_backslash_escapes(connection)  # type: ignore[misc]  # the dialect's
        else:
            self._backslash_escapes = setting == "off"

    def _setting(self, connection: Any, name: str) -> str | None:
        adapted = connection.connection.dbapi_connection
        if not isinstance(adapted, PostgresqlConnection):
            return None
        value = self._server_setting(adapted._connection, name)
        return value if isinstance(value, str) else None
