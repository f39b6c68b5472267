"""Read-only sessions: the database refuses to write where it can, the session refuses in any case."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from sqlalchemy import event, exc
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession as _AnyAsyncSession
from sqlalchemy.ext.asyncio import async_sessionmaker as _AnySessionMaker
from sqlalchemy.orm import ORMExecuteState, Session

from forebay._sqlalchemy.query_only import only_query

__all__ = ["ReadOnlySessionError", "read_only"]

_AS = TypeVar("_AS", bound=_AnyAsyncSession)

_OPTION = {"postgresql_readonly": True}


class ReadOnlySessionError(exc.InvalidRequestError):
    """A session made by :func:`read_only` was asked to write."""


def read_only(maker: _AnySessionMaker[_AS]) -> _AnySessionMaker[_AS]:
    """Return a session maker like ``maker``, whose sessions only read.

    | database | who refuses to write |
    |---|---|
    | PostgreSQL | the server (every transaction is READ ONLY, at no round trip), and the session |
    | MySQL, MariaDB | the server (one ``SET TRANSACTION`` per transaction), and the session |
    | SQLite | the connection (one ``PRAGMA query_only`` per transaction, and one at its end), and the session |
    | others, SQLite in memory | the session: flush, ORM and Core INSERT, UPDATE, DELETE; SQL text it does not read |

    A session bound to a connection, as in tests with a rollback, keeps that connection as it is; the session itself
    still refuses.

    Args:
        maker: A session maker; it is not changed.

    Raises:
        ReadOnlySessionError: Not here, but when such a session is asked to write, before any SQL is sent.
    """
    options = dict(maker.kw)
    session_class = cast(type[Session], options.pop("sync_session_class", None) or maker.class_.sync_session_class)
    guarded = type(f"ReadOnly{session_class.__name__}", (_ReadOnly, session_class), {})
    event.listen(guarded, "before_flush", _refuse_flush)
    event.listen(guarded, "do_orm_execute", _refuse_statement)
    event.listen(guarded, "after_begin", _begin_read_only)
    return type(maker)(class_=maker.class_, sync_session_class=guarded, **options)


class _ReadOnly:
    def get_bind(self, *args: Any, **kw: Any) -> Engine | Connection:
        bind: Engine | Connection = super().get_bind(*args, **kw)  # type: ignore[misc]
        if isinstance(bind, Engine) and bind.dialect.name == "postgresql":
            # Kept by the engine, so that a session finds the connection it has already borrowed from it.
            kept = bind.__dict__.get("_forebay_read_only")
            if kept is None:
                kept = bind.__dict__["_forebay_read_only"] = bind.execution_options(**_OPTION)
            return cast(Engine, kept)
        return bind


def _refuse_flush(session: Session, context: Any, instances: Any) -> None:
    for verb, objects in (("insert", session.new), ("delete", session.deleted), ("update", session.dirty)):
        for instance in objects:
            if verb != "update" or session.is_modified(instance):
                raise ReadOnlySessionError(
                    f"This session is read-only; it was asked to {verb} a {type(instance).__name__}. Use the session "
                    "maker that read_only() was given."
                )


def _refuse_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        verb = "INSERT" if state.is_insert else "UPDATE" if state.is_update else "DELETE"
        raise ReadOnlySessionError(
            f"This session is read-only; it was asked for an {verb}. Use the session maker that read_only() was given."
        )


def _begin_read_only(session: Session, transaction: Any, connection: Connection) -> None:
    # Inside a transaction, ours or somebody else's, the server would refuse the statement.
    if connection.in_nested_transaction() or isinstance(session.bind, Connection):
        return
    if connection.dialect.name in ("mysql", "mariadb"):
        # For the next transaction only, so there is nothing to undo.
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    elif connection.dialect.name == "sqlite":
        only_query(connection)
