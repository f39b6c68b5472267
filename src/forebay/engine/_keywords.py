"""Which keywords ``create_async_engine`` takes for this dialect and pool, and what to say of those it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Dialect, Engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, StaticPool
from sqlalchemy.util import get_cls_kwargs, get_func_kwargs

from forebay._sqlalchemy.pooled_dialect import PooledDialect, our_pool_class
from forebay.dialects import ConnectArguments
from forebay.engine._problems import Problem, near
from forebay.errors import InvalidOptionError

#: The pool's name for an option -> the engine's.
POOL_NAMES = {
    "logging_name": "pool_logging_name",
    "echo": "echo_pool",
    "timeout": "pool_timeout",
    "recycle": "pool_recycle",
    "events": "pool_events",
    "reset_on_return": "pool_reset_on_return",
    "pre_ping": "pool_pre_ping",
    "use_lifo": "pool_use_lifo",
}

# What create_engine takes whatever the dialect and the pool, and what ours takes besides.
_ALWAYS = frozenset(
    (
        *("connect_args", "pool", "module", "future", "plugins", "enable_from_linting", "empty_in_strategy"),
        *("_is_async", "_coerce_config", "_initialize"),
        *("check_connect_args", "ssl_ca", "credentials"),
    )
)

#: Other pools' and frameworks' words -> what says it here.
_OTHER_WORDS = {
    "size": "pool_size",
    "min_size": "pool_size (the connections kept)",
    "minsize": "pool_size (the connections kept)",
    "max_size": "pool_size and max_overflow, whose sum is the limit",
    "maxsize": "pool_size and max_overflow, whose sum is the limit",
    "max_connections": "pool_size and max_overflow, whose sum is the limit",
    "overflow": "max_overflow",
    "pool_max_overflow": "max_overflow",
    "pool_echo": "echo_pool",
    "pool_class": "poolclass",
    "max_lifetime": "pool_recycle",
    "autocommit": "isolation_level='AUTOCOMMIT'",
    **{name: option for name, option in POOL_NAMES.items() if name != "echo"},
}

_SESSION_WORDS = frozenset(("expire_on_commit", "autoflush", "autobegin", "class_", "bind", "binds", "info"))


def pool_class_of(dialect: type[Dialect], url: Any, options: Mapping[str, Any]) -> type[Pool] | None:
    """Return the class of the pool the engine gets, or None where it cannot be told (a factory, ``pool=``)."""
    if options.get("pool") is not None:
        return None
    chosen = options.get("poolclass")
    if chosen is None:
        asked: Any = dialect  # a class method that SQLAlchemy's protocol does not list
        chosen = asked.get_pool_class(url) if dialect.is_async else AsyncAdaptedQueuePool
    if issubclass(dialect, PooledDialect) and isinstance(chosen, type):
        return our_pool_class(chosen)
    return chosen if isinstance(chosen, type) else None


def unknown_keywords(
    options: Mapping[str, Any], dialect: type[Dialect], pool_class: type[Pool] | None, *, async_creator: bool
) -> list[str]:
    """Return the names in ``options`` that nothing takes, in the order given.

    The same names count as taken as in SQLAlchemy's ``create_engine``, which asks the classes too.

    Args:
        options: By the engine's names.
        dialect: The dialect class.
        pool_class: The pool's class; None when a pool is given or its class cannot be asked.
        async_creator: Whether that option exists (it does for an engine).
    """
    pool_given = options.get("pool") is not None
    if pool_class is None and not pool_given:
        return []
    taken = {*_ALWAYS, *get_cls_kwargs(dialect), *get_cls_kwargs(Engine)}
    if options.get("module") is None:
        taken.update(get_func_kwargs(dialect.import_dbapi))
    if pool_class is not None:
        taken.update(("creator", "poolclass"))
        taken.update(POOL_NAMES.get(name, name) for name in get_cls_kwargs(pool_class))
        if async_creator:
            taken.add("async_creator")
    return [name for name in options if name not in taken]


def keyword_problem(
    unknown: list[str],
    used_names: Mapping[str, str],
    options: Mapping[str, Any],
    pool_class: type[Pool] | None,
    accepted: ConnectArguments | None,
) -> Problem:
    """Return the problem of keywords that nothing takes. Their values are not shown: one may be a password."""
    listed = ",".join(f"'{used_names.get(name, name)}'" for name in unknown)
    advice = "; ".join(_advice(name, options, pool_class, accepted) for name in unknown)
    return Problem(InvalidOptionError, f"Invalid argument(s) {listed} sent to create_engine(): {advice}")


def _advice(
    name: str, options: Mapping[str, Any], pool_class: type[Pool] | None, accepted: ConnectArguments | None
) -> str:
    of_a_pool = {POOL_NAMES.get(option, option) for option in get_cls_kwargs(our_pool_class(AsyncAdaptedQueuePool))}
    if name in of_a_pool | {"creator", "async_creator", "poolclass"}:
        return _why_not_taken(name, options, pool_class)
    if name in _OTHER_WORDS:
        return f"for {name} write {_OTHER_WORDS[name]}"
    if name in _SESSION_WORDS:
        return f"{name} belongs to async_sessionmaker()"
    question = near(name, of_a_pool | _ALWAYS | {"poolclass", "async_creator", *get_cls_kwargs(Engine)})
    if question:
        return f"{name} is unknown, {question}"
    if accepted is not None and accepted.names is not None and name in accepted.names:
        return f"{name} is the driver's: connect_args={{'{name}': ...}}"
    return f"{name} is unknown"


def _why_not_taken(name: str, options: Mapping[str, Any], pool_class: type[Pool] | None) -> str:
    if pool_class is None:
        return f"{name} goes into making a pool, and pool= brings one that is made"
    reason = {
        NullPool: "it keeps no connection",
        StaticPool: "it has one connection",
    }.get(pool_class, "it has no such option")
    if options.get("poolclass") is None and pool_class is StaticPool:
        reason += ", which is what a SQLite database in memory needs"
    return f"{pool_class.__name__} takes no {name}: {reason}"
