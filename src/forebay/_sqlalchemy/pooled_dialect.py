"""What all of our dialects share: they ask for our pool where SQLAlchemy's asks for its own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, util
from sqlalchemy.pool import AsyncAdaptedQueuePool as _StockQueuePool
from sqlalchemy.pool import Pool

from forebay._sqlalchemy.hinting import hint_driver_errors
from forebay._sqlalchemy.pool_entry import ProxiedConnection
from forebay._sqlalchemy.time_limits import check_limit, ran_out_of_time, with_limits
from forebay.dialects._adapter import DriverTraits, PooledModule, pooled
from forebay.dialects._originals import Originals
from forebay.dialects.switches import SWITCHES, problems, switches_from
from forebay.errors import InvalidOptionError
from forebay.pool.options import OPTIONS


def _coerced(kind: type) -> Any:
    return lambda value: None if value in (None, "", "None", "none") else kind(value)


def _switched(value: Any) -> Any:
    # What is no string came beside the configuration, and is meant as it is.
    if not isinstance(value, str):
        return value
    return None if value.strip().lower() == "none" else util.asbool(value)


_FROM_STRINGS = {
    **{option.name: _coerced(option.kind) for option in OPTIONS if option.name == option.field},
    **{switch.name: _switched for switch in SWITCHES},
}


_PING = Originals(("sqlalchemy", "forebay"), "do_ping", "_do_ping_w_event")

#: The server ends its sessions: PostgreSQL's admin shutdown, crash shutdown, cannot connect now.
_SHUTTING_DOWN = frozenset({"57P01", "57P02", "57P03"})
#: The server takes no writes: a primary that has become a standby. MySQL: --read-only, InnoDB read only.
_READ_ONLY: frozenset[str | int] = frozenset({"25006", 1290, 1836})


class PooledDialect(DriverTraits):
    """Mixin in front of a dialect of SQLAlchemy's.

    Args:
        begin_with_statement: Whether BEGIN is sent together with the first statement; None: where it pays.
        rollback_without_wait: Whether the ROLLBACK of a block that only read is not waited for.
        resend_lost_statements: Whether a first statement is sent again where its connection was lost early.
        retry_stale_plans: Whether a first statement is run again where a migration has overtaken its plan.
        kw: The dialect's own.

    Raises:
        forebay.errors.InvalidOptionError: An option has a value it cannot have.

    Attributes:
        switches: The options above, as the connections of the dialect are told them.
    """

    adds_hints = True

    def __init__(
        self,
        begin_with_statement: bool | None = None,
        rollback_without_wait: bool = True,
        resend_lost_statements: bool = True,
        retry_stale_plans: bool = True,
        **kw: Any,
    ) -> None:
        given = {
            "begin_with_statement": begin_with_statement,
            "rollback_without_wait": rollback_without_wait,
            "resend_lost_statements": resend_lost_statements,
            "retry_stale_plans": retry_stale_plans,
        }
        wrong = problems(given)
        if wrong:
            raise InvalidOptionError(*wrong)
        super().__init__(**kw)
        self.switches = switches_from(given)
        # The connections are made there. A module that the user brings along has ways of its own.
        module: Any = getattr(self, "dbapi", None)
        if isinstance(module, PooledModule) and module.switches != self.switches:
            module.switches = self.switches

    @property
    def begin_is_ping(self) -> bool:
        """Whether BEGIN's answer stands for a pre-ping: not where the user has a ping of their own."""
        return self.answers_begin_early and self.switches.begin_is_ping and _PING.of(self)

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        dialect: Any = cls
        # How ``async_engine_from_config`` reads options from strings.
        dialect.execution_ctx_cls = with_limits(dialect.execution_ctx_cls)
        dialect.engine_config_types = util.immutabledict({**dialect.engine_config_types, **_FROM_STRINGS})

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Return our pool class in the place of SQLAlchemy's ``AsyncAdaptedQueuePool``."""
        chosen: type[Pool] = super().get_pool_class(url)  # type: ignore[misc]  # the dialect's, behind this mixin
        return our_pool_class(chosen)

    def set_engine_execution_options(self, engine: Any, opts: Any) -> None:
        """Take the execution options of an engine.

        Raises:
            forebay.errors.InvalidOptionError: ``statement_timeout`` is out of bounds.
        """
        check_limit(opts)
        super().set_engine_execution_options(engine, opts)  # type: ignore[misc]  # the dialect's

    def set_connection_execution_options(self, connection: Any, opts: Any) -> None:
        """Take the execution options of a connection.

        Raises:
            forebay.errors.InvalidOptionError: ``statement_timeout`` is out of bounds.

        Cancellation: the connection is brought to rest, or closed where its isolation level may be set already.
        """
        check_limit(opts)
        try:
            super().set_connection_execution_options(connection, opts)  # type: ignore[misc]  # the dialect's
        except Exception:
            raise
        except BaseException as error:
            # SQLAlchemy has not taken note yet that there may be something to be set back.
            if not (connection.closed or connection.invalidated):
                connection.invalidate(error)
            raise

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Tell whether ``e`` means that the connection is lost; also hears of a server that has changed its role."""
        proxied = connection if isinstance(connection, ProxiedConnection) else None
        if proxied is not None and not proxied.is_valid:
            # Lost and taken from its checkout already, and what failed now is getting another one.
            return True
        if ran_out_of_time(e):
            return bool(e.lost)
        code = getattr(e, "sqlstate", None) or (e.args[0] if e.args else None)
        if code in _SHUTTING_DOWN:
            # The server closes the connection right after this answer; it may not have got round to it.
            return True
        lost: bool = super().is_disconnect(e, connection, cursor)  # type: ignore[misc]  # the dialect's
        demoted = not lost and isinstance(code, (str, int)) and code in _READ_ONLY
        if demoted and proxied is not None and not pooled(proxied.dbapi_connection).asked_for_read_only():
            proxied._pool.retire_generation(proxied)
        return lost

    def get_driver_connection(self, connection: Any) -> Any:
        """Return the driver's connection, which is expected to be used behind our back from here on."""
        adapted = pooled(connection)
        if adapted is connection:
            return adapted.handed_out()
        return super().get_driver_connection(connection)  # type: ignore[misc]  # the dialect's


def our_pool_class(chosen: type[Pool]) -> type[Pool]:
    """Return our class where ``chosen`` is exactly SQLAlchemy's ``AsyncAdaptedQueuePool``, else ``chosen``."""
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool

    return AsyncAdaptedQueuePool if chosen is _StockQueuePool else chosen


hint_driver_errors()
