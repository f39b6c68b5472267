"""Running a command's coroutine so that Ctrl-C stops the work and the clean-up still happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from forebay.cli.errors import Interrupted

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a fresh event loop.

    SIGINT and SIGTERM cancel it once; pressing Ctrl-C again only says that the clean-up is on its way, because a second
    cancel would leave tables behind. Clean-up code must therefore be bounded in time.

    Raises:
        Interrupted: A signal ended the run and the clean-up went through.
    """
    received: list[int] = []

    async def supervised() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(main)

        def on_signal(number: int) -> None:
            if received:
                print("forebay: still cleaning up, a moment please", file=sys.stderr)
                return
            received.append(number)
            print("forebay: stopping, cleaning up", file=sys.stderr)
            task.cancel()

        handled: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows' loops have no signal handlers: there asyncio.run() itself cancels on Ctrl-C.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, on_signal, number)
                handled.append(number)
        try:
            return await task
        finally:
            for each in handled:
                loop.remove_signal_handler(each)

    try:
        return asyncio.run(supervised())
    except (asyncio.CancelledError, KeyboardInterrupt):
        by = received[0] if received else int(signal.SIGINT)
        raise Interrupted("interrupted; everything this run made has been removed", by) from None
