"""Engine and sessions of the storefront; settings come from the environment."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import make_url

from forebay import async_sessionmaker, create_async_engine, read_only

APPLICATION_NAME = "storefront"


def _options(url: str) -> dict[str, Any]:
    driver = make_url(url).get_driver_name()
    if driver == "asyncpg":
        return {"connect_args": {"server_settings": {"application_name": APPLICATION_NAME}}}
    if driver == "psycopg":
        return {"connect_args": {"application_name": APPLICATION_NAME}}
    return {}


URL = os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///storefront.sqlite")
POOL_SIZE = int(os.environ.get("DB_POOL_SIZE", "5"))

# Nothing is opened here: an engine at module level is fine, before a fork too.
engine = create_async_engine(URL, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=5, **_options(URL))
Session = async_sessionmaker(engine, expire_on_commit=False)
ReadSession = read_only(Session)
