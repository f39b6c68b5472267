"""``forebay wait URL``: wait until a database accepts connections, for start scripts and containers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from forebay.cli.database import Database

#: Seconds between two attempts: short at first, for a server that is about to be there.
PAUSE_S, PAUSE_MAX_S = 0.1, 2.0
#: Seconds one attempt may take: a host that drops packets must not use up the whole time.
ATTEMPT_S: Final = 5.0


def wait(
    url: Annotated[str, typer.Argument(help="Database URL, in any of the forms the library takes.")],
    timeout: Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait at most; 0: try once.")] = 60.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
) -> None:
    """Wait until a database accepts connections and answers a query.

    Says what it waits for whenever the reason changes. A wrong password or an unknown database is not waited for: that
    does not get better by itself.

    Exit code: 0 it answers, 1 it did not in time or refuses, 2 wrong usage.
    """
    from forebay.cli.any_url import any_database
    from forebay.cli.interrupts import run
    from forebay.cli.output import stderr

    database = any_database(url)
    console = stderr()

    def say(text: str) -> None:
        if not quiet:
            console.print(text, markup=False, soft_wrap=True)

    say(run(wait_for(database, timeout, say)))


async def wait_for(database: Database, timeout_s: float, say: Callable[[str], None]) -> str:
    """Return one line about the server once it answers a query.

    Args:
        database: What to wait for.
        timeout_s: Seconds to wait, ≥ 0; with 0 there is one attempt.
        say: Called with a line whenever the reason changes.

    Raises:
        CliError: It did not answer in time, or refuses for a reason that waiting does not change.

    Cancellation: safe; the attempt under way is given up.
    """
    from sqlalchemy import text
    from sqlalchemy.pool import NullPool

    from forebay.cli.database import open_engine
    from forebay.cli.errors import CliError, is_database_error, reason

    loop = asyncio.get_running_loop()
    start = loop.time()
    pause, last = PAUSE_S, ""
    # A pool would share one failure among attempts; each of these is to see for itself.
    engine = open_engine(database, poolclass=NullPool)
    while True:
        attempt = asyncio.timeout(
            ATTEMPT_S if not timeout_s else min(ATTEMPT_S, max(0.1, start + timeout_s - loop.time()))
        )
        try:
            async with attempt, engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            return f"{database.label} accepts connections, after {loop.time() - start:.1f} s"
        except Exception as error:
            if not is_database_error(error):
                raise
            why = "no answer in time" if attempt.expired() else database.scrub(reason(error))
            if is_hopeless(error):
                raise CliError(f"{database.label}: {why}") from None
        waited = loop.time() - start
        if waited >= timeout_s:
            raise CliError(f"{database.label} did not accept a connection within {timeout_s:g} s: {why}") from None
        if why != last:
            say(f"waiting for {database.label}: {why}")
            last = why
        await asyncio.sleep(min(pause, timeout_s - waited))
        pause = min(pause * 1.5, PAUSE_MAX_S)


def is_hopeless(error: BaseException) -> bool:
    """Tell whether a server that is there has refused us for good: login, database or TLS certificate."""
    import ssl

    from forebay.engine.credentials import is_refused_login

    if is_refused_login(error):
        return True
    found: BaseException | None = error
    for _ in range(8):  # bounded: a cycle of causes is legal in Python
        if found is None:
            return False
        # 3D000: PostgreSQL's unknown database; 1049: MySQL's.
        if getattr(found, "sqlstate", None) == "3D000" or (found.args and found.args[0] == 1049):
            return True
        said = str(found)
        if isinstance(found, ssl.SSLCertVerificationError) or "certificate verify failed" in said:
            return True
        # psycopg gives what failed before the session began no code.
        if "database" in said and "does not exist" in said:
            return True
        found = getattr(found, "orig", None) or found.__cause__
    return False
