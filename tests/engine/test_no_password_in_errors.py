"""No error about a URL or an option shows a password: not in its text, its repr, its attributes or its traceback."""

from __future__ import annotations

import functools
import pickle
import traceback
from typing import Any

import pytest
from sqlalchemy import exc

from forebay import async_engine_from_config, create_async_engine, create_async_pool_from_url

# In pieces, so that a message that quotes one of them is found out, and without a mark that this file's text shows.
SECRET = "hunter" + "2"
URL = f"postgresql+asyncpg://user:{SECRET}@host/db"

CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sync driver": (f"postgresql+psycopg2://user:{SECRET}@host/db", {}),
    "unknown driver": (f"pgsql://user:{SECRET}@host/db", {}),
    "missing driver": (f"mssql+aioodbc://user:{SECRET}@host/db", {}),
    "no scheme": (f"user:{SECRET}@host/db", {}),
    "bad scheme": (f"postgresql-asyncpg://user:{SECRET}@host/db", {}),
    "quoted": (f"'{URL}'", {}),
    "no host": (f"postgresql+asyncpg://user:{SECRET}/db", {}),
    "rest is the host": (f"postgresql+asyncpg://user:x@{SECRET}@host/db", {}),
    "rest is the port": (f"postgresql+asyncpg://user:x@y:{SECRET}@host/db", {}),
    "rest is the database": (f"postgresql+asyncpg://user:x@y/{SECRET}@host/db", {}),
    "rest is the query": (f"postgresql+asyncpg://user:x@y?a&{SECRET}=z@host/db", {}),
    "bad list of hosts": (f"postgresql+asyncpg://user:{SECRET}@a:1,b:{SECRET}/db", {}),
    "bad mode of TLS": (f"postgresql+asyncpg://user:{SECRET}@host/db?sslmode={SECRET}", {}),
    "no CA file": (URL, {"ssl_ca": "/no/such/file"}),
    "CA twice": (URL, {"ssl_ca": "a.pem", "connect_args": {"ssl": SECRET}}),
    "bad port": (f"postgresql+asyncpg://user:{SECRET}@host:54x2/db", {}),
    "bytes": (URL.encode(), {}),
    "password in the query": (f"sqlite+aiosqlite://host/db?password={SECRET}&uri=1", {}),
    "value of a wrong type": (f"mysql+asyncmy://host/db?connect_timeout={SECRET}", {}),
    "bad number": (URL, {"pool_size": -1}),
    "secret where a number belongs": (URL, {"pool_size": f"postgresql://user:{SECRET}@host/db"}),
    "unknown keyword": (URL, {"passwd": SECRET}),
    "unknown argument": (URL, {"connect_args": {"passwd": SECRET, "password": SECRET}}),
    "arguments as text": (URL, {"connect_args": f"password={SECRET}"}),
    "arguments as a list": (URL, {"connect_args": [("password", SECRET)]}),
    "two creators": (URL, dict.fromkeys(("creator", "async_creator"), functools.partial(print, SECRET))),
    "sync pool": (URL, {"poolclass": __import__("sqlalchemy").pool.QueuePool}),
    "server side cursors": (URL, {"server_side_cursors": True}),
}


def everything_shown(error: BaseException) -> str:
    """Return all that a log, a shell or an error tracker would show of ``error``."""
    shown = [str(error), repr(error), repr(vars(error)), repr(error.args), *traceback.format_exception(error)]
    if error.__cause__ is not None:
        shown.append(everything_shown(error.__cause__))
    if error.__context__ is not None:
        shown.append(everything_shown(error.__context__))
    return "\n".join(shown)


@pytest.mark.parametrize("case", CALLS)
def test_no_password_is_shown(case: str) -> None:
    """Goal: a configuration error can be pasted into a ticket. Method: every refusal, a secret wherever one may be."""
    url, options = CALLS[case]
    with pytest.raises(exc.SQLAlchemyError) as caught:
        create_async_engine(url, **options)
    assert SECRET not in everything_shown(caught.value)


@pytest.mark.parametrize(
    "make", [create_async_pool_from_url, lambda url, **kw: async_engine_from_config({"url": url}, "", **kw)]
)
def test_no_password_is_shown_by_the_other_two_ways_in(make: Any) -> None:
    """Goal: the same for a pool and for a configuration. Method: a bad number, an unknown option, a misread URL."""
    for url, options in (CALLS["bad number"], CALLS["unknown keyword"], CALLS["rest is the host"]):
        with pytest.raises(exc.ArgumentError) as caught:
            make(url, **options)
        assert SECRET not in everything_shown(caught.value)


def test_the_test_would_notice() -> None:
    """Goal: `everything_shown` looks where secrets stand. Method: one in a cause that `from None` would hide."""
    with pytest.raises(exc.ArgumentError) as caught:
        try:
            raise ValueError(SECRET)
        except ValueError:
            raise exc.ArgumentError("hidden") from None
    assert SECRET in everything_shown(caught.value)


def test_an_error_survives_a_process_boundary() -> None:
    """Goal: errors raised in a worker arrive whole. Method: pickle one with several problems."""
    with pytest.raises(exc.ArgumentError) as caught:
        create_async_engine(URL, pool_size=-1, max_overflow=-2)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.problems) == (type(caught.value), str(caught.value), caught.value.problems)
