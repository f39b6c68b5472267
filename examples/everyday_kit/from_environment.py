"""Engine and pool from environment variables: DATABASE_URL (or DB_HOST, DB_NAME, …) and DB_POOL_SIZE, …"""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from forebay import settings_from_env


async def main() -> None:
    settings = settings_from_env()
    print(settings)  # the password is not in it
    async with settings.create_engine() as engine, engine.connect() as connection:
        print("answer:", (await connection.execute(text("SELECT 40 + 2"))).scalar_one())


if __name__ == "__main__":
    asyncio.run(main())
