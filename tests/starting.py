"""A PostgreSQL that is up and lets nobody in yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forebay.testing.servers.postgres import PostgresServer


class StartingPostgres(PostgresServer):
    """Answers 57P03 to everybody: a standby that serves no queries stays so, as others are for a moment."""

    def _command(self) -> Sequence[str | Path]:
        signal = self._data / "standby.signal"
        signal.touch()
        self._own(signal)
        return [*super()._command(), "-c", "hot_standby=off"]

    def _answers(self) -> bool:
        import psycopg

        try:
            self.query("SELECT 1")
        except psycopg.OperationalError as error:
            return "the database system is" in str(error)
        return False
