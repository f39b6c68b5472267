"""Engine options for a kind of hosting: python hosted.py neon"""

from __future__ import annotations

import asyncio
import os
import sys

from sqlalchemy import text

from forebay import async_url, create_async_engine, preset
from forebay.engine.presets import PRESETS


async def main(name: str) -> None:
    url = async_url(os.environ["DATABASE_URL"])
    for value in PRESETS[name].values:
        print(f"{value.keyword} = {value.value!r}: {value.reason}")
    async with create_async_engine(url, **preset(name, url)) as engine, engine.connect() as connection:
        print("answer:", (await connection.execute(text("SELECT 40 + 2"))).scalar_one())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "plain"))
