"""Looking at a server from the outside: what it runs, and whether that has ended, by connections of our own."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import Final

from forebay.testing.servers._base import Server
from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer

__all__ = ["Outside", "new_tag"]

#: A wait for something that must happen, in seconds. Nothing waits so long unless a test fails.
_PATIENCE_S: Final = 30.0
#: How long, and for how many looks, a statement may still be seen before it counts as left behind. Each look is a new
#: session of the server's: a busy machine delays the looks as much as it delays what is waited for.
_LEFT_S: Final = 1.0
_LOOKS: Final = 20

_numbers = itertools.count()


def new_tag() -> str:
    """Return a word by which a statement can be found at the server, put into it as a comment."""
    return f"faults_{os.getpid()}_{next(_numbers)}"


class Outside:
    """Looks at what a server runs.

    Args:
        server: A PostgreSQL or a MariaDB.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.tag = new_tag()

    def sleeping(self, seconds: int = 60) -> str:
        """Return a statement that sleeps at the server and can be found there."""
        function = "pg_sleep" if isinstance(self.server, PostgresServer) else "sleep"
        return f"select {function}({seconds}) /* {self.tag} */"

    def _query(self, sql: str) -> list[tuple[object, ...]]:
        assert isinstance(self.server, (PostgresServer, MariaDBServer))
        return self.server.query(sql)

    def sessions(self, *, asleep: bool = False) -> list[int]:
        """Return the ids of sessions that run something with our tag in its text, or under it as ``application_name``.

        Args:
            asleep: Only those in their sleep.
        """
        if isinstance(self.server, PostgresServer):
            sql = (
                "select pid from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()"
                f" and (query like '%{self.tag}%' or application_name = '{self.tag}')"
                + (" and wait_event = 'PgSleep'" if asleep else "")
            )
        else:
            sql = (
                "select id from information_schema.processlist where command in ('Query', 'Execute')"
                f" and id <> connection_id() and info like '%{self.tag}%'"
                + (" and state = 'User sleep'" if asleep else "")
            )
        return [int(str(number)) for (number,) in self._query(sql)]

    async def until_asleep(self, count: int = 1) -> None:
        """Wait until ``count`` statements of ours are in their sleep.

        Raises:
            TimeoutError: They are not.
        """
        async with asyncio.timeout(_PATIENCE_S):
            while len(await asyncio.to_thread(self.sessions, asleep=True)) < count:
                await asyncio.sleep(0.01)

    def left_running(self) -> int:
        """Return how many statements of ours go on at the server; not those that end now.

        What is found then is stopped.
        """
        since, looks = time.monotonic(), 0
        while found := self.sessions():
            looks += 1
            if looks >= _LOOKS and time.monotonic() - since >= _LEFT_S:
                break
            time.sleep(0.02)
        for number in found:
            self.server.kill_backend(number)  # type: ignore[attr-defined]  # both have it
        return len(found)

    async def still_running(self) -> int:
        """Do as :meth:`left_running`, with the event loop free."""
        return await asyncio.to_thread(self.left_running)
