"""The protocol between asyncpg's and its transport: it sends our BEGIN and ROLLBACK, and swallows their replies.

BEGIN is held back until asyncpg writes, and goes out in front of that in the same write: Parse, Bind and Execute in the
extended protocol, then Flush and no Sync. So it forms one group with the statement, and when BEGIN fails the server
skips the statement; asyncpg gets the true error. (As a simple query BEGIN could fail and the statement run all the
same, in autocommit.) Because of Flush its answer comes before the statement's, however slow that is: it
tells that the server is there.

ROLLBACK is sent at once. Held back here until the next write it would save a packet, and a program that blocks its
event loop right after a block would keep the block's locks, for ever if it waits for one of them. Where somebody else
is about to write it is held back by the kernel instead, which lets go of it after 0.2 s whatever the program does. The
server's process is then woken once and not twice, the dearest part of a send.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

from forebay._watchdog import Watchdog
from forebay.dialects._adapter import readable
from forebay.dialects._asyncpg.replies import Begin, Replies, ReplyError

__all__ = ["Rider", "rider_for"]

# "More follows": Linux keeps a partial packet for 0.2 s then.
_MORE: int | None = getattr(socket, "MSG_MORE", None)

_log = logging.getLogger("forebay.dialects.asyncpg")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


_BIND_EXECUTE_FLUSH = _message(b"B", b"\0" * 8) + _message(b"E", b"\0" * 5) + _message(b"H", b"")
_ROLLBACK = _message(b"Q", b"ROLLBACK\0")
# What asyncpg writes ends in Sync, answered in the end by ReadyForQuery, or in Flush, answered without one; or it is a
# simple query, which is answered like Sync.
_SYNC, _FLUSH = _message(b"S", b""), _message(b"H", b"")
_QUERY = b"Q"

_WRITES = ("write", "writelines")

_begins: dict[str, bytes] = {}


def _begin_message(sql: str) -> bytes:
    message = _begins.get(sql)
    if message is None:
        message = _begins[sql] = _message(b"P", b"\0" + sql.encode() + b"\0\0\0") + _BIND_EXECUTE_FLUSH
    return message


class Rider(asyncio.Protocol):
    """Stands between the transport and asyncpg's protocol of one connection.

    Attributes:
        asked: How often a ReadyForQuery was asked for, by asyncpg or by us. Data of a COPY may look as if it asked.
        late: The server was given up because BEGIN was not answered within its bound.
        fault: What was wrong with the server's replies, if something was.
    """

    __slots__ = (
        "_before",
        "_begin",
        "_begun_at",
        "_bound_s",
        "_connection",
        "_held_by_kernel",
        "_inner",
        "_loop",
        "_mute",
        "_ours",
        "_rollback_at",
        "_transport",
        "_watchdog",
        "_write",
        "asked",
        "fault",
        "late",
        "replies",
    )

    def __init__(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._inner: Any = connection._protocol
        # Whoever opened it may have given up a query of its own. In all other cases asyncpg has read what it asked for.
        self.replies = Replies(lost=self._inner._is_cancelling())
        self.asked = 0
        # What that was when the last BEGIN was sent.
        self._begun_at = 0
        self.late = False
        self.fault: ReplyError | None = None
        self._transport: Any = connection._transport
        self._loop = loop
        self._write: Any = self._transport.write
        # What others have put there, to be put back.
        self._before = {name: vars(self._transport)[name] for name in _WRITES if name in vars(self._transport)}
        self._ours = {"write": self.write, "writelines": self.writelines}
        self._begin = b""
        self._bound_s: float | None = None
        self._rollback_at = 0.0
        self._mute = False
        self._held_by_kernel = False
        self._watchdog: Watchdog | None = None
        # asyncpg keeps the transport it was given, so its writes are met at the transport.
        vars(self._transport).update(self._ours)
        self._transport.set_protocol(self)

    # -- what the adapter asks -----------------------------------------------------------------------------------------

    @property
    def told(self) -> bool:
        """Whether what asyncpg believes of the transaction is true."""
        return self.replies.told

    @property
    def can_send(self) -> bool:
        """Whether a command of ours may be sent; asyncpg must have no operation under way."""
        # While asyncpg cancels a query it holds its own next operation back, and ours would overtake it: the cancel
        # request could hit it.
        return (
            self.replies.framed
            and self.fault is None
            and self._meets_all()
            and not self._inner._is_cancelling()
            and self._inner.is_connected()
        )

    def _meets_all(self) -> bool:
        """Tell whether nobody has put something of his own in our place, so that writes and replies pass by us."""
        return self._transport.write is self._ours.get("write") and self._transport.get_protocol() is self

    @property
    def begin_is_held(self) -> bool:
        """Whether BEGIN has not been written yet."""
        return bool(self._begin)

    @property
    def begin_unanswered(self) -> bool:
        """Whether the server has not answered BEGIN: nothing that follows it can have had an effect that lasts."""
        return bool(self._begin) or self.replies.begin is Begin.SENT

    def begin(self, sql: str, bound_s: float | None) -> None:
        """Send ``sql`` in front of what asyncpg writes next.

        Args:
            sql: The text of BEGIN.
            bound_s: Seconds from sending it in which it must be answered, or the connection is dropped, > 0; None for
                no bound.
        """
        self._begin = _begin_message(sql)
        self._bound_s = bound_s
        self.replies.begin = Begin.NONE

    def forget_begin(self) -> bool:
        """Take a BEGIN back that was not written; return whether there was one."""
        held, self._begin = self._begin, b""
        return bool(held)

    def roll_back(self, *, passed_on: bool) -> None:
        """Send ROLLBACK and do not wait for the reply.

        Args:
            passed_on: Somebody waits for the connection, so what comes next will be written in the loop's next turn.
                Where the kernel can, it sends both as one packet.
        """
        self.replies.rollback_sent()
        self.asked += 1
        self._rollback_at = self._loop.time()
        if not (passed_on and self._send_with_next(_ROLLBACK)):
            self._write(_ROLLBACK)

    def _send_with_next(self, data: bytes) -> bool:
        """Give ``data`` to the kernel, to be sent with what is written next; return whether that was possible."""
        transport = self._transport
        # asyncio's own transport has it, unencrypted; others have not.
        raw = getattr(transport, "_sock", None)
        if _MORE is None or raw is None or transport.get_write_buffer_size():
            return False
        try:
            sent = raw.send(data, _MORE)
        except OSError:
            return False  # full, or broken: the transport knows what to do
        if sent < len(data):
            self._write(data[sent:])
        else:
            self._held_by_kernel = True
            # In the turn after the next: the one who waits has written by then, or will not so soon.
            self._loop.call_soon(self._loop.call_soon, self._push)
        return True

    def _push(self) -> None:
        if self._held_by_kernel:
            self._held_by_kernel = False
            with contextlib.suppress(OSError):  # closed meanwhile, which sends it too
                # Said again, it sends what is held.
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def answered(self, asked: int) -> None:
        """Take note that an operation of asyncpg's that ends with a ReadyForQuery has come to its end.

        Args:
            asked: What :attr:`asked` was before it.
        """
        # If more than that was asked for, what came last may be part of another answer; and a BEGIN that went out
        # behind it has not been answered by it.
        if self.asked == asked + 1 and self._begun_at <= asked:
            self.replies.answered()

    def overdue(self, bound_s: float) -> bool:
        """Tell whether a ROLLBACK was sent more than ``bound_s`` seconds ago, and nothing has come since."""
        return (
            self.replies.pending
            and self.replies.begin is not Begin.SENT
            and self._loop.time() - self._rollback_at > bound_s
            # After a stall of the loop the answer is there, and has not been read.
            and not readable(self._transport.get_extra_info("socket").fileno())
        )

    def tell(self, *, in_transaction: bool) -> bool:
        """Make asyncpg believe what is true of the transaction, without asking the server.

        asyncpg learns it from the ReadyForQuery that ends a query, and nowhere else. So it is let send a query that
        goes nowhere, and given the answer.

        Returns:
            Whether that was possible. Not while asyncpg is busy, a query that was given up included: it is about to
            learn it by itself. And not where it may have part of a message already: the answer would become part of it.
        """
        if not self.replies.between or self._inner._is_cancelling():
            return False
        question = self._inner.query("SELECT", None)
        self._mute = True
        try:
            waiter = question.send(None)
        except Exception:
            return False  # another operation is in progress, or the connection is closed
        finally:
            self._mute = False
        # It would run later, and stop the timeout of the operation that is under way then.
        waiter.remove_done_callback(self._inner._on_waiter_completed)
        status = b"T" if in_transaction else b"I"
        self._inner.data_received(_message(b"C", b"SELECT\0") + _message(b"Z", status))
        question.close()
        self.replies.told = True
        return True

    # -- the transport's side ------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Stand for the transport's ``write``."""
        if self._mute:
            return
        begin, self._begin = self._begin, b""
        if begin:
            try:
                self.replies.begin_sent()
            except ReplyError as error:
                self._drop(error)
                return
            self._begun_at = self.asked
        end = bytes(data[-len(_SYNC) :])
        if end == _SYNC or data[:1] == _QUERY:
            self.asked += 1
            self.replies.asked(ready=True)
        elif end == _FLUSH:
            self.replies.asked(ready=False)
        if begin:
            data = b"".join((begin, data))
            self._watch()
        self._held_by_kernel = False
        self._write(data)

    def writelines(self, pieces: Any) -> None:
        """Stand for the transport's ``writelines``."""
        self.write(b"".join(pieces))

    def _watch(self) -> None:
        if self._bound_s is not None:
            self._watchdog = Watchdog(self._loop, self._bound_s, self._give_up)

    def _give_up(self) -> None:
        self._watchdog = None
        self.late = True
        self._transport.abort()

    def _end_watch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    # -- the loop's side -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass on what is asyncpg's."""
        replies = self.replies
        if not replies._scripts:
            replies.seen(data)
            self._inner.data_received(data)
            return
        if self.fault is not None:
            return  # the transport had more at hand when it was aborted
        try:
            data = replies.feed(data)
        except ReplyError as error:
            self._drop(error)
            return
        if self._watchdog is not None and replies.begin is not Begin.SENT:
            self._end_watch()
        if data:
            self._inner.data_received(data)

    def _drop(self, error: ReplyError) -> None:
        self.fault = error
        _log.warning("Connection %r is dropped: %s", self._connection, error)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection is gone."""
        self._end_watch()
        # The transport and this object hold each other. What others have put there since is theirs to take away.
        placed = vars(self._transport)
        for name in _WRITES:
            if placed.get(name) is self._ours[name]:
                del placed[name]
                if name in self._before:
                    placed[name] = self._before[name]
        self._ours = {}
        # asyncpg makes it the cause of the error its caller gets.
        self._inner.connection_lost(exc or self.fault)

    def eof_received(self) -> bool | None:
        """Pass on that the server has closed its side."""
        keep: bool | None = self._inner.eof_received()
        return keep

    def pause_writing(self) -> None:
        """Pass on that the write buffer is full."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the write buffer has room again."""
        self._inner.resume_writing()


class _Said:
    """What was logged, once per process."""

    reasons: set[str] = set()  # noqa: RUF012 - the class is the place


def rider_for(connection: Any) -> Rider | None:
    """Put a rider on an asyncpg connection that has the parts; None if it does not take one.

    Then BEGIN is awaited, as SQLAlchemy does it. The reason is logged once.
    """
    try:
        # What asyncpg's own pool hands out is no connection and only looks like one.
        connection._top_xact = connection._top_xact
        before = connection._transport.get_protocol()
        if isinstance(before, Rider):
            before.forget_begin()
            return before  # the connection was ours already, and its reply may still be to come
        if before is not connection._protocol:
            raise TypeError("somebody else reads what its server sends")
        return Rider(connection, asyncio.get_running_loop())
    except (AttributeError, TypeError) as error:
        reason = str(error)
        if reason not in _Said.reasons:
            _Said.reasons.add(reason)
            _log.info(
                "BEGIN is awaited on its own, one round trip more per transaction: this %s of asyncpg offers no way to"
                " send it with the statement (%s)",
                type(connection).__name__,
                reason,
            )
        return None
