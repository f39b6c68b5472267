"""The storefront: customers, their orders, the order lines, and sales per product."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import BigInteger, Enum, ForeignKey, String
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(AsyncAttrs, DeclarativeBase):
    """Declarative base of the demo; its metadata lists exactly the tables the demo makes."""


class OrderStatus(enum.Enum):
    """Where an order stands."""

    PLACED = "placed"
    PAID = "paid"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class Customer(Base):
    """Somebody who orders."""

    __tablename__ = "forebay_demo_customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120), unique=True)
    region: Mapped[str] = mapped_column(String(20))

    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    """One order; ``total_cents`` is always the sum of its lines."""

    __tablename__ = "forebay_demo_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    #: What the customer sees; given by the shop before the database has given an id.
    number: Mapped[int] = mapped_column(unique=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id), index=True)
    # Not a native enum: that would be one more object in the database to make and to remove.
    status: Mapped[OrderStatus] = mapped_column(Enum(OrderStatus, native_enum=False, length=16))
    placed_at: Mapped[datetime] = mapped_column(index=True)
    total_cents: Mapped[int]
    #: Counts the updates; the check at the end adds it up.
    revision: Mapped[int] = mapped_column(default=0)

    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list[OrderLine]] = relationship(back_populates="order", cascade="all, delete-orphan")


class OrderLine(Base):
    """One position of an order."""

    __tablename__ = "forebay_demo_order_line"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), index=True)
    sku: Mapped[str] = mapped_column(String(20))
    quantity: Mapped[int]
    unit_cents: Mapped[int]

    order: Mapped[Order] = relationship(back_populates="lines")


class Sales(Base):
    """Units and revenue per product, kept up to date by upserts."""

    __tablename__ = "forebay_demo_sales"

    sku: Mapped[str] = mapped_column(String(20), primary_key=True)
    units: Mapped[int] = mapped_column(BigInteger)
    revenue_cents: Mapped[int] = mapped_column(BigInteger)
