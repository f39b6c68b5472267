"""A private MariaDB, from the programs found on the machine."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forebay.testing.servers._base import Server, StopMode
from forebay.testing.servers._programs import find_program, program_version
from forebay.testing.servers.certificates import Certificates, make_certificates

__all__ = ["MariaDBServer"]

_FAST: Mapping[str, str | int] = {
    # At each commit to the system, not to the disk: survives a crash of the server, not one of the machine.
    "innodb_flush_log_at_trx_commit": 2,
    "innodb_buffer_pool_size": "16M",
    "innodb_log_file_size": "4M",
    "innodb_buffer_pool_dump_at_shutdown": 0,
    "skip_name_resolve": 1,
    "max_connections": 100,
}

# MariaDB's error for the id of a session that is gone.
_UNKNOWN_THREAD = 1094


class MariaDBServer(Server):
    """A MariaDB of our own: superuser `root`, plain account `app`, database `test`; the accounts share one password."""

    scheme = "mysql"
    accounts = ("mysql",)

    user = "root"
    database = "test"

    def __init__(
        self,
        *,
        tls: bool = False,
        tls_names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        password: str | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Choose a server; nothing runs yet.

        Args:
            tls: offer TLS, with a certificate from an authority of its own (`certificates.ca`).
            tls_names: what the certificate is good for.
            password: for both accounts; None for accounts without one.
            settings: server variables over the built-in ones (no disk flush at commit, 100 connections).

        Raises:
            ServerUnavailable: no `mariadbd` or `mariadb-install-db` here.
        """
        super().__init__()
        self.program = find_program("mariadbd", "FOREBAY_MARIADBD")
        self._installer = find_program("mariadb-install-db", "FOREBAY_MARIADB_INSTALL_DB")
        self.password = password
        self.settings = {**_FAST, **(settings or {})}
        self.certificates: Certificates | None = None
        self._tls = tls
        self._tls_names = tls_names

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version, such as `(10, 11, 14)`."""
        return program_version(self.program)

    # Asking it

    def query(self, sql: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as root on a connection of its own, in autocommit; return its rows."""
        connection = self._connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def sessions(self) -> list[dict[str, Any]]:
        """Return the rows of information_schema.processlist for client sessions other than this helper's own."""
        from pymysql.cursors import DictCursor

        connection = self._connect()
        try:
            with connection.cursor(DictCursor) as cursor:
                cursor.execute(
                    "SELECT * FROM information_schema.processlist"
                    " WHERE id <> connection_id() AND user NOT IN ('system user', 'event_scheduler') ORDER BY id"
                )
                return list(cursor.fetchall())
        finally:
            connection.close()

    def kill_backend(self, pid: int) -> bool:
        """End one session by its id; False when there is no such session."""
        from pymysql.err import OperationalError

        try:
            self.query(f"KILL CONNECTION {int(pid)}")
        except OperationalError as error:
            if error.args[0] == _UNKNOWN_THREAD:
                return False
            raise
        return True

    def create_database(self, name: str) -> str:
        """Create an empty database `app` may use and return its name."""
        self.query(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        self.query(f"GRANT ALL ON `{name}`.* TO app@'%'")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database."""
        self.query(f"DROP DATABASE IF EXISTS `{name}`")

    # How it runs

    def _initialise(self) -> None:
        secret = "" if self.password is None else f" IDENTIFIED BY '{self._quoted(self.password)}'"
        root = [f"ALTER USER root@'{host}'{secret};" for host in ("localhost", "127.0.0.1")] if secret else []
        script = self.folder / "accounts.sql"
        script.touch(mode=0o600)
        script.write_text(
            "\n".join(
                [
                    "CREATE DATABASE test CHARACTER SET utf8mb4;",
                    "FLUSH PRIVILEGES;",
                    f"CREATE USER app@'%'{secret};",
                    "GRANT ALL ON test.* TO app@'%';",
                    *root,
                    "",
                ]
            )
        )
        self._run(
            self._installer,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--tmpdir={self.folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            f"--extra-file={self._own(script)}",
            f"--innodb-log-file-size={self.settings['innodb_log_file_size']}",
        )
        script.unlink()
        if self._tls:
            self.certificates = make_certificates(self.folder, self._tls_names)
            for path in (self.certificates.ca, self.certificates.certificate, self.certificates.key):
                self._own(path)

    @staticmethod
    def _quoted(text: str) -> str:
        return text.replace("\\", "\\\\").replace("'", "''")

    def _command(self) -> Sequence[str | Path]:
        settings: dict[str, str | int] = {
            **self.settings,
            "datadir": str(self.folder / "data"),
            # A starting server removes the temporary tables it finds there, those of a running one included.
            "tmpdir": str(self.folder),
            "bind_address": self.host,
            "port": self.port,
            "socket": str(self.folder / "socket"),
            "pid_file": str(self.folder / "pid"),
        }
        if self.certificates is not None:
            settings["ssl_ca"] = str(self.certificates.ca)
            settings["ssl_cert"] = str(self.certificates.certificate)
            settings["ssl_key"] = str(self.certificates.key)
        return [self.program, "--no-defaults", *(f"--{name}={value}" for name, value in settings.items())]

    def _stop_signal(self, mode: StopMode) -> signal.Signals:
        # There is no quick way to stop that still says goodbye: immediate is what a crash looks like.
        return signal.SIGTERM if mode == "fast" else signal.SIGKILL

    def _answers(self) -> bool:
        import pymysql

        try:
            return self.query("SELECT @@datadir") == [(f"{self.folder / 'data'}/",)]
        except pymysql.err.OperationalError:
            return False

    def _connect(self, database: str | None = None) -> Any:
        # Any: pymysql comes without types.
        import pymysql

        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password or "",
            database=database or self.database,
            connect_timeout=2,
            read_timeout=2,
            autocommit=True,
        )
