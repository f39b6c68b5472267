"""From what was typed to what is looked at: a URL, or ``module:engine`` of an application."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from forebay.cli.any_url import any_database
from forebay.cli.database import Database, open_engine
from forebay.cli.doctor.model import Subject
from forebay.cli.errors import CliError, Refused
from forebay.errors import ConfigurationError
from forebay.hints import hint_for

__all__ = ["namespaces_of", "subject_of"]

_NAME = re.compile(r"[A-Za-z_][\w.]*")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def subject_of(target: str, *, timeout_s: float) -> Subject:
    """Return what ``target`` names; where it cannot work, the subject says why.

    Args:
        target: A database URL, or ``package.module:engine``.
        timeout_s: Seconds a checkout of an engine made for a URL may take, > 0.

    Raises:
        Refused: A module or a name in it that is not there. What was typed is not repeated: it may be a password.
    """
    if "://" not in target and _MODULE.fullmatch(target):
        return _of_app(target)
    try:
        database = any_database(target)
        # The options of an engine nobody has given any: the pool's defaults are what is multiplied out.
        # In memory there is no pool to speak of, and none that takes a timeout.
        engine = open_engine(database, **({} if database.in_memory else {"pool_timeout": timeout_s}))
    except CliError as error:
        return Subject("the URL", problem=str(error))
    return Subject(database.label, database=database, engine=engine)


def _of_app(target: str) -> Subject:
    name, _, attribute = target.partition(":")
    _look_here()
    if not _exists(name):
        raise Refused("no such module (before the colon), seen from this directory; a URL has :// in it")
    found = _imported(name)
    if isinstance(found, str):
        return Subject("the application's engine", problem=found)
    namespaces = _namespaces(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise Refused("the module has no such name (after the colon)")
        found = getattr(found, part)
    if not isinstance(found, AsyncEngine):
        kind = type(found)
        return Subject(
            "the application's engine",
            problem=f"that name is no async engine but of class {kind.__module__}.{kind.__qualname__}",
        )
    database = Database(found.sync_engine.url)
    return Subject(database.label, database=database, engine=found, namespaces=namespaces)


def namespaces_of(name: str) -> tuple[Mapping[str, Any], ...]:
    """Import a module of an application and return its names, and those of the loaded modules of the same package.

    Raises:
        Refused: There is no such module.
        CliError: Importing it failed.
    """
    _look_here()
    if not _NAME.fullmatch(name) or not _exists(name):
        raise Refused("no such module, seen from this directory")
    found = _imported(name)
    if isinstance(found, str):
        raise CliError(found)
    return _namespaces(name)


def _look_here() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _imported(name: str) -> Any:
    """Return the module, or why it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ConfigurationError as error:
        return f"importing the module failed: {error}"
    except Exception as error:
        # Not its text: what an application raises while it reads its settings may hold any of them.
        hint = hint_for(error)
        about = f" ({hint.texts[0]}; see {hint.page})" if hint is not None else ""
        return f"importing the module raised {type(error).__name__}{about}"


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
    except Exception:
        # The package around it runs code of the application's; what that raises shows when it is imported.
        return True


def _namespaces(name: str) -> tuple[Mapping[str, Any], ...]:
    """Return the names in a module, and in the loaded modules of the same package, where models may live."""
    package = name.partition(".")[0] + "."
    others = [each for each in list(sys.modules) if each != name and (f"{each}.").startswith(package)]
    return tuple(dict(vars(sys.modules[each])) for each in (name, *sorted(others)) if each in sys.modules)
