"""The async engine, driver adapters and connection pool for SQLAlchemy, as a drop-in.

Everything ``sqlalchemy.ext.asyncio`` exports can be imported from here, ours where we have one::

    from forebay import create_async_engine, async_sessionmaker

For code whose imports cannot change, :func:`install` puts the same names into SQLAlchemy's own namespace.

Besides, what the module that makes the engine needs: the URL in another form, settings from the environment, passwords
from a callable, the options of a provider, and what goes with sessions. Frameworks are in ``forebay.integrations``,
numbers of connections in ``forebay.engine.sizing``, errors in ``forebay.errors``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncAttrs as AsyncAttrs
    from sqlalchemy.ext.asyncio import AsyncMappingResult as AsyncMappingResult
    from sqlalchemy.ext.asyncio import AsyncResult as AsyncResult
    from sqlalchemy.ext.asyncio import AsyncScalarResult as AsyncScalarResult
    from sqlalchemy.ext.asyncio import AsyncTupleResult as AsyncTupleResult
    from sqlalchemy.ext.asyncio import async_object_session as async_object_session
    from sqlalchemy.ext.asyncio import async_session as async_session
    from sqlalchemy.ext.asyncio import close_all_sessions as close_all_sessions

    from forebay._sqlalchemy.namespace import install as install
    from forebay._sqlalchemy.namespace import uninstall as uninstall
    from forebay.engine import AsyncConnection as AsyncConnection
    from forebay.engine import AsyncEngine as AsyncEngine
    from forebay.engine import AsyncTransaction as AsyncTransaction
    from forebay.engine import async_engine_from_config as async_engine_from_config
    from forebay.engine import create_async_engine as create_async_engine
    from forebay.engine import create_async_pool_from_url as create_async_pool_from_url
    from forebay.engine.credentials import Credential as Credential
    from forebay.engine.credentials import Credentials as Credentials
    from forebay.engine.presets import preset as preset
    from forebay.engine.settings import engine_from_env as engine_from_env
    from forebay.engine.settings import settings_from_env as settings_from_env
    from forebay.engine.urls import async_url as async_url
    from forebay.engine.urls import create_sync_engine as create_sync_engine
    from forebay.engine.urls import sync_url as sync_url
    from forebay.session import AsyncSession as AsyncSession
    from forebay.session import AsyncSessionTransaction as AsyncSessionTransaction
    from forebay.session import async_scoped_session as async_scoped_session
    from forebay.session import async_sessionmaker as async_sessionmaker
    from forebay.session import lazy_relationships as lazy_relationships
    from forebay.session import log_sql as log_sql
    from forebay.session import read_only as read_only

# Public name -> the module that defines it. Imported on first use, so that ``import forebay`` costs nothing and
# ``import forebay.testing`` does not import the engine.
_LAZY = {
    **dict.fromkeys(
        (
            "AsyncConnection",
            "AsyncEngine",
            "AsyncTransaction",
            "async_engine_from_config",
            "create_async_engine",
            "create_async_pool_from_url",
        ),
        "forebay.engine",
    ),
    **dict.fromkeys(
        ("AsyncSession", "AsyncSessionTransaction", "async_scoped_session", "async_sessionmaker"),
        "forebay.session",
    ),
    **dict.fromkeys(
        (
            "AsyncAttrs",
            "AsyncMappingResult",
            "AsyncResult",
            "AsyncScalarResult",
            "AsyncTupleResult",
            "async_object_session",
            "async_session",
            "close_all_sessions",
        ),
        "sqlalchemy.ext.asyncio",
    ),
    **dict.fromkeys(("install", "uninstall"), "forebay._sqlalchemy.namespace"),
    **dict.fromkeys(("Credential", "Credentials"), "forebay.engine.credentials"),
    **dict.fromkeys(("engine_from_env", "settings_from_env"), "forebay.engine.settings"),
    **dict.fromkeys(("async_url", "create_sync_engine", "sync_url"), "forebay.engine.urls"),
    **dict.fromkeys(("lazy_relationships", "log_sql", "read_only"), "forebay.session"),
    "preset": "forebay.engine.presets",
}

__all__ = sorted([*_LAZY, "__version__"])


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
