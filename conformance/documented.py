"""Tests of SQLAlchemy's that cannot pass on Forebay, because they insist on what it does differently on purpose.

Each stands here by its id, with the reason, and is a row of ``docs/differences.md``. Nothing that could be set as in
stock belongs here; see ``_AS_STOCK`` in ``usage``. One that passes is reported as a fault, so that the list cannot go
stale.
"""

from __future__ import annotations

__all__ = ["DOCUMENTED"]

#: Test id -> why it fails.
DOCUMENTED: dict[str, str] = {
    "test/dialect/postgresql/test_dialect.py::DialectTest::test_asyncpg_terminate_catch": (
        "a mock wants to see asyncpg's close(timeout=2) before terminate(): dropping a connection does not wait for"
        " the server inside the caller's request"
    ),
}
