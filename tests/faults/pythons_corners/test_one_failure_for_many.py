"""One connect fails, and the pool tells all who waited for it.

Goal: each caller gets an error of its own, equal to what the driver or the listener raised.
Method: a connect that fails while ten callers wait; what each of them catches is compared.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest

from tests.faults.marks import not_yet

# Nobody connects: what fails is the creator.
URLS = {
    "asyncpg": "postgresql+asyncpg://app@db.invalid/shop",
    "psycopg": "postgresql+psycopg://app@db.invalid/shop",
    "asyncmy": "mysql+asyncmy://app@db.invalid/shop",
    "aiomysql": "mysql+aiomysql://app@db.invalid/shop",
    "aiosqlite": "sqlite+aiosqlite:///unused.db",
}
CALLERS = 10


async def _caught(sa: ModuleType, url: str, failure: Any) -> list[BaseException]:
    """Return what callers that come at the same time catch when every connect ends with `failure()`."""

    async def connect(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)
        raise failure()

    engine = sa.create_async_engine(url, async_creator=connect, pool_size=CALLERS, max_overflow=0)
    caught = await asyncio.gather(*(engine.connect() for _ in range(CALLERS)), return_exceptions=True)
    await engine.dispose()
    assert all(isinstance(error, Exception) for error in caught)
    return caught


def _noted() -> OSError:
    error = OSError(111, "the database is not there")
    error.add_note("tried db-1 and db-2")
    return error


@pytest.mark.parametrize(
    "driver",
    [pytest.param(driver, marks=not_yet("the copies for the callers share one list of notes")) for driver in URLS],
)
async def test_a_note_that_one_caller_adds_is_not_on_the_errors_of_others(sa: ModuleType, driver: str) -> None:
    """A web framework notes the request on the error it is about to report; the log then shows other people's."""
    caught = await _caught(sa, URLS[driver], _noted)
    for number, error in enumerate(caught):
        error.add_note(f"request {number}")
    seen = [[note for note in error.__notes__ if note.startswith("request")] for error in caught]
    assert seen == [[f"request {number}"] for number in range(CALLERS)]


@pytest.mark.parametrize("driver", URLS)
async def test_every_caller_has_a_traceback_of_its_own(sa: ModuleType, driver: str) -> None:
    """A traceback that is shared grows with every caller that raises it."""

    def depth(error: BaseException) -> int:
        count, frame = 0, error.__traceback__
        while frame is not None:
            count, frame = count + 1, frame.tb_next
        return count

    caught = await _caught(sa, URLS[driver], _noted)
    assert len({id(error) for error in caught}) == CALLERS
    assert max(map(depth, caught)) <= min(map(depth, caught)) + 40


class Coded(Exception):
    """An error with a constructor of its own, which only takes a keyword."""

    def __new__(cls, *, code: int) -> Coded:
        return super().__new__(cls)

    def __init__(self, *, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


@not_yet("an error that can only be made with a keyword is not copied, so all callers raise the same object")
async def test_an_error_with_its_own_constructor_is_not_shared_by_all_callers(
    sa: ModuleType,
) -> None:
    caught = await _caught(sa, URLS["asyncpg"], lambda: Coded(code=7))
    assert len({id(error) for error in caught}) == CALLERS


def _read_secret() -> OSError:
    return FileNotFoundError(2, "No such file or directory", "/run/secrets/database")


@pytest.mark.parametrize(
    "driver", [pytest.param(driver, marks=not_yet("the copy of an OSError has no file name")) for driver in URLS]
)
async def test_a_missing_secret_is_reported_with_its_file_name(sa: ModuleType, driver: str) -> None:
    """The creator reads the password from a file that is not there; the error must say which file."""
    caught = await _caught(sa, URLS[driver], _read_secret)
    assert {str(error) for error in caught} == {"[Errno 2] No such file or directory: '/run/secrets/database'"}
