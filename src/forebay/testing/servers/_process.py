"""Process helpers for private servers: descendants, signals, and a watchdog that outlives us.

`atexit` does not run when a test run is killed (`timeout`, a CI cancellation, SIGKILL), and a server left behind holds
a port and a data folder until the machine goes away. So each server has a watchdog: this very file, run as a script,
blocked on a pipe whose other end only the starting process holds. The kernel closes that end however the process dies;
the watchdog then ends the server and removes its folder. The file therefore imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["Watchdog", "descendants", "kill_tree", "send"]


def _parents() -> dict[int, int]:
    """Map every visible process id to its parent's."""
    parents: dict[int, int] = {}
    if os.path.isdir("/proc/self"):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    # The command name may contain blanks and brackets: the fields start after the last bracket.
                    fields = Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
                    parents[int(entry)] = int(fields[1])
        return parents
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        pid, parent = line.split()
        parents[int(pid)] = int(parent)
    return parents


def descendants(pid: int) -> list[int]:
    """Return the ids of every process below `pid`, parents before their children."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(0), [])
        found += below
        pending += below
    return found


def send(pid: int, number: int) -> bool:
    """Send a signal and say whether the process was still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_tree(pid: int) -> None:
    """Kill `pid` and everything below it, stopped processes included."""
    # Freeze the parent first, so that it replaces no child, and kill it last: a child that sees its parent gone may say
    # its farewell to the client, and a machine that loses power does not.
    send(pid, signal.SIGSTOP)
    for child in descendants(pid):
        send(child, signal.SIGKILL)
    send(pid, signal.SIGKILL)


class Watchdog:
    """A small process that ends the server and removes `folder` once the process which started it is gone."""

    def __init__(self, folder: Path) -> None:
        """Start watching, with no server to end yet.

        Args:
            folder: removed after the server has been ended.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, pid: int | None) -> None:
        """Name the process to end, or none while the server is stopped (its number may belong to someone else then)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{pid or 0}\n".encode())
        self._process.stdin.flush()

    def dismiss(self) -> None:
        """Stop watching and leave server and folder alone."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def _watch(folder: str) -> None:
    pid = 0
    for line in sys.stdin:
        pid = int(line)
    if pid:
        kill_tree(pid)
    # The last files are free only when the killed processes are really gone.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)


if __name__ == "__main__":
    _watch(sys.argv[1])
