"""The note on an exception that leaves our engine, session or pool: code, cause, remedy, page (PEP 678).

SQLAlchemy makes every error of a driver's in one place, ``DBAPIError.instance()``, and says for which dialect. So the
note is put on there, for dialects of ours only, and nothing is added to the way of a statement that works: no listener,
which would turn on SQLAlchemy's event machinery, and no wrapper around ``execute``. Errors that are not a driver's (a
pool that timed out, a host that is not there, a session in need of a rollback) get theirs where they are made, where a
connect raises them (:mod:`forebay._sqlalchemy.connecting`), or where they leave a block.

A note is text of the error index and nothing else: no statement, no parameter, no URL.

Private names used: ``DBAPIError.instance``.
"""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import exc

from forebay._sqlalchemy.time_limits import ran_out_of_time
from forebay.dialects._adapter import traits_of
from forebay.errors import StatementTimeoutError
from forebay.hints import hint_for

__all__ = ["hint_driver_errors", "hinted", "hinted_on_leaving"]

_E = TypeVar("_E", bound=BaseException)

_MARK = "[forebay:"
# What the data did, not what the program or its surroundings did. Applications count on these, and never look them up.
_UNREMARKABLE = (exc.IntegrityError, exc.DataError)

_stock_instance: Any = exc.DBAPIError.__dict__["instance"].__func__


def hinted(error: _E) -> _E:
    """Return ``error``, with a note if the error index knows it and it has none of ours yet."""
    if not isinstance(error, Exception) or isinstance(error, _UNREMARKABLE):
        return error
    if _notes_of_ours(error):
        return error
    hint = hint_for(error)
    if hint is not None:
        # What is wrapped is printed too. The outermost is what people read.
        inner: Any = getattr(error, "orig", None)
        for note in _notes_of_ours(inner):
            inner.__notes__.remove(note)
        error.add_note(hint.note)
    return error


def _notes_of_ours(error: Any) -> list[str]:
    return [note for note in getattr(error, "__notes__", ()) if isinstance(note, str) and note.startswith(_MARK)]


def hinted_on_leaving(error: BaseException | None) -> None:
    """Put the note on an exception that leaves the block of a connection or session.

    Only on SQLAlchemy's: what else passes through is the application's own, and may say anything.
    """
    if isinstance(error, exc.SQLAlchemyError):
        hinted(error)


def hint_driver_errors() -> None:
    """Let SQLAlchemy's wrappers of driver errors carry a note, for dialects of ours, for good; harmless when repeated.

    Dialects of ours are those whose :class:`~forebay.dialects._adapter.DriverTraits` say so.
    """
    exc.DBAPIError.instance = classmethod(_instance)  # type: ignore[method-assign, assignment]


def _timed_out(error: exc.OperationalError, orig: Any) -> StatementTimeoutError:
    named = StatementTimeoutError(
        error.statement,
        error.params,
        orig,
        hide_parameters=error.hide_parameters,
        connection_invalidated=error.connection_invalidated,
        code=error.code,
        ismulti=error.ismulti,
    )
    named.limit_s = orig.limit_s
    return named


def _instance(cls: type[exc.DBAPIError], *args: Any, **kw: Any) -> Any:
    # Whatever SQLAlchemy's own takes, in 2.0 and 2.1: only the dialect matters, which both give by name.
    error = _stock_instance(cls, *args, **kw)
    orig = getattr(error, "orig", None)
    if isinstance(error, exc.OperationalError) and ran_out_of_time(orig):
        error = _timed_out(error, orig)
    return hinted(error) if traits_of(kw.get("dialect")).adds_hints else error
