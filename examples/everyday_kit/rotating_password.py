"""A password from a callable: asked once for the connections opened together, and again before it expires."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy import URL, text

from forebay import Credential, async_url, create_async_engine

given = async_url(os.environ["DATABASE_URL"])
# The address without the password, as a configuration would have it where passwords rotate.
address = URL.create(given.drivername, given.username, None, given.host, given.port, given.database, given.query)
calls = 0


async def from_the_secret_store() -> Credential:
    """Stand for a call to Vault, AWS or Azure."""
    global calls
    calls += 1
    await asyncio.sleep(0)
    return Credential(str(given.password or ""), valid_for_s=900)


async def main() -> None:
    async with create_async_engine(address, credentials=from_the_secret_store, pool_size=5) as engine:
        await engine.warm_up()
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        print(f"5 connections, {calls} call for the password")


if __name__ == "__main__":
    asyncio.run(main())
