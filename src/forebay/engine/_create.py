"""create_async_engine and its two relatives: SQLAlchemy's signatures, our classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL
from sqlalchemy.pool import Pool

from forebay._sqlalchemy.connecting import tell_failed_connects
from forebay._sqlalchemy.creation import adapted_url, give_back_plain_url, has_adapted_dialect
from forebay._sqlalchemy.namespace import stock
from forebay._sqlalchemy.pooled_dialect import our_pool_class
from forebay.engine._engine import AsyncEngine
from forebay.engine._options import checked
from forebay.engine.credentials import attach


def create_async_engine(url: str | URL, **kw: Any) -> AsyncEngine:
    """Create an async engine.

    Takes everything :func:`sqlalchemy.ext.asyncio.create_async_engine` takes, with the same meaning. Opens nothing.

    Args:
        url: A database URL with an async driver, for example ``postgresql+asyncpg://user@host/db``.
        **kw: SQLAlchemy's engine and pool options, and three of ours besides the pool's: ``ssl_ca``, a file of CA
            certificates with which the server is verified; ``credentials``, a callable for the password (see
            :mod:`forebay.engine.credentials`); ``check_connect_args``, False to hand everything on unchecked.

    Raises:
        forebay.errors.ConfigurationError: The URL or an option cannot work; an ``ArgumentError`` of SQLAlchemy's that
            names every problem found, and no password.
    """
    credentials = kw.get("credentials")
    with checked(url, kw) as parsed:
        # By attribute and at run time: tools that instrument SQLAlchemy wrap this very name.
        created = stock("create_async_engine")(adapted_url(parsed), **_with_our_pool(parsed, kw))
    give_back_plain_url(created.sync_engine)
    if credentials is not None:
        attach(created.sync_engine, credentials)
    tell_failed_connects(created.sync_engine.dialect, created.sync_engine.pool, own_creator=_own_creator(kw))
    return AsyncEngine(created.sync_engine)


def async_engine_from_config(
    configuration: Mapping[str, Any], prefix: str = "sqlalchemy.", **kwargs: Any
) -> AsyncEngine:
    """Create an async engine from a dictionary of strings, as read from a configuration file.

    Args:
        configuration: Keys with ``prefix`` are options of :func:`create_async_engine`; ``<prefix>url`` is required.
        prefix: What the keys begin with.
        **kwargs: Options that go before those of the configuration.

    Raises:
        KeyError: There is no ``<prefix>url``.
        forebay.errors.ConfigurationError: As for :func:`create_async_engine`.
    """
    options = {key[len(prefix) :]: value for key, value in configuration.items() if key.startswith(prefix)}
    options["_coerce_config"] = True
    options.update(kwargs)
    return create_async_engine(options.pop("url"), **options)


def create_async_pool_from_url(url: str | URL, **kwargs: Any) -> Pool:
    """Create the pool an engine for ``url`` would have, without the engine.

    Args:
        url: A database URL with an async driver.
        **kwargs: Pool options, under the pool's own names (``timeout``) or the engine's (``pool_timeout``).

    Raises:
        forebay.errors.ConfigurationError: As for :func:`create_async_engine`.
    """
    with checked(url, kwargs, pool_only=True) as parsed:
        # Where nothing of it is ours, SQLAlchemy gets what it would have got.
        target = adapted_url(parsed) if has_adapted_dialect(parsed) else url
        pool: Pool = stock("create_async_pool_from_url")(target, **_with_our_pool(parsed, kwargs))
    # Its own: that of an engine it is given to opens nothing.
    tell_failed_connects(pool._dialect, pool, own_creator=_own_creator(kwargs))
    return pool


def _own_creator(options: Mapping[str, Any]) -> bool:
    return "creator" in options or "async_creator" in options


def _with_our_pool(url: URL, options: dict[str, Any]) -> dict[str, Any]:
    """Return ``options`` with our pool where SQLAlchemy's ``AsyncAdaptedQueuePool`` is asked for by name."""
    if options.get("poolclass") is None or not has_adapted_dialect(url):
        return options
    return {**options, "poolclass": our_pool_class(options["poolclass"])}
