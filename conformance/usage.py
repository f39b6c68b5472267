"""Puts Forebay under SQLAlchemy's tests and counts how much of it they reach.

The counting is done here, by wrapping Forebay's classes from outside; the product knows nothing of it. A layer that
Forebay does not have yet (its own pool, a native lane) is found missing and not counted. This is the one place to
adapt when a new layer comes.

What is counted:

=================  ====================================================================================
``engines``        our dialect classes told of a finished engine (``Dialect.engine_created``)
``connects``       our DBAPI classes asked for a connection
``checkouts``      pools of such an engine lending a connection, whatever the pool's class
``pooled``         of these, the ones lent by a pool class of ours
``asked``          of these, the ones lent by another pool because a test asked for its class, such as ``StaticPool``
``checkouts_stock``  other pools of an async engine lending one
``cursors``        cursors opened on our DBAPI connections: statements on their way to a driver
``facade``         awaited executions on our ``AsyncConnection`` and ``AsyncSession``
``facade_stock``   the same on stock ones
=================  ====================================================================================
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from operator import attrgetter
from typing import Any

_FACADE = {
    "AsyncConnection": ("execute", "scalar", "scalars", "stream", "stream_scalars", "exec_driver_sql"),
    "AsyncSession": ("execute", "scalar", "scalars", "stream", "stream_scalars", "get", "get_one"),
}


#: Switches of what differs from SQLAlchemy on purpose, where its tests insist on stock's way: (module, class,
#: attribute) -> value. Only what the documentation tells users how to switch off belongs here; the report names each.
_AS_STOCK: dict[tuple[str, str, str], object] = {
    # test_detect_stale_ddl_cache_raise_recover wants to see the error that this spares the caller.
    # The last of the options' defaults is that of retry_stale_plans.
    ("forebay._sqlalchemy.pooled_dialect", "PooledDialect.__init__", "__defaults__"): (None, True, True, False),
}

# Set on a dialect that was left to choose its engine's pool.
_CHOOSES = "_conformance_chooses_pool"


@dataclass(slots=True)
class Counters:
    """Counts of one run; they move only while ``active``, which is during tests."""

    active: bool = False
    installed: bool = False
    engines: int = 0
    connects: int = 0
    checkouts: int = 0
    pooled: int = 0
    asked: int = 0
    checkouts_stock: int = 0
    cursors: int = 0
    facade: int = 0
    facade_stock: int = 0
    lanes: dict[str, int] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    as_stock: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the counts as ``results.Usage`` reads them."""
        data = asdict(self)
        del data["active"]
        return data


def install(counters: Counters, *, synchronous: bool) -> None:
    """Put Forebay in, as a user would, and for most suites a little deeper.

    Args:
        counters: Told that it was done.
        synchronous: Also under ``sqlalchemy.create_engine()``. Outside of ``test/ext/asyncio`` SQLAlchemy's tests
            build synchronous engines on async dialects, which ``forebay.install()`` leaves alone by design.
    """
    import forebay

    forebay.install()
    for (module, owner, name), value in _AS_STOCK.items():
        holder = attrgetter(owner)(import_module(module))
        if hasattr(holder, name):
            setattr(holder, name, value)
            counters.as_stock.append(f"{owner}.{name} = {value!r}")
    if synchronous:
        _register_dialects()
    counters.installed = True


def count(counters: Counters) -> None:
    """Wrap what is to be counted."""
    from sqlalchemy.engine.default import DefaultDialect
    from sqlalchemy.pool import Pool

    import forebay

    for name, methods in _FACADE.items():
        ours = getattr(forebay, name)
        stock = next(base for base in ours.__mro__ if not is_ours(base))
        for method in methods:
            if hasattr(stock, method):
                _wrap(stock, method, counters, lambda _: _add(counters, "facade_stock"))
                _wrap(ours, method, counters, lambda _: _add(counters, "facade"))
    counters.layers.append("facade")

    for cls in _dialect_layer_classes():
        if hasattr(cls, "engine_created"):
            _wrap_engine_created(cls, counters)
        elif hasattr(cls, "connect"):
            _wrap(cls, "connect", counters, lambda _: _add(counters, "connects"))
        elif hasattr(cls, "cursor"):
            _wrap(cls, "cursor", counters, lambda _: _add(counters, "cursors"))
    counters.layers.append("dialects")

    _mark_choosing(DefaultDialect)
    pools = pool_classes()
    lending: list[type[Any]] = [Pool, *(cls for cls in pools if "connect" in vars(cls))]
    for cls in lending:
        _wrap(cls, "connect", counters, lambda pool: _count_checkout(pool, counters))
    if pools:
        counters.layers.append("pool")


def pool_classes() -> list[type[Any]]:
    """Return Forebay's pool classes that SQLAlchemy's engine can use, none while there are none."""
    from sqlalchemy.pool import Pool

    import forebay._sqlalchemy as private

    for module in pkgutil.iter_modules(private.__path__, prefix=f"{private.__name__}."):
        import_module(module.name)
    return [cls for cls in _subclasses(Pool) if is_ours(cls)]


def is_ours(cls: type[Any]) -> bool:
    """Tell whether Forebay defines ``cls``, or a class it is derived from.

    ``__module__`` alone does not tell: our pool gives SQLAlchemy's, so that log levels set by name keep working.
    """
    return any(
        _of_forebay(base.__module__)
        or any(_of_forebay(value.__globals__["__name__"]) for value in vars(base).values() if inspect.isfunction(value))
        for base in cls.__mro__
    )


def _of_forebay(module: str) -> bool:
    return module.split(".", 1)[0] == "forebay"


def _register_dialects() -> None:
    """Have SQLAlchemy's registry answer with our dialects for unchanged URLs; they choose our pool."""
    from sqlalchemy import make_url
    from sqlalchemy.dialects import registry
    from sqlalchemy.exc import NoSuchModuleError

    from forebay import drivers
    from forebay.dialects._registry import adapted_dialect_for

    for driver_of_ours in drivers.ours():
        assert driver_of_ours.dialect is not None
        module, _, name = driver_of_ours.dialect.partition(":")
        ours = getattr(import_module(module), name)
        stock = next(base for base in ours.__mro__ if not is_ours(base))
        # psycopg's name is the synchronous dialect's, which stays; the other one is called psycopg_async.
        for driver in (ours.driver, f"{ours.driver}_async"):
            with contextlib.suppress(NoSuchModuleError):
                if registry.load(f"{ours.name}.{driver}") is stock:
                    registry.register(f"{ours.name}.{driver}", module, name)
        if ours.name == "mysql":
            # On a MariaDB SQLAlchemy's tests go over to mariadb:// URLs, for which it makes classes on the spot.
            combined = adapted_dialect_for(make_url(f"mariadb+{ours.driver}://").get_dialect())
            registry.impls[f"mariadb.{ours.driver}"] = functools.partial(lambda cls: cls, combined)
        # What SQLAlchemy's tests do differently for each database is found beside the module of the dialect, which
        # for ours is another one.
        stock.load_provisioning()


def _dialect_layer_classes() -> Iterator[type[Any]]:
    """Yield each class that makes up one of our dialects, once: dialect, DBAPI, connection, cursor."""
    from forebay import drivers

    seen = set()
    for driver in drivers.ours():
        module_name = str(driver.dialect).partition(":")[0]
        module = import_module(module_name)
        for _, cls in inspect.getmembers(module, inspect.isclass):
            # A dialect's module may have put its connection and cursors into files of their own.
            ours = cls.__module__ == module_name or cls.__module__.startswith("forebay.dialects._")
            if ours and cls not in seen:
                seen.add(cls)
                yield cls


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _add(counters: Counters, name: str) -> None:
    setattr(counters, name, getattr(counters, name) + 1)


def _count_checkout(pool: Any, counters: Counters) -> None:
    dialect = getattr(pool, "_dialect", None)
    # "is True": many of SQLAlchemy's own pool tests have a mock for a dialect, whose every attribute is truthy.
    if getattr(dialect, "is_async", False) is not True:
        return
    if not is_ours(type(dialect)):
        _add(counters, "checkouts_stock")
        return
    _add(counters, "checkouts")
    if is_ours(type(pool)):
        _add(counters, "pooled")
    elif not hasattr(dialect, _CHOOSES):
        _add(counters, "asked")


def _wrap(cls: type[Any], name: str, counters: Counters, tick: Callable[[Any], None]) -> None:
    """Replace a method by one that ticks and calls it.

    The wrapper returns what the method returned, coroutines included, so it adds no await of its own: SQLAlchemy's
    cancellation tests number the awaits.
    """
    original = getattr(cls, name)

    @functools.wraps(original)
    def counted(self: Any, *args: Any, **kw: Any) -> Any:
        # A method of ours that calls another wrapped one of a base class counts once.
        if counters.active and getattr(type(self), name) is counted:
            tick(self)
        return original(self, *args, **kw)

    setattr(cls, name, counted)


def _mark_choosing(cls: type[Any]) -> None:
    """Set ``_CHOOSES`` on a dialect that is asked for a pool class: only an engine that was given none asks."""
    original = cls.get_dialect_pool_class

    @functools.wraps(original)
    def get_dialect_pool_class(dialect: Any, url: Any) -> Any:
        setattr(dialect, _CHOOSES, True)
        return original(dialect, url)

    cls.get_dialect_pool_class = get_dialect_pool_class


def _wrap_engine_created(cls: type[Any], counters: Counters) -> None:
    original = cls.engine_created

    def engine_created(told: type[Any], engine: Any) -> None:
        if counters.active:
            counters.engines += 1
        original(engine)

    cls.engine_created = classmethod(engine_created)
