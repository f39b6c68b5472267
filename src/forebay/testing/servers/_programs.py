"""Finding a server's program on the machine, and its version."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from forebay.testing.servers._base import ServerUnavailable

__all__ = ["find_program", "program_version"]


def find_program(name: str, variable: str) -> Path:
    """Return a server program: what the environment variable names, else from PATH, else from the sbin folders.

    Raises:
        ServerUnavailable: it is nowhere.
    """
    if named := os.environ.get(variable):
        if not Path(named).exists():
            raise ServerUnavailable(f"{variable} names {named}, which does not exist")
        return Path(named)
    # Debian keeps servers in sbin, which is not on everybody's PATH.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    if found := shutil.which(name, path=path):
        return Path(found)
    raise ServerUnavailable(f"no program {name} found ({variable}, PATH, /usr/sbin)")


@functools.cache
def program_version(program: Path) -> tuple[int, ...]:
    """Return the first version number a program prints for `--version`."""
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise ServerUnavailable(f"cannot read a version in {text!r}")
    return tuple(int(part) for part in match.groups() if part is not None)
