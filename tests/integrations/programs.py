"""Programs run beside a test: started in their own group, ended by their id, output kept for the failure report."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

EXAMPLES = Path(__file__).parents[2] / "examples"


class Program:
    """A child process, with its descendants in a process group of its own."""

    def __init__(self, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str]) -> None:
        self._command = [str(part) for part in command]
        self._folder = folder
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default", **environment}

    def __enter__(self) -> Self:
        self._output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._output:
            if self.process.poll() is None:
                self.terminate(10)
            if type_ is not None:
                print(self.output()[-6000:])

    def output(self) -> str:
        """Return what it has written so far."""
        # Not through the shared offset, which the child writes at.
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def terminate(self, timeout_s: float) -> int:
        """Send SIGTERM to the process and wait for it; kill its group when it does not end."""
        self.process.terminate()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code; kill its group when it does not end."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            raise AssertionError(f"{self._command} did not end within {timeout_s} s\n{self.output()[-4000:]}") from None

    def wait_for_port(self, port: int, timeout_s: float = 30) -> None:
        """Wait until something listens on ``port``."""
        self._wait_until(lambda: _listens(port), f"port {port}", timeout_s)

    def wait_for_text(self, text: str, times: int = 1, timeout_s: float = 30) -> None:
        """Wait until it has written ``text``."""
        self._wait_until(lambda: self.output().count(text) >= times, repr(text), timeout_s)

    def _wait_until(self, condition: object, what: str, timeout_s: float) -> None:
        assert callable(condition)
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"waited for {what}; exit code {self.process.poll()}\n{self.output()[-4000:]}")
            time.sleep(0.05)


def python(*arguments: str | Path, folder: Path, **environment: str) -> Program:
    """Return a Python program, not yet running."""
    return Program([sys.executable, *arguments], folder, environment)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
