"""A private PgBouncer in front of a `PostgresServer`."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from forebay.testing.servers._base import Server, ServerUnavailable, StopMode
from forebay.testing.servers._programs import find_program, program_version
from forebay.testing.servers.postgres import PostgresServer

__all__ = ["PgBouncer"]

# From this version on PgBouncer follows prepared statements through transaction pooling.
_PREPARED = (1, 21)
# From this version on SIGTERM waits until all clients have left, and SIGQUIT stops at once.
_POLITE = (1, 23)


class PgBouncer(Server):
    """A PgBouncer of our own; `url()` leads to the server behind it, under the same accounts and databases."""

    scheme = "postgresql"
    accounts = ("postgres",)

    def __init__(
        self,
        server: PostgresServer,
        *,
        mode: Literal["session", "transaction"] = "transaction",
        max_prepared_statements: int | None = None,
        pool_size: int = 20,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Choose a pooler; nothing runs yet.

        Args:
            server: the server behind it.
            mode: when a server connection goes back to the pool.
            max_prepared_statements: how many prepared statements it follows per connection; 0 for the behaviour of old
                versions, None for the version's default.
            pool_size: server connections per account and database, at least 1.
            settings: further settings of its `[pgbouncer]` section.

        Raises:
            ServerUnavailable: no `pgbouncer` here, or one older than 1.21 and prepared statements asked for.
        """
        super().__init__()
        self.program = find_program("pgbouncer", "FOREBAY_PGBOUNCER")
        if max_prepared_statements and self.version < _PREPARED:
            found = ".".join(map(str, self.version))
            raise ServerUnavailable(f"PgBouncer {found} has no max_prepared_statements, 1.21 or newer does")
        self.server = server
        self.user, self.password, self.database = server.user, server.password, server.database
        self.mode = mode
        self.settings: dict[str, str | int] = {"default_pool_size": pool_size, **(settings or {})}
        if max_prepared_statements is not None and self.version >= _PREPARED:
            self.settings["max_prepared_statements"] = max_prepared_statements

    @property
    def version(self) -> tuple[int, ...]:
        """The pooler's version, such as `(1, 18, 0)`."""
        return program_version(self.program)

    def admin(self, command: str) -> list[dict[str, Any]]:
        """Run a console command such as `SHOW POOLS` or `PAUSE` and return its rows."""
        from psycopg.rows import dict_row

        with self._connect("pgbouncer") as connection:
            cursor = connection.cursor(row_factory=dict_row)
            # The console knows the simple protocol only, which psycopg uses for statements without parameters.
            cursor.execute(command.encode(), prepare=False)
            return cursor.fetchall() if cursor.description else []

    def _initialise(self) -> None:
        """Nothing to set up but the file, which `_command` writes as it holds the port."""

    def _command(self) -> Sequence[str | Path]:
        users = self.folder / "users.txt"
        secret = self.password or ""
        users.touch(mode=0o600)
        users.write_text(
            "".join(f'"{name}" "{secret.replace(chr(34), chr(34) * 2)}"\n' for name in ("postgres", "app"))
        )
        settings: dict[str, str | int] = {
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": str(self.folder),
            "auth_type": "trust" if self.server.auth == "trust" else self.server.auth,
            "auth_file": str(self._own(users)),
            "admin_users": "postgres",
            "pool_mode": self.mode,
            **self.settings,
        }
        lines = ["[databases]", f"* = host={self.server.host} port={self.server.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        file = self.folder / "pgbouncer.ini"
        file.write_text("\n".join(lines) + "\n")
        return [self.program, self._own(file)]

    def _stop_signal(self, mode: StopMode) -> signal.Signals:
        if mode == "immediate":
            return signal.SIGKILL
        return signal.SIGQUIT if self.version >= _POLITE else signal.SIGTERM

    def _answers(self) -> bool:
        import psycopg

        try:
            config = {row["key"]: row["value"] for row in self.admin("SHOW CONFIG")}
        except psycopg.OperationalError:
            return False
        return bool(config["unix_socket_dir"] == str(self.folder))

    def _connect(self, database: str) -> Any:
        # Any: psycopg is imported late, and the row type differs by caller.
        import psycopg

        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database,
            connect_timeout=2,
            autocommit=True,
        )
