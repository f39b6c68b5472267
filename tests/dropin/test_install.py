"""install() puts our names into SQLAlchemy's namespace and uninstall() takes them out; nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

Script = Callable[[str], str]


def test_after_install_unchanged_imports_get_ours(script: Script) -> None:
    """Goal: code whose imports cannot change is served. Method: import every replaced name as such code does."""
    script("""
        import forebay
        forebay.install()
        from sqlalchemy.ext.asyncio import *
        from sqlalchemy.ext.asyncio import engine, session, scoping
        import sqlalchemy.ext.asyncio as package

        for name in ("AsyncConnection", "AsyncEngine", "AsyncTransaction", "create_async_engine",
                     "async_engine_from_config", "create_async_pool_from_url"):
            assert getattr(package, name) is getattr(engine, name) is getattr(forebay, name), name
        for name in ("AsyncSession", "AsyncSessionTransaction", "async_sessionmaker"):
            assert getattr(package, name) is getattr(session, name) is getattr(forebay, name), name
        assert package.async_scoped_session is scoping.async_scoped_session is forebay.async_scoped_session
        assert scoping.AsyncSession is forebay.AsyncSession
        assert type(create_async_engine("sqlite+aiosqlite://")) is forebay.AsyncEngine
    """)


def test_uninstall_puts_everything_back_as_it_was(script: Script) -> None:
    """Goal: going back is one call. Method: every attribute of every module of SQLAlchemy, before and after."""
    script("""
        import sys
        import sqlalchemy.ext.asyncio, sqlalchemy.orm, forebay._sqlalchemy.namespace
        from forebay import *   # so that the lazy imports are done

        def state():
            return {(name, key): id(value) for name, module in list(sys.modules.items())
                    if name.split(".")[0] == "sqlalchemy" for key, value in vars(module).items()}

        before = state()
        install()
        changed = {key for key, value in state().items() if before.get(key) != value}
        assert changed and {module for module, _ in changed} == {
            "sqlalchemy.ext.asyncio", "sqlalchemy.ext.asyncio.engine", "sqlalchemy.ext.asyncio.session",
            "sqlalchemy.ext.asyncio.scoping"}, changed
        uninstall()
        assert state() == before
    """)


def test_both_can_be_called_again(script: Script) -> None:
    """Goal: a library and its application may both call them. Method: twice each, in turns."""
    script("""
        import forebay, sqlalchemy.ext.asyncio as package
        stock = id(package.create_async_engine)
        forebay.uninstall()
        assert id(package.create_async_engine) == stock
        for _ in range(2):
            forebay.install()
            forebay.install()
            assert package.create_async_engine is forebay.create_async_engine
            forebay.uninstall()
            forebay.uninstall()
            assert id(package.create_async_engine) == stock
    """)


def test_only_modules_of_sqlalchemy_are_patched(script: Script) -> None:
    """Goal: no foreign module is changed under its owner's feet. Method: one that imported the names before."""
    script("""
        import sys, types, warnings
        import sqlalchemy.ext.asyncio as package
        stock = package.create_async_engine
        app = sys.modules["app"] = types.ModuleType("app")
        app.make = stock
        import forebay
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forebay.install()
        assert app.make is stock
    """)


def test_install_names_the_modules_it_comes_too_late_for(script: Script) -> None:
    """Goal: the reader knows which import to move. Method: modules that hold one, two, renamed and no stock names."""
    printed = script("""
        import sys, types, warnings
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
        del AsyncSession, create_async_engine
        import sqlalchemy.ext.asyncio as package

        for name, held in {
            "app.db": {"create_async_engine": package.create_async_engine, "Session": package.AsyncSession},
            "app.web": {"AsyncSession": package.AsyncSession},
            "app.other": {"package": package},
        }.items():
            module = sys.modules[name] = types.ModuleType(name)
            vars(module).update(held)

        import forebay
        from forebay.errors import InstallWarning
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            forebay.install()
            forebay.install()
        [warning] = caught
        assert warning.category is InstallWarning
        assert warning.filename == "<string>", warning.filename
        print(warning.message)
    """)
    assert printed.startswith(
        "forebay.install() came after these modules had imported SQLAlchemy's own names, which they keep: "
        "app.db (AsyncSession, create_async_engine); app.web (AsyncSession). Call forebay.install() before"
    )


def test_an_engine_outlives_uninstall(script: Script) -> None:
    """Goal: uninstalling breaks nothing that was made. Method: use engine and session after it."""
    script("""
        import asyncio, forebay
        from sqlalchemy import text
        forebay.install()
        from sqlalchemy.ext.asyncio import create_async_engine, async_sessionmaker
        engine = create_async_engine("sqlite+aiosqlite://")
        maker = async_sessionmaker(engine)
        forebay.uninstall()

        async def main():
            async with engine.connect() as connection, maker() as session:
                assert type(connection) is forebay.AsyncConnection
                assert type(session) is forebay.AsyncSession
                assert await session.scalar(text("select 1")) == 1
                assert await connection.scalar(text("select 1")) == 1
            await engine.dispose()
        asyncio.run(main())
    """)
