"""Passwords that change: from a callable, asked early and once, instead of from the URL.

::

    engine = create_async_engine("postgresql+asyncpg://app@db.example/shop", credentials=iam_token)

A token of AWS IAM opens connections for 15 minutes, one of Azure or Google for an hour; a secret store rotates when it
likes. The callable is asked when a connection is opened and what it said last is about to expire. Connects that happen
at once share one call. A login that the server refuses asks again, so a rotation goes unnoticed.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.engine import Engine

from forebay._sqlalchemy.greenlets import await_
from forebay._watchdog import Limit
from forebay.errors import InvalidOptionError

__all__ = ["Credential", "Credentials"]

_log = logging.getLogger("forebay.credentials")

#: PostgreSQL's class "invalid authorization"; MySQL: access denied, no such user, password expired.
_REFUSED_STATE: Final = "28"
_REFUSED_NUMBERS: Final = frozenset((1045, 1698, 1862))
#: psycopg raises what failed before the session began without a code.
_REFUSED_TEXT: Final = re.compile(
    r"authentication failed|no password supplied|password is invalid|token.* expired", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a callable returns when a password alone does not say it all.

    Attributes:
        password: The password or token.
        username: Whom it is for; None for the user name in the URL.
        valid_for_s: Seconds from now for which it opens connections, > 0; None for what ``Credentials`` says.
    """

    password: str
    username: str | None = None
    valid_for_s: float | None = None

    def __repr__(self) -> str:
        return f"<Credential for {self.username or 'the user of the URL'}>"


#: A callable, synchronous or not, that returns a password or a ``Credential``.
Fetch = Callable[[], "str | Credential | Awaitable[str | Credential]"]


@dataclass(frozen=True, slots=True)
class _Held:
    credential: Credential
    renew_at: float
    expires_at: float


class Credentials:
    """A callable for passwords, with how long what it returns is good for.

    Args:
        fetch: Called without arguments; returns a password, a :class:`Credential`, or an awaitable of one. A function
            that is not ``async`` runs in a thread, so that the event loop goes on.
        valid_for_s: Seconds for which a password is good, > 0, where the callable does not say. The default is 15
            minutes, the life of an IAM token of RDS, the shortest of the usual ones.
        renew_before_s: Seconds before that at which it is asked for anew, ≥ 0; None for a fifth of the validity. If
            the call fails then, the password in hand is used as long as it is valid.
        timeout_s: Longest one call may take, in seconds, > 0.

    Raises:
        forebay.errors.InvalidOptionError: A number is out of bounds, or ``fetch`` cannot be called.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        valid_for_s: float = 900.0,
        renew_before_s: float | None = None,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        wrong = list(_problems(fetch, valid_for_s, renew_before_s, timeout_s))
        if wrong:
            raise InvalidOptionError(*wrong)
        self._fetch = fetch
        self._valid_for_s = valid_for_s
        self._renew_before_s = renew_before_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._held: _Held | None = None
        # By event loop, for an awaitable belongs to one. No lock: a child forked while another thread holds it could
        # never connect. A key is used by its own loop's thread only, and a credential forgotten too much is asked for.
        self._fetching: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[_Held]]
        self._fetching = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        held = self._held
        state = "none yet" if held is None else f"valid for {max(0.0, held.expires_at - self._clock()):.0f} s"
        return f"<Credentials {state}>"

    def in_hand(self) -> Credential | None:
        """Return the credential in hand, or None where it must be asked for: there is none, or it expires soon."""
        held = self._held
        return held.credential if held is not None and self._clock() < held.renew_at else None

    async def get(self) -> Credential:
        """Return a credential that is valid for a while, asking for one where needed.

        Raises:
            Exception: What the callable raised.
            TimeoutError: It took longer than ``timeout_s``.

        Cancellation: safe; a call under way goes on for whoever else waits for it.
        """
        found = self.in_hand()
        if found is not None:
            return found
        task = self._task()
        try:
            return (await asyncio.shield(task)).credential
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if task.cancelled() and (current is None or not current.cancelling()):
                raise ConnectionError("the call for credentials was cancelled from within") from None
            raise
        except Exception as error:
            held = self._held
            if held is None or self._clock() >= held.expires_at:
                raise
            # By its type: the text is the callable's, and may hold what it was given.
            _log.warning(
                "renewing the credentials failed (%s); those in hand are valid for %.0f s more",
                type(error).__name__,
                held.expires_at - self._clock(),
            )
            return held.credential

    def forget(self, credential: Credential) -> None:
        """Have the next connect ask anew, if ``credential`` is still the one in hand: the server has refused it."""
        held = self._held
        if held is not None and held.credential is credential:
            self._held = None

    def _task(self) -> asyncio.Task[_Held]:
        loop = asyncio.get_running_loop()
        task = self._fetching.get(loop)
        if task is None or task.done():
            task = self._fetching[loop] = loop.create_task(self._ask(), name="forebay-credentials")
            task.add_done_callback(_retrieve)
        return task

    async def _ask(self) -> _Held:
        asked_at = self._clock()
        limit = Limit(self._timeout_s)
        try:
            async with limit:
                answer = await _called(self._fetch)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"no credentials within {self._timeout_s:g} s") from None
        credential = Credential(answer) if isinstance(answer, str) else answer
        if not isinstance(credential, Credential):
            raise TypeError(f"credentials: the callable must return a str or a Credential, not {type(answer).__name__}")
        valid_for = credential.valid_for_s if credential.valid_for_s is not None else self._valid_for_s
        before = self._renew_before_s if self._renew_before_s is not None else valid_for / 5
        held = _Held(credential, asked_at + valid_for - min(before, valid_for), asked_at + valid_for)
        self._held = held
        return held


def attach(engine: Engine, credentials: Credentials | Fetch) -> None:
    """Make every new connection of ``engine`` log in with what ``credentials`` says.

    Args:
        engine: An engine that has opened nothing yet, with a dialect of a database that has logins.
        credentials: The callable, or one with how long its answers are valid.

    Raises:
        forebay.errors.InvalidOptionError: It cannot be called.
    """
    source = credentials if isinstance(credentials, Credentials) else Credentials(credentials)
    dialect: Any = engine.dialect
    plain = dialect.connect

    def login(credential: Credential, positional: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        arguments = {**arguments, "password": credential.password}
        if credential.username is not None:
            arguments["user"] = credential.username
        return plain(*positional, **arguments)

    def connect(*positional: Any, **arguments: Any) -> Any:
        credential = source.in_hand()
        if credential is not None:
            try:
                return login(credential, positional, arguments)
            except Exception as error:
                if not is_refused_login(error):
                    raise
            # Rotated before its time. One more login, with a new one, in the same connect.
            source.forget(credential)
        credential = await_(source.get())
        try:
            return login(credential, positional, arguments)
        except Exception as error:
            if is_refused_login(error):
                source.forget(credential)
            raise

    # After do_connect listeners, which may change the rest, and for every way of connecting: the engine asks the
    # dialect by attribute.
    dialect.connect = connect


def is_refused_login(error: BaseException) -> bool:
    """Tell whether ``error`` means that the server was reached and did not accept user or password."""
    for _ in range(8):  # bounded: a cycle of causes is legal in Python
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if isinstance(state, str):
            return state.startswith(_REFUSED_STATE)
        if error.args and error.args[0] in _REFUSED_NUMBERS:
            return True
        if not isinstance(error, OSError) and _REFUSED_TEXT.search(str(error)):
            return True
        inner = getattr(error, "orig", None) or error.__cause__
        if not isinstance(inner, BaseException):
            return False
        error = inner
    return False


async def _called(fetch: Fetch) -> Any:
    call = getattr(fetch, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    if inspect.iscoroutinefunction(fetch) or inspect.iscoroutinefunction(call):
        answer: Any = fetch()
    else:
        answer = await asyncio.to_thread(fetch)
    return await answer if inspect.isawaitable(answer) else answer


def _retrieve(task: asyncio.Task[_Held]) -> None:
    # Whoever waited may have been cancelled; the failure is nobody's then, and the next connect asks again.
    if not task.cancelled():
        task.exception()


def _problems(fetch: object, valid_for_s: float, renew_before_s: float | None, timeout_s: float) -> Iterator[str]:
    if not callable(fetch):
        yield f"credentials must be a callable that returns a password, not {type(fetch).__name__}"
    if not valid_for_s > 0:
        yield f"valid_for_s={valid_for_s!r}: must be more than 0 seconds"
    if renew_before_s is not None and not 0 <= renew_before_s < valid_for_s:
        yield f"renew_before_s={renew_before_s!r}: must be at least 0 seconds and less than valid_for_s={valid_for_s!r}"
    if not timeout_s > 0:
        yield f"timeout_s={timeout_s!r}: must be more than 0 seconds"
