"""What all private servers share: folder, port, process, stop modes, pausing, clean-up.

A private server belongs to one test (or one session of tests) and may be killed, paused and restarted at will. It has
its own folder under the system's temporary one, and a port on the loopback interface which stays over restarts.
Everything is synchronous: a test that must not block its loop calls these methods through `asyncio.to_thread`.
"""

from __future__ import annotations

import atexit
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self
from urllib.parse import quote, urlencode

from forebay.testing.servers._process import Watchdog, descendants, kill_tree, send

__all__ = ["Endpoint", "Server", "ServerError", "ServerUnavailable", "StopMode", "free_port"]

StopMode = Literal["fast", "immediate", "kill"]
"""How to stop: `fast` says goodbye to clients, `immediate` skips the server's own tidying, `kill` is SIGKILL to all."""

# Below the range Linux hands out for outgoing connections, so that nobody is given our port while the server is down.
_PORTS = range(15000, 32000)

# A generator of its own: a program that seeds the common one would be given the same ports again and again.
_chance = random.Random()


class ServerError(RuntimeError):
    """A private server did not start, stop or answer as asked."""


class ServerUnavailable(ServerError):
    """The program that would have to run is not on this machine, or lacks a feature; the text says which."""


class Endpoint(Protocol):
    """Anything one can connect to: a server, or a proxy in front of it."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port nobody listens on now, outside the range for outgoing connections.

    The workers of pytest-xdist have ports of their own each, so that none is given to two of them.

    Raises:
        ServerError: no free port was found in 200 random tries.
    """
    ports = _ports_of_worker(os.environ)
    for _ in range(200):
        port = _chance.choice(ports)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port on {host} between {_PORTS.start} and {_PORTS.stop}")


def _ports_of_worker(environment: Mapping[str, str]) -> range:
    worker = re.fullmatch(r"gw(\d+)", environment.get("PYTEST_XDIST_WORKER", ""))
    if worker is None:
        return _PORTS
    workers = int(environment.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return _PORTS[int(worker[1]) % workers :: workers]


def unprivileged_user(*preferred: str) -> pwd.struct_passwd | None:
    """Return the account servers run under: None for our own, another one when we are root (servers refuse root)."""
    if os.geteuid() != 0:
        return None
    for name in (*preferred, "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerUnavailable(
        f"running as root, and there is no account {' or '.join((*preferred, 'nobody'))} to run under"
    )


class Server(ABC):
    """A server process of our own in a temporary folder.

    Use it as a context manager, or call `start()` and `close()`. A subclass says how to set up the data folder
    (`_initialise`, once), what to run (`_command`, at each start) and how to tell that it answers (`_answers`).
    """

    host: ClassVar[str] = "127.0.0.1"
    scheme: ClassVar[str]
    accounts: ClassVar[tuple[str, ...]] = ()

    user: str
    password: str | None
    database: str

    def __init__(self) -> None:
        self.port = free_port()
        self._account = unprivileged_user(*self.accounts)
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._owner = os.getpid()

    # Life

    def start(self, timeout_s: float = 30.0) -> Self:
        """Start the server and wait until it answers.

        Args:
            timeout_s: seconds until it must answer.

        Raises:
            ServerError: it exited or did not answer in time; the text ends with its log.
        """
        if self.running:
            return self
        attempts = 1
        if self._folder is None:
            self._create_folder()
            attempts = 3
        while True:
            self._launch()
            try:
                self.wait_ready(timeout_s)
            except ServerError:
                self.stop("kill")
                attempts -= 1
                # Someone else may have taken the port since we looked; later nobody but us expects it, so it stays.
                if not attempts or "in use" not in self.log:
                    raise
                self.port = free_port()
            else:
                return self

    def stop(self, mode: StopMode = "fast", timeout_s: float = 10.0) -> None:
        """Stop the server and wait until its process is gone; does nothing when it is not running.

        Args:
            mode: how; a paused server is resumed first.
            timeout_s: seconds after which it is killed all the same.
        """
        process = self._process
        if process is None:
            return
        if process.poll() is not None:
            pass  # It is gone and reaped: its number may belong to someone else by now.
        elif mode == "kill":
            kill_tree(process.pid)
        else:
            self.resume()
            process.send_signal(self._stop_signal(mode))
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            process.wait()
        self._process = None
        if self._watchdog is not None:
            self._watchdog.watch(None)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again on the same port with the same data."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder; harmless when called again."""
        # A forked child runs our exit handlers too, and must not take the parent's server away.
        if os.getpid() != self._owner:
            return
        self.stop("immediate")
        if self._watchdog is not None:
            self._watchdog.dismiss()
            self._watchdog = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # State

    @property
    def running(self) -> bool:
        """Whether the server's process exists (paused counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The main process's id.

        Raises:
            ServerError: the server is stopped.
        """
        if self._process is None:
            raise ServerError(f"{self!r} has no process")
        return self._process.pid

    @property
    def folder(self) -> Path:
        """The temporary folder with data, log, socket and certificates.

        Raises:
            ServerError: the server was never started, or is closed.
        """
        if self._folder is None:
            raise ServerError(f"{self!r} has no folder")
        return self._folder

    @property
    def log(self) -> str:
        """All the server has printed so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until the server answers a query.

        Args:
            timeout_s: seconds until it must; one question to a server that is silent takes up to 2 s more.

        Raises:
            ServerError: it exited or did not answer in time; the text ends with its log.
        """
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if not self.running:
                raise ServerError(f"{self!r} exited; its log ends:\n{self.log[-2000:]}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self!r} did not answer within {timeout_s:g} s; its log ends:\n{self.log[-2000:]}")
            time.sleep(0.01)

    # Faults

    def pause(self) -> None:
        """Freeze the server and all its children (SIGSTOP): sockets stay open, nothing answers."""
        send(self.pid, signal.SIGSTOP)
        for child in descendants(self.pid):
            send(child, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on; harmless when it is not paused."""
        for child in descendants(self.pid):
            send(child, signal.SIGCONT)
        send(self.pid, signal.SIGCONT)

    # Addresses

    def url(
        self,
        driver: str | None = None,
        *,
        via: Endpoint | None = None,
        user: str | None = None,
        database: str | None = None,
        **query: str,
    ) -> str:
        """Return a URL for this server, the password in clear text.

        Args:
            driver: SQLAlchemy's driver name such as `asyncpg`; None for a URL without one.
            via: connect here instead, for example to a proxy in front of the server.
            user: another account than the default one (with the same password).
            database: another database than the default one.
            query: appended as the query string.
        """
        scheme = f"{self.scheme}+{driver}" if driver else self.scheme
        end = via or self
        login = quote(user or self.user, safe="")
        if self.password is not None:
            login += ":" + quote(self.password, safe="")
        tail = "?" + urlencode(query) if query else ""
        return f"{scheme}://{login}@{end.host}:{end.port}/{quote(database or self.database, safe='')}{tail}"

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<{type(self).__name__} {self.host}:{self.port} {state}>"

    # For subclasses

    @abstractmethod
    def _initialise(self) -> None:
        """Fill the fresh folder."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def _stop_signal(self, mode: StopMode) -> signal.Signals:
        """Return the signal for `fast` or `immediate`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Say whether this server, and no stranger on its port, answers a client now; takes at most 2 s."""

    def _run(self, *command: str | Path, **environment: str) -> None:
        """Run a set-up command under the server's account.

        Raises:
            ServerError: it failed; the text holds what it printed.
        """
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            timeout=120,
            check=False,
            **self._identity(),
        )
        if done.returncode:
            raise ServerError(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')[-2000:]}")

    def _own(self, path: Path) -> Path:
        """Give a file or folder to the server's account."""
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)
        return path

    def _identity(self) -> dict[str, Any]:
        # Any: keyword arguments of Popen of several types. The working folder must be one the account may enter.
        identity: dict[str, Any] = {"cwd": self.folder}
        if self._account is not None:
            identity.update(user=self._account.pw_uid, group=self._account.pw_gid, extra_groups=[])
        return identity

    def _create_folder(self) -> None:
        self._folder = self._own(Path(tempfile.mkdtemp(prefix="forebay-")))
        atexit.register(self.close)
        self._watchdog = Watchdog(self._folder)
        self._initialise()

    def _launch(self) -> None:
        command = [str(part) for part in self._command()]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Control-C in the terminal is for the tests; we stop the server ourselves.
                start_new_session=True,
                **self._identity(),
            )
        if self._watchdog is not None:
            self._watchdog.watch(self._process.pid)
