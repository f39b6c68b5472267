"""A storefront: sessions per request, the commit before the response, health routes, warm-up and drain.

``uvicorn app:app --workers 4`` after ``python create_tables.py``; see README.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Annotated
from uuid import uuid4

from database import ReadSession, Session, engine
from fastapi import FastAPI, HTTPException, Request, Response
from models import Line, Order, Product
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import selectinload

from forebay import AsyncSession
from forebay.integrations.fastapi import exception_handlers, health_router, lifespan, session_dependency

SessionDep = Annotated[AsyncSession, session_dependency(Session)]
ReadSessionDep = Annotated[AsyncSession, session_dependency(ReadSession)]

# How long the pretended payment provider takes, in seconds.
PAYMENT_S = float(os.environ.get("PAYMENT_S", "0.2"))

app = FastAPI(title="Storefront", lifespan=lifespan(engine, drain_s=10), exception_handlers=exception_handlers())
app.include_router(health_router(engine))


class NewLine(BaseModel):
    """A line of an order to be made."""

    product_id: int
    quantity: int = 1


class NewOrder(BaseModel):
    """An order to be made."""

    reference: str
    lines: list[NewLine]


class OrderOut(BaseModel):
    """An order as the client sees it."""

    id: int
    reference: str
    status: str
    products: list[str]


@app.middleware("http")
async def name_the_request(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Put a request id on every response."""
    response = await call_next(request)
    response.headers["X-Request-ID"] = request.headers.get("X-Request-ID", str(uuid4()))
    return response


@app.get("/products")
async def products(session: ReadSessionDep) -> list[str]:
    """List what is for sale."""
    return list(await session.scalars(select(Product.name).order_by(Product.id)))


@app.post("/orders", status_code=201)
async def create_order(new: NewOrder, session: SessionDep) -> int:
    """Make an order. The 201 goes out when the database has committed it, and not before."""
    order = Order(reference=new.reference, lines=[Line(**line.model_dump()) for line in new.lines])
    session.add(order)
    await session.flush()
    return order.id


@app.get("/orders/{order_id}")
async def order(order_id: int, session: ReadSessionDep) -> OrderOut:
    """Show an order with its products."""
    found = await session.get(Order, order_id, options=[selectinload(Order.lines).selectinload(Line.product)])
    if found is None:
        raise HTTPException(404)
    return OrderOut(
        id=found.id,
        reference=found.reference,
        status=found.status,
        products=[line.product.name for line in found.lines],
    )


@app.post("/orders/{order_id}/pay")
async def pay(order_id: int) -> str:
    """Pay an order: two transactions with the provider's answer between them, and no connection held meanwhile."""
    async with Session() as session:
        if await session.get(Order, order_id) is None:
            raise HTTPException(404)
    await asyncio.sleep(PAYMENT_S)
    async with Session.begin() as session:
        found = await session.get_one(Order, order_id, with_for_update=True)
        found.status = "paid"
    return "paid"
