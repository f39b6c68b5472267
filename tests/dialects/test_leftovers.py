"""What a statement leaves in its session, told by its text: for closing the connection when in doubt."""

from __future__ import annotations

import pytest

from forebay.dialects._asyncpg.reads import only_reads
from forebay.dialects._leftovers import Leaves, Leftovers, left_by
from forebay.dialects._sqlite.settings import left_by as left_by_in_sqlite

NOTHING = [
    "select 1",
    "SELECT 1;",
    "SELECT pg_sleep(10)",
    "SELECT set_config('app.tenant', $1, true)",
    "SELECT set_config('app.tenant', %(tenant)s, true)",
    "SET LOCAL app.tenant = '5'",
    "SET TRANSACTION READ ONLY",
    "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING t.id",
    'INSERT INTO "user" (a, b) VALUES ($1::VARCHAR, $2) ON CONFLICT (a) DO UPDATE SET b = excluded.b',
    'INSERT INTO public."user" (a) SELECT p0 FROM (VALUES ($1, 0)) AS imp_sen(p0, sen_counter) ORDER BY sen_counter',
    "INSERT INTO t (a) SELECT p0::INTEGER FROM (VALUES ($1)) AS imp_sen(p0) RETURNING a",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT nextval('a_id_seq')",
    "/* trace */ SELECT count(*) FROM t -- set_config('a', 'b', false)",
    "SELECT 'it''s; SET ROLE x', \"a;b\" FROM t",
    "WITH RECURSIVE r(a, b) AS (SELECT 1, 2) SELECT * FROM r",
    "(SELECT 1) UNION (SELECT 2)",
    "SAVEPOINT sa_savepoint_1",
    "ROLLBACK TO SAVEPOINT sa_savepoint_1",
    "RELEASE SAVEPOINT sa_savepoint_1",
    "SELECT CAST(a AS VARCHAR(50)) FROM t WHERE a IN ($1, $2)",
    "MERGE INTO t USING s ON t.a = s.a WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a)",
    "UPDATE t SET a = $1 WHERE b = $2",
    "DELETE FROM t WHERE id = $1",
]
UNTIL_ROLLBACK = [
    "SET ROLE x",
    "set session authorization x",
    "RESET ALL",
    "SET search_path TO a",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SELECT set_config('app.tenant', $1, false)",
    "SELECT set_config('app.tenant', $1, $2)",
    "SELECT \"set_config\"('app.tenant', $1, false)",
    "SELECT pg_catalog.set_config('app.tenant', $1, false)",
    "SELECT 1, set_config('app.tenant', $1, false) AS tenant",
    "SELECT \"a'b\", set_config('x', 'y', false), \"c'd\" FROM \"e'f\"",
    "SELECT 1 INTO TEMP x",
    "CREATE TEMP TABLE x (a integer)",
    "LISTEN x",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "UPDATE pg_settings SET setting = 'a' WHERE name = 'role'",
    "SELECT my_function(1)",
    'SELECT "MyFunction"(1)',
    "WITH x AS (SELECT login(1)) SELECT * FROM x",
    "INSERT INTO t (a) VALUES (login(1))",
]
FOR_GOOD = [
    "",
    ";",
    "SELECT 1; SET ROLE x",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "SELECT dblink_connect('other')",
    "PREPARE x AS SELECT 1",
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "DISCARD ALL",
    "DO 'BEGIN END'",
    "CALL work()",
    "COPY t FROM STDIN",
    "SELECT $$a$$, set_config('a', 'b', false)",
    "SELECT E'\\'', set_config('a', 'b', false)",
    "SELECT /* /* */ 1 */ set_config('a', 'b', false)",
    "SELECT 'open",
    'SELECT "open',
    "\0",
]


@pytest.mark.parametrize(
    ("statement", "leaves"),
    [
        (each, leaves)
        for leaves, all_of_it in zip(Leaves, (NOTHING, UNTIL_ROLLBACK, FOR_GOOD), strict=True)
        for each in all_of_it
    ],
)
def test_the_text_of_a_statement_tells_what_it_leaves(statement: str, leaves: Leaves) -> None:
    """Goal: what a request leaves is known, without a question to the server. Method: a table of statements."""
    assert left_by(statement) is leaves
    if leaves:
        # A statement that only reads is not asked what it leaves.
        assert not only_reads(statement)


@pytest.mark.parametrize(
    ("statement", "leaves"),
    [
        ("SELECT 1", Leaves.NOTHING),
        ("INSERT INTO t (a) VALUES (?)", Leaves.NOTHING),
        ("CREATE TABLE t (a integer)", Leaves.NOTHING),
        ("PRAGMA foreign_keys", Leaves.NOTHING),
        ('PRAGMA main.table_info("t")', Leaves.NOTHING),
        ("PRAGMA foreign_keys = 1", Leaves.FOR_GOOD),
        ("PRAGMA foreign_keys(1)", Leaves.FOR_GOOD),
        ("-- quick\nPRAGMA query_only = 1", Leaves.FOR_GOOD),
        ("ATTACH 'a' AS b", Leaves.FOR_GOOD),
        ("DETACH b", Leaves.FOR_GOOD),
        ("create temp table t (a integer)", Leaves.FOR_GOOD),
        ("CREATE TABLE temp.t (a integer)", Leaves.FOR_GOOD),
        ('CREATE TABLE "temp".t (a integer)', Leaves.FOR_GOOD),
        ("SELECT load_extension('a')", Leaves.FOR_GOOD),
        ("", Leaves.FOR_GOOD),
    ],
)
def test_the_text_of_a_statement_of_sqlites_tells_what_it_leaves(statement: str, leaves: Leaves) -> None:
    """The same for SQLite."""
    assert left_by_in_sqlite(statement) is leaves


def test_a_rollback_undoes_what_was_set_in_its_transaction() -> None:
    """Goal: what counts against a checkout is what outlives it. Method: the order of set, commit, rollback."""
    left = Leftovers()
    left.note(Leaves.UNTIL_ROLLBACK, 3, in_transaction=True)
    assert not left.of(3)
    left.rolled_back()
    left.committing(3)
    assert not left.of(3)
    left.note(Leaves.UNTIL_ROLLBACK, 3, in_transaction=True)
    left.committing(3)
    assert left.of(3)
    assert not left.of(4)
    left.note(Leaves.UNTIL_ROLLBACK, 4, in_transaction=False)
    assert left.of(4)
    left.note(Leaves.FOR_GOOD, 5, in_transaction=True)
    left.rolled_back()
    assert left.of(5)
    left.note(Leaves.FOR_GOOD, 0, in_transaction=True)
    assert not left.of(0)
