"""What all of our dialects share: they ask for our pool where SQLAlchemy's asks for its own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, util
from sqlalchemy.pool import AsyncAdaptedQueuePool as _StockQueuePool
from sqlalchemy.pool import Pool

from forebay.pool.options import OPTIONS


def _coerced(kind: type) -> Any:
    return lambda value: None if value in (None, "", "None", "none") else kind(value)


_FROM_STRINGS = {option.name: _coerced(option.kind) for option in OPTIONS if option.name == option.field}


class PooledDialect:
    """Mixin in front of a dialect of SQLAlchemy's."""

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        dialect: Any = cls
        # How ``async_engine_from_config`` reads options from strings.
        dialect.engine_config_types = util.immutabledict({**dialect.engine_config_types, **_FROM_STRINGS})

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Return our pool class in the place of SQLAlchemy's ``AsyncAdaptedQueuePool``."""
        chosen: type[Pool] = super().get_pool_class(url)  # type: ignore[misc]  # the dialect's, behind this mixin
        return our_pool_class(chosen)


def our_pool_class(chosen: type[Pool]) -> type[Pool]:
    """Return our class where ``chosen`` is exactly SQLAlchemy's ``AsyncAdaptedQueuePool``, else ``chosen``."""
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool

    return AsyncAdaptedQueuePool if chosen is _StockQueuePool else chosen
