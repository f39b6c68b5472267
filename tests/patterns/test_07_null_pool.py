"""An engine without a pool for migrations, beside the pooled one."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table, event, text
from sqlalchemy.pool import NullPool

from forebay import create_async_engine

metadata = MetaData()
Table("things", metadata, Column("id", Integer, primary_key=True))


async def test_migrations_leave_no_connection_behind(url: str) -> None:
    """Goal: NullPool opens one connection per use and closes it. Method: count connects and closes beside a pool's."""
    migrations = create_async_engine(url, poolclass=NullPool)
    app = create_async_engine(url, pool_size=2)
    counts = {"migrations": [0, 0], "app": [0, 0]}
    for name, engine in (("migrations", migrations), ("app", app)):
        for index, what in enumerate(("connect", "close")):

            def count(*_: object, name: str = name, index: int = index) -> None:
                counts[name][index] += 1

            event.listen(engine.sync_engine, what, count)

    for _ in range(3):
        async with migrations.begin() as connection:
            await connection.run_sync(metadata.create_all)
        async with app.connect() as connection:
            await connection.execute(text("SELECT * FROM things"))

    assert type(migrations.pool) is NullPool
    assert counts == {"migrations": [3, 3], "app": [1, 0]}
    await migrations.dispose()
    await app.dispose()
    assert counts == {"migrations": [3, 3], "app": [1, 1]}
