"""SQLAlchemy's weak map from a sync object to the one async proxy that stands for it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from sqlalchemy import exc
from sqlalchemy.ext.asyncio.engine import AsyncConnection as _StockConnection

_P = TypeVar("_P", covariant=True)


class _ProxyClass(Protocol[_P]):
    """A subclass of ``ReversibleProxy``, seen as a class whose proxies are instances of it."""

    def _retrieve_proxy_for_target(self, target: Any, **additional_kw: Any) -> Any: ...

    def __call__(self, *args: Any, **kw: Any) -> _P: ...


def proxy_for(cls: _ProxyClass[_P], target: Any, **additional_kw: Any) -> _P:
    """Return the proxy that stands for ``target``, making one of class ``cls`` if there is none yet.

    One that exists is returned whatever its class: a stock proxy made before keeps its identity.
    """
    proxy: _P = cls._retrieve_proxy_for_target(target, **additional_kw)
    return proxy


def sync_bind_of(bind: Any) -> Any:
    """Return the sync engine or connection behind an async one.

    Does what SQLAlchemy's ``_get_sync_engine_or_connection`` does, by shape instead of by class, so that a proxy of
    either make is recognised while ours stand in SQLAlchemy's namespace.

    Raises:
        sqlalchemy.exc.ArgumentError: ``bind`` is neither.
    """
    if isinstance(bind, _StockConnection):
        return bind._proxied
    try:
        return bind.sync_engine
    except AttributeError as error:
        raise exc.ArgumentError(f"AsyncEngine expected, got {bind!r}") from error
