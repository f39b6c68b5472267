"""What a process has one of: logging, warning filters, signal handlers, the event loop's policy, hooks.

Goal: importing us, making engines and using them leaves all of it as it was.
Method: everything looked at before and after, in a process of its own, with each driver.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.faults.marks import ours_only

_PROGRAM = """
    import asyncio, gc, logging, signal, sys, threading, warnings
    import sqlalchemy.ext.asyncio
    import asyncpg, psycopg, asyncmy, aiomysql, aiosqlite

    def everything():
        loggers = {
            name: (logger.level, list(logger.handlers), logger.propagate, logger.disabled, list(logger.filters))
            for name, logger in [("", logging.root), *logging.root.manager.loggerDict.items()]
            if isinstance(logger, logging.Logger) and not name.startswith("forebay")
            and (logger.handlers or logger.level or logger.filters or not logger.propagate)
        }
        return {
            "loggers": loggers, "logger class": logging.getLoggerClass(), "factory": logging.getLogRecordFactory(),
            "filters": list(warnings.filters), "showwarning": warnings.showwarning,
            "signals": [signal.getsignal(number) for number in signal.valid_signals()],
            "policy": type(asyncio.get_event_loop_policy()), "excepthook": sys.excepthook,
            "unraisable": sys.unraisablehook, "thread hook": threading.excepthook, "trace": sys.gettrace(),
            "profile": sys.getprofile(), "recursion": sys.getrecursionlimit(),
            "gc": (gc.isenabled(), gc.get_threshold()),
            "switch": sys.getswitchinterval(), "path": list(sys.path), "meta": list(sys.meta_path),
            "asyncgen": sys.get_asyncgen_hooks(), "displayhook": sys.displayhook, "callbacks": list(gc.callbacks),
        }

    before = everything()
    import forebay

    async def main():
        engine = forebay.create_async_engine("sqlite+aiosqlite://")
        async with engine.begin() as connection:
            await connection.exec_driver_sql("SELECT 1")
        await engine.dispose()

    for url in ("postgresql+asyncpg://a@h/d", "postgresql+psycopg://a@h/d", "mysql+asyncmy://a@h/d",
                "mysql+aiomysql://a@h/d"):
        forebay.create_async_engine(url)
    asyncio.run(main())
    after = everything()
    print([name for name in before if before[name] != after[name]])
"""


@pytest.mark.slow
@ours_only
def test_nothing_global_is_changed_by_using_us() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
