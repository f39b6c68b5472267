"""Create the tables and a few products: ``python create_tables.py``. Once, before the workers start."""

from __future__ import annotations

import asyncio

from database import Session, engine
from models import Base, Product
from sqlalchemy import select


async def main() -> None:
    """Create what is missing."""
    async with engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with Session.begin() as session:
            if await session.scalar(select(Product.id).limit(1)) is None:
                session.add_all(Product(name=f"Product {number}", price=100 * number) for number in range(1, 21))


if __name__ == "__main__":
    asyncio.run(main())
