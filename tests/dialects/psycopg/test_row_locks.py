"""A row lock holds until its block ends and never after it, over a network that takes its time."""

from __future__ import annotations

import pytest
from sqlalchemy import exc, text

from forebay import create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy


@pytest.mark.long
async def test_a_row_lock_holds_until_the_block_ends_and_never_after_it(postgres: PostgresServer, mode: bool) -> None:
    """Goal: a NOWAIT elsewhere fails inside the block and succeeds right after. Method: 100 times, over a slow link."""
    postgres.query("DROP TABLE IF EXISTS locked; CREATE TABLE locked (id int); INSERT INTO locked VALUES (1)")
    nowait = text("SELECT id FROM locked WHERE id = 1 FOR UPDATE NOWAIT")
    locking = (
        text("SELECT id FROM locked WHERE id = 1 FOR UPDATE"),
        text("SELECT id FROM locked WHERE id = 1 /* */ FOR NO KEY UPDATE"),
    )
    async with Proxy(postgres.host, postgres.port, latency_s=0.002) as proxy:
        slow = create_async_engine(postgres.url("psycopg", via=proxy), begin_with_statement=mode)
        near = create_async_engine(postgres.url("psycopg"))
        async with near.connect() as other:
            for n in range(100):
                async with slow.connect() as connection:
                    await connection.execute(locking[n % 2])
                    with pytest.raises(exc.OperationalError, match="could not obtain lock"):
                        await other.execute(nowait)
                    await other.rollback()
                await other.execute(nowait)
                await other.rollback()
        await slow.dispose()
        await near.dispose()
    postgres.query("DROP TABLE locked")
