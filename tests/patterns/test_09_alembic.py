"""Alembic with its async template: ``env.py`` as ``alembic init -t async`` writes it, one import changed."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from tests.support.availability import require

from .conftest import with_driver

MIGRATION = """
revision = "1"
down_revision = None

import sqlalchemy as sa
from alembic import op


def upgrade():
    op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO things (id) VALUES (7)")


def downgrade():
    op.drop_table("things")
"""


def test_migrations_run_up_and_down(url: str, tmp_path: Path) -> None:
    """Goal: the template works with our import. Method: make it with Alembic's own command, migrate, look, go back."""
    require("alembic")
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, inspect, text

    folder = tmp_path / "migrations"
    config = Config(str(tmp_path / "alembic.ini"))
    command.init(config, str(folder), template="async")
    config.set_main_option("script_location", str(folder))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))

    env = folder / "env.py"
    stock = "from sqlalchemy.ext.asyncio import async_engine_from_config"
    assert stock in env.read_text()
    env.write_text(env.read_text().replace(stock, "from forebay import async_engine_from_config"))
    (folder / "versions" / "1_things.py").write_text(MIGRATION)

    sync = "sqlite" if make_url(url).get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(with_driver(url, sync))
    config.attributes["configure_logger"] = False
    command.upgrade(config, "head")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT id FROM things")) == 7
    command.downgrade(config, "base")
    assert "things" not in inspect(engine).get_table_names()
    engine.dispose()
