"""The service that hands out tokens hangs, while the token in hand is good for minutes.

Goal: nobody waits for the service.
Method: a callable that answers once and then hangs, on virtual time.
"""

from __future__ import annotations

import asyncio

from forebay.engine.credentials import Credentials
from tests.faults.marks import not_yet, ours_only
from tests.support.clock import run_virtual


@ours_only
@not_yet(
    "from a fifth before its end on, every connect waits for a new token, up to timeout_s, with a good one in hand"
)
def test_a_token_service_that_hangs_delays_no_connect_while_the_token_is_good() -> None:
    async def work() -> float:
        asked = 0

        async def token() -> str:
            nonlocal asked
            asked += 1
            if asked > 1:
                await asyncio.Event().wait()
            return "a token"

        loop = asyncio.get_running_loop()
        credentials = Credentials(token, valid_for_s=900, timeout_s=30, clock=loop.time)
        await credentials.get()
        await asyncio.sleep(730)
        began = loop.time()
        assert (await credentials.get()).password == "a token"
        waited = loop.time() - began
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return waited

    assert run_virtual(work()) < 1


@ours_only
@not_yet("each connect asks a service that has just failed to answer again, and waits for as long again")
def test_a_service_that_timed_out_a_moment_ago_is_not_waited_for_again() -> None:
    async def work() -> float:
        asked = 0

        async def token() -> str:
            nonlocal asked
            asked += 1
            if asked > 1:
                await asyncio.Event().wait()
            return "a token"

        loop = asyncio.get_running_loop()
        credentials = Credentials(token, valid_for_s=900, timeout_s=10, clock=loop.time)
        await credentials.get()
        await asyncio.sleep(730)
        await credentials.get()
        began = loop.time()
        await credentials.get()
        waited = loop.time() - began
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return waited

    assert run_virtual(work()) < 1
