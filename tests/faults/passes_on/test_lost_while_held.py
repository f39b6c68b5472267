"""A connection that was lost while its caller held it, in no transaction, must not be the next caller's.

Goal: SQLAlchemy sends a ROLLBACK at its return on MySQL, which notices that: nobody but the pool is told. Where that is
left out, something else notices.

Method: a proxy in front of the server cuts the connection after a commit, and another caller comes right after the
return.
"""

from __future__ import annotations

import contextlib
from types import ModuleType

import pytest
from sqlalchemy import make_url, text

from tests.support.proxy import ThreadedProxy

each_mysql = pytest.mark.parametrize("database_url", ["asyncmy", "aiomysql"], indirect=True)


@each_mysql
@pytest.mark.parametrize("how", ["committed", "AUTOCOMMIT"])
@pytest.mark.parametrize("own", [False, True], ids=["calm", "own-exception"])
async def test_connection_lost_after_a_commit_reaches_the_next_caller(
    sa: ModuleType, database_url: str, how: str, own: bool
) -> None:
    url = make_url(database_url)
    with ThreadedProxy(url.host or "", url.port or 0) as proxy:
        engine = sa.create_async_engine(url.set(host=proxy.host, port=proxy.port))
        with pytest.raises(KeyError) if own else contextlib.nullcontext():
            async with engine.connect() as connection:
                if how == "AUTOCOMMIT":
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text("create temporary table faults_lost (a int)"))
                await connection.execute(text("insert into faults_lost values (1)"))
                await connection.commit()
                proxy.cut(rst=False)
                if own:
                    raise KeyError
        async with engine.connect() as connection:
            assert (await connection.execute(text("select 7"))).scalar() == 7
        await engine.dispose()
