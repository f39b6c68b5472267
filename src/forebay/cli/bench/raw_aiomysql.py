"""The operations by aiomysql alone, through its own pool."""

from __future__ import annotations

from typing import Any

import aiomysql

from forebay.cli.bench._mysql_pool import mysql_contender
from forebay.cli.bench.contender import Contender


async def open_raw(arguments: list[Any], keywords: dict[str, Any], size: int) -> Contender:
    """Open ``size`` connections.

    Args:
        arguments: Positional arguments of the driver's ``connect``.
        keywords: Its keywords.
        size: Number of connections.
    """
    keywords |= {"minsize": size, "maxsize": size, "autocommit": True}
    pool = await aiomysql.create_pool(*arguments, **keywords)
    return mysql_contender(pool, "aiomysql's pool; no transaction (autocommit)")
