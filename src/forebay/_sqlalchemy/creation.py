"""Making SQLAlchemy's ``create_engine`` pick one of our dialect classes for an unchanged URL.

The choice of a dialect is made by ``URL._get_entrypoint()``. We hand ``create_engine`` a URL of our own class that
answers with our dialect, instead of registering ours under the stock names, so that a stock engine made in the same
process keeps the stock dialect. The engine is given back a plain URL afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import URL, make_url
from sqlalchemy.engine import Dialect, Engine

from forebay.dialects import adapted_dialect_for


class _Entrypoint:
    """Stands where ``create_engine`` expects the registered dialect; answers with the class chosen."""

    def __init__(self, chosen: type[Dialect], registered: type[Dialect]) -> None:
        self._chosen = chosen
        self._registered = registered

    def get_async_dialect_cls(self, url: URL) -> type[Dialect]:
        return self._chosen

    def get_dialect_cls(self, url: URL) -> type[Dialect]:
        return self._registered.get_dialect_cls(url)

    def engine_created(self, engine: Engine) -> None:
        # create_engine tells both the dialect and the entry point when the two differ; ours is told as the
        # dialect, so only an entry point that is not its own dialect (a wrapper of the user's) is left to tell.
        if not (isinstance(self._registered, type) and issubclass(self._chosen, self._registered)):
            self._registered.engine_created(engine)


class AdaptedURL(URL):
    """A URL that resolves to Forebay's dialect for its driver, or to the stock one where we have none."""

    __slots__ = ()

    def _instantiate_plugins(self, kwargs: Mapping[str, Any]) -> tuple[URL, list[Any], dict[str, Any]]:
        # A CreateEnginePlugin may return another URL, and SQLAlchemy one of its own class without the query's plugins.
        url, plugins, kwargs = super()._instantiate_plugins(kwargs)
        return adapted_url(url), plugins, kwargs

    def _get_entrypoint(self) -> type[Dialect]:
        registered = super()._get_entrypoint()
        stock = registered.get_async_dialect_cls(self)
        ours = adapted_dialect_for(stock)
        if ours is None:
            return registered
        return cast("type[Dialect]", _Entrypoint(ours, registered))


def adapted_url(url: str | URL) -> AdaptedURL:
    """Return ``url`` as one that makes ``create_engine`` choose our dialect.

    Raises:
        sqlalchemy.exc.ArgumentError: ``url`` cannot be parsed.
    """
    parsed = make_url(url)
    if isinstance(parsed, AdaptedURL):
        return parsed
    return tuple.__new__(AdaptedURL, cast("tuple[Any, ...]", parsed))


def has_adapted_dialect(url: URL) -> bool:
    """Tell whether an engine for ``url`` would get a dialect of ours."""
    return adapted_dialect_for(url.get_dialect(_is_async=True)) is not None


def give_back_plain_url(engine: Engine) -> None:
    """Put a URL of SQLAlchemy's own class on ``engine``, equal to the one it was made from."""
    if isinstance(engine.url, AdaptedURL):
        engine.url = tuple.__new__(URL, cast("tuple[Any, ...]", engine.url))
