"""Packages that build on SQLAlchemy's async layer, with ours in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import text

import forebay
from tests.support.availability import require

Script = Callable[[str], str]

SQLMODEL = """
    import asyncio, warnings
    import forebay
    import sqlalchemy.ext.asyncio
    {before}
    from sqlmodel import Field, SQLModel, select
    from sqlmodel.ext.asyncio.session import AsyncSession
    {after}
    from forebay import async_sessionmaker, create_async_engine

    class Hero(SQLModel, table=True):
        id: int | None = Field(default=None, primary_key=True)
        name: str

    async def main():
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(Hero(name="a"))
            await session.commit()
        async with async_sessionmaker(engine, class_=AsyncSession)() as session:
            assert type(session) is AsyncSession
            assert (await session.exec(select(Hero))).one().name == "a"
            assert type(await session.connection()) is {connection}
        await engine.dispose()

    asyncio.run(main())
"""


# What each program does with forebay before and after SQLModel is imported, and the class of a session's connection.
SQLMODEL_PROGRAMS = {
    "no install": ("", "", "sqlalchemy.ext.asyncio.AsyncConnection"),
    "install first": ("forebay.install()", "", "forebay.AsyncConnection"),
    "install last": ("", "warnings.simplefilter('ignore'); forebay.install()", "forebay.AsyncConnection"),
}


@pytest.mark.long
@pytest.mark.parametrize("program", SQLMODEL_PROGRAMS)
def test_sqlmodel_works_whenever_it_was_imported(script: Script, program: str) -> None:
    """Goal: the order of imports makes a difference in classes, never in results.

    Method: one program, without install(), and with it before and after the import of SQLModel.
    """
    require("sqlmodel")
    before, after, connection = SQLMODEL_PROGRAMS[program]
    script(SQLMODEL.format(before=before, after=after, connection=connection))


async def test_a_tool_that_wraps_sqlalchemys_factory_sees_our_engines(
    aiosqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: instrumentation by attribute (OpenTelemetry, Datadog, Sentry) works without `install()`.

    Method: wrap as they do after our import, make an engine of ours.
    """
    seen: list[Any] = []
    wrapped = stock.create_async_engine

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        engine = wrapped(*args, **kwargs)
        seen.append(engine.sync_engine)
        return engine

    monkeypatch.setattr(stock, "create_async_engine", wrapper)
    engine = forebay.create_async_engine(aiosqlite_url)
    assert seen == [engine.sync_engine]
    assert type(engine) is forebay.AsyncEngine
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


def test_opentelemetry_traces_our_engine(script: Script) -> None:
    """Goal: the real instrumentation, which wraps that factory and listens on its engine. Method: count spans."""
    require("opentelemetry")
    pytest.importorskip(
        "opentelemetry.instrumentation.sqlalchemy", reason="the instrumentation is a package of its own"
    )
    printed = script("""
        import warnings; warnings.simplefilter("ignore")
        import asyncio
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
        from opentelemetry.trace import NoOpTracer, NoOpTracerProvider
        from forebay import create_async_engine
        from sqlalchemy import text

        names = []
        class Tracer(NoOpTracer):
            def start_span(self, name, *args, **kwargs):
                names.append(name)
                return super().start_span(name, *args, **kwargs)
            def start_as_current_span(self, name, *args, **kwargs):
                names.append(name)
                return super().start_as_current_span(name, *args, **kwargs)
        class Provider(NoOpTracerProvider):
            def get_tracer(self, *args, **kwargs):
                return Tracer()

        # It declares itself for SQLAlchemy below 2.1.
        SQLAlchemyInstrumentor().instrument(tracer_provider=Provider(), skip_dep_check=True)
        async def main():
            engine = create_async_engine("sqlite+aiosqlite://")
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            await engine.dispose()
        asyncio.run(main())
        print(*names)
    """)
    assert "connect" in printed.split()
    assert "SELECT" in printed.split()


def test_advanced_alchemy_takes_our_engine_and_sessions(script: Script) -> None:
    """Goal: repositories of advanced-alchemy on our objects. Method: its config with our instances, add and list."""
    require("advanced_alchemy")
    script("""
        import warnings; warnings.simplefilter("ignore")
        import asyncio
        from advanced_alchemy.base import BigIntBase
        from advanced_alchemy.config import SQLAlchemyAsyncConfig
        from advanced_alchemy.repository import SQLAlchemyAsyncRepository
        from sqlalchemy.orm import Mapped
        from forebay import async_sessionmaker, create_async_engine

        class Thing(BigIntBase):
            name: Mapped[str]

        class Things(SQLAlchemyAsyncRepository[Thing]):
            model_type = Thing

        async def main():
            engine = create_async_engine("sqlite+aiosqlite://")
            config = SQLAlchemyAsyncConfig(engine_instance=engine, session_maker=async_sessionmaker(engine))
            async with engine.begin() as connection:
                await connection.run_sync(BigIntBase.metadata.create_all)
            async with config.get_session() as session:
                await Things(session=session).add(Thing(name="a"), auto_commit=True)
                assert (await Things(session=session).get_one(name="a")).name == "a"
            await engine.dispose()
        asyncio.run(main())
    """)
