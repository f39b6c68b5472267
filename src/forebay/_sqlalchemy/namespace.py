"""Putting our names into SQLAlchemy's namespace, and taking them out again.

Only attributes of SQLAlchemy's own modules are set. What a module imported by name before is beyond reach: such
modules keep the stock classes, which work beside ours, and ``install()`` names them in a warning.
"""

from __future__ import annotations

import sys
import threading
import warnings
from types import ModuleType
from typing import Any

import sqlalchemy.ext.asyncio as _package
from sqlalchemy.ext.asyncio import engine as _engine
from sqlalchemy.ext.asyncio import scoping as _scoping
from sqlalchemy.ext.asyncio import session as _session

from forebay._sqlalchemy.proxies import sync_bind_of
from forebay.errors import InstallWarning

#: Our name -> the modules of SQLAlchemy that hold the stock one, the package itself first.
_PLACES: dict[str, tuple[ModuleType, ...]] = {
    "AsyncConnection": (_package, _engine),
    "AsyncEngine": (_package, _engine),
    "AsyncTransaction": (_package, _engine),
    "async_engine_from_config": (_package, _engine),
    "create_async_engine": (_package, _engine),
    "create_async_pool_from_url": (_package, _engine),
    "AsyncSession": (_package, _session, _scoping),
    "AsyncSessionTransaction": (_package, _session),
    "async_scoped_session": (_package, _scoping),
    "async_sessionmaker": (_package, _session),
}

#: The stock objects as this module found them; what counts as "stock" for the search below.
_STOCK: dict[str, Any] = {name: getattr(places[0], name) for name, places in _PLACES.items()}

_saved: list[tuple[ModuleType, str, Any]] = []
_lock = threading.Lock()


def stock(name: str) -> Any:
    """Return what stands, or stood before ``install()``, under ``name`` in ``sqlalchemy.ext.asyncio``.

    Looked up when called: a tool that wraps the name to instrument it is then called too.
    """
    for module, saved_name, value in _saved:
        if saved_name == name and module is _package:
            return value
    return getattr(_package, name)


def installed() -> bool:
    """Tell whether our names stand in SQLAlchemy's namespace."""
    return bool(_saved)


def install() -> None:
    """Make SQLAlchemy's namespace hand out Forebay's classes, for code that cannot change its imports.

    After it, ``from sqlalchemy.ext.asyncio import create_async_engine`` and its like import ours. Call it before the
    modules that do so are imported. Calling it again changes nothing.

    Warns:
        InstallWarning: Modules had imported stock names before; they keep them. Stock sessions work on our engines
            and ours on stock engines, but an engine made through such a name is the stock one.
    """
    import forebay

    with _lock:
        if _saved:
            return
        late = _modules_holding_stock_names()
        for name, places in _PLACES.items():
            for module in places:
                _replace(module, name, getattr(forebay, name))
        # The stock function tells connections by the class that stands in its module, which is ours now.
        _replace(_engine, "_get_sync_engine_or_connection", sync_bind_of)
    if late:
        listed = "; ".join(f"{module} ({', '.join(names)})" for module, names in sorted(late.items()))
        warnings.warn(
            "forebay.install() came after these modules had imported SQLAlchemy's own names, which they keep: "
            f"{listed}. Call forebay.install() before importing them.",
            InstallWarning,
            stacklevel=2,
        )


def uninstall() -> None:
    """Put SQLAlchemy's own names back. Engines and sessions made meanwhile keep working. Idempotent."""
    with _lock:
        while _saved:
            module, name, value = _saved.pop()
            setattr(module, name, value)


def _replace(module: ModuleType, name: str, value: Any) -> None:
    _saved.append((module, name, getattr(module, name)))
    setattr(module, name, value)


def _modules_holding_stock_names() -> dict[str, list[str]]:
    by_id = {id(value): name for name, value in _STOCK.items()}
    found: dict[str, list[str]] = {}
    for module_name, module in list(sys.modules.items()):
        if module is None or module_name.split(".", 1)[0] in ("sqlalchemy", "forebay"):
            continue
        # vars() and not getattr(): a lazily importing module must not be made to import.
        held = {by_id[id(value)] for value in list(vars(module).values()) if id(value) in by_id}
        if held:
            found[module_name] = sorted(held)
    return found
