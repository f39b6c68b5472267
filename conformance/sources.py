"""A virtual environment and an unpacked source distribution for each SQLAlchemy version, all through pip.

SQLAlchemy is installed from its wheel, with the compiled extensions; the source distribution gives the tests. Both
come from whatever index pip is configured with, and stay in the cache folder.

pip insists on the metadata of a source distribution before it keeps the file, and would build a whole environment
with Cython for it. With the build tool already installed, build isolation off, and SQLAlchemy told to leave its
extensions out, the same takes two seconds instead of two minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.profiles import FALLBACK_20, NEWEST_20

#: Longest that one call of pip may take, seconds.
PIP_LIMIT_S = 300.0

#: From the project's development packages, at their pinned versions; what SQLAlchemy's tests need besides itself.
_PACKAGES = (
    "asyncpg",
    "psycopg",
    "asyncmy",
    "aiomysql",
    "aiosqlite",
    "cryptography",
    "pytest",
)

#: To read the metadata of a source distribution, and to install Forebay, without an environment for each.
_BUILD_TOOLS = ("setuptools>=77.0.3", "hatchling>=1.27", "editables")

#: Parts of the source distribution that the tests need; the library itself must come from the wheel.
_COPIED = ("test", "setup.cfg", "pyproject.toml", "lib/sqlalchemy/testing/plugin")


class SourceError(RuntimeError):
    """pip could not provide what is needed, or it is not what was asked for."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is needed to run the tests of one version.

    Attributes:
        version: The exact SQLAlchemy version.
        python: Interpreter of an environment with that version, the drivers, pytest and Forebay.
        sdist: Unpacked source distribution; never written to.
        packages: The interpreter's packages with versions, one a line; part of the fingerprint of a result.
    """

    version: str
    python: Path
    sdist: Path
    packages: str


def newest_20() -> str:
    """Return the newest 2.0 release pip can find, or the one this was last tried with if pip cannot tell."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    try:
        answer = _run([*command, "--report", "-", f"sqlalchemy=={NEWEST_20}"], limit_s=60.0)
        found: str = json.loads(answer)["install"][0]["metadata"]["version"]
    except (SourceError, ValueError, LookupError) as error:
        print(f"newest {NEWEST_20} not found, using {FALLBACK_20}: {str(error).splitlines()[0]}", flush=True)
        return FALLBACK_20
    return found


def provide(version: str, *, cache: Path, checkout: Path) -> Sources:
    """Return environment and sources of ``version``, making in the cache what is not there.

    Args:
        version: Exact version, for example ``2.1.9``.
        cache: The cache folder.
        checkout: Root of Forebay's checkout, to be installed from there.

    Raises:
        SourceError: pip failed; the text ends with what it printed.
    """
    folder = cache / version
    folder.mkdir(parents=True, exist_ok=True)
    python = _environment(version, folder / "venv", checkout)
    return described(python, _sdist(version, folder / "sdist", python))


def described(python: Path, sdist: Path) -> Sources:
    """Return ``Sources`` for an environment and an unpacked source distribution that exist already.

    Raises:
        SourceError: Their SQLAlchemy versions differ, or one of them has no SQLAlchemy.
    """
    # Not resolved: the interpreter of a virtual environment is a link, and is itself only through it.
    python, sdist = Path(os.path.abspath(python)), sdist.resolve()
    version = _run([str(python), "-c", "import sqlalchemy; print(sqlalchemy.__version__)"]).strip()
    unpacked = _version_of(sdist)
    if unpacked != version:
        raise SourceError(f"the environment has SQLAlchemy {version}, the source distribution is {unpacked}")
    packages = _run([str(python), "-m", "pip", "list", "--format", "freeze", "--exclude", "forebay"])
    return Sources(version=version, python=python, sdist=sdist, packages=packages)


def working_copy(sources: Sources, folder: Path) -> Path:
    """Return a copy of the tests for one side to run in; its files of earlier runs are removed.

    Each side needs its own: SQLite files are made in the working folder, under fixed names.
    """
    stamp = folder / ".copied-from"
    wanted = f"{sources.version} {sources.sdist}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        for name in _COPIED:
            source, target = sources.sdist / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        stamp.write_text(wanted, encoding="utf-8")
    for left in folder.glob("*.db*"):
        left.unlink()
    return folder


def _environment(version: str, folder: Path, checkout: Path) -> Path:
    """Return the interpreter of an up-to-date environment, made anew when anything it depends on has changed."""
    pyproject = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [f"sqlalchemy[asyncio]=={version}", *_pinned(pyproject), *_BUILD_TOOLS]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / ".conformance"
    # Forebay is installed from the checkout as it stands; only its metadata is copied.
    metadata = json.dumps([pyproject["build-system"], pyproject["project"]], sort_keys=True)
    fingerprint = hashlib.sha256("\n".join([*wanted, sys.version, metadata, str(checkout)]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        return python
    print(f"making an environment with SQLAlchemy {version}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", *wanted])
    _run(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            str(checkout),
        ]
    )
    stamp.write_text(fingerprint, encoding="utf-8")
    return python


def _pinned(pyproject: dict[str, Any]) -> list[str]:
    """Return the requirements of the development group that we share, as they stand in ``pyproject.toml``."""
    group = pyproject["dependency-groups"]["dev"]
    by_name = {re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower(): requirement for requirement in group}
    absent = [name for name in _PACKAGES if name not in by_name]
    if absent:
        raise SourceError(f"pyproject.toml names no version of {', '.join(absent)} in its development packages")
    return [by_name[name] for name in _PACKAGES]


def _sdist(version: str, folder: Path, python: Path) -> Path:
    """Return the unpacked source distribution of ``version``."""
    if folder.exists():
        return folder
    print(f"fetching the source distribution of SQLAlchemy {version}", flush=True)
    download = folder.with_name("download")
    shutil.rmtree(download, ignore_errors=True)
    command = [
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-build-isolation",
        "--dest",
        str(download),
    ]
    _run(
        [str(python), "-m", "pip", *command, f"sqlalchemy=={version}"],
        # Only the metadata is wanted of this build, not the extensions.
        environment={**os.environ, "DISABLE_SQLALCHEMY_CEXT": "1"},
    )
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(download / "unpacked", filter="data")
    (root,) = (download / "unpacked").iterdir()
    if _version_of(root) != version:
        raise SourceError(f"asked for SQLAlchemy {version}, got {_version_of(root)}")
    root.rename(folder)
    shutil.rmtree(download)
    return folder


def _version_of(sdist: Path) -> str:
    """Return the version of an unpacked source distribution."""
    information = sdist / "PKG-INFO"
    if not (sdist / "test").is_dir() or not information.exists():
        raise SourceError(f"{sdist} is not an unpacked source distribution of SQLAlchemy with its tests")
    found = re.search(r"^Version: (\S+)$", information.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


def _run(command: list[str], *, limit_s: float = PIP_LIMIT_S, environment: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed.

    Raises:
        SourceError: It failed or took longer than ``limit_s`` seconds.
    """
    shown = " ".join(command[1:4])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{shown} … took longer than {limit_s:g} s") from error
    except OSError as error:
        raise SourceError(f"{shown} … could not be started: {error}") from error
    if done.returncode:
        raise SourceError(f"{shown} … failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
