"""What an import of Forebay brings with it, and what it does not."""

from __future__ import annotations

from collections.abc import Callable

Script = Callable[[str], str]

DRIVERS_AND_FRAMEWORKS = [
    *("asyncpg", "psycopg", "asyncmy", "aiomysql", "pymysql", "aiosqlite", "sqlite3", "uvloop"),
    *("fastapi", "starlette", "litestar", "celery", "alembic", "sqlmodel", "opentelemetry", "prometheus_client"),
    *("typer", "rich", "pytest", "hypothesis"),
]


def test_importing_forebay_imports_no_driver_and_no_framework(script: Script) -> None:
    """Goal: the core depends on SQLAlchemy only. Method: look at sys.modules after importing all public names."""
    script(f"""
        import sys
        import forebay
        assert "sqlalchemy" not in sys.modules, "import forebay alone imports nothing"
        from forebay import *
        loaded = set({DRIVERS_AND_FRAMEWORKS!r}) & set(sys.modules)
        assert not loaded, loaded
    """)


def test_importing_the_test_tools_does_not_import_the_engine(script: Script) -> None:
    """Goal: a test suite can start a server before it chooses an engine. Method: look at sys.modules."""
    script("""
        import sys
        import forebay.testing
        loaded = [name for name in sys.modules if name.startswith(("forebay.engine", "forebay.session", "sqlalchemy"))]
        assert not loaded, loaded
    """)


def test_only_the_driver_that_the_url_names_is_imported(script: Script) -> None:
    """Goal: an application pays for one driver. Method: make an engine, look at sys.modules."""
    script(f"""
        import sys
        import forebay
        forebay.create_async_engine("postgresql+asyncpg://host/db")
        loaded = set({DRIVERS_AND_FRAMEWORKS!r}) & set(sys.modules)
        assert loaded == {{"asyncpg"}}, loaded
    """)
