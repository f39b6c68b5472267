"""The server's replies to commands the driver knows nothing of: found in the stream, and kept from the driver.

Theory of operation. We write ``BEGIN`` and ``ROLLBACK`` on the driver's connection ourselves, ahead of what the driver
writes. The replies come back in that order, so the messages of ours stand in front of the driver's. For each command of
ours there is a *script*: the message types its reply consists of. While a script is unfinished the stream is cut into
messages; what the script names is swallowed, everything behind the last script is the driver's and not looked at.

PostgreSQL may put parameter changes, notices and notifications (``S``, ``N``, ``A``) anywhere. They are the driver's
at once: swallowing them would lose settings.

Nothing here does I/O, and how the stream is cut into pieces makes no difference.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

__all__ = ["Begin", "Replies", "ReplyError"]

#: Parse, Bind and Execute of BEGIN are answered by ParseComplete, BindComplete, CommandComplete; no ReadyForQuery.
_BEGIN = b"12C"
#: A simple query ROLLBACK is answered by CommandComplete and ReadyForQuery.
_ROLLBACK = b"CZ"

_UNASKED = b"SNA"
_READY = b"Z\x00\x00\x00\x05"
_HEADER = 5
# A piece with more messages is part of a large result. Its end will tell where the stream stands.
_WALK_MAX = 16


class ReplyError(ConnectionError):
    """The server's messages are not the reply to what was sent; the connection cannot be used any more."""


class Begin(Enum):
    """What is known of the last BEGIN.

    Attributes:
        NONE: None was sent, or its outcome was taken note of.
        SENT: It is under way.
        DONE: The server is in the transaction.
        REFUSED: The server answered with an error; the statement behind it was skipped.
    """

    NONE = 0
    SENT = 1
    DONE = 2
    REFUSED = 3


class Replies:
    """Where the stream from the server stands, and which replies in it are not the driver's.

    Attributes:
        begin: What is known of the last BEGIN.
        told: The driver has seen a ReadyForQuery since the last command of ours, so what it believes of the transaction
            is true.
    """

    __slots__ = ("_ahead", "_at", "_rest", "_scripts", "begin", "told")

    def __init__(self) -> None:
        self.begin = Begin.NONE
        self.told = True
        self._scripts: deque[bytes] = deque()
        self._at = 0
        self._rest = b""
        # Bytes of the message under way that are still to come, all of them the driver's; None: not known.
        self._ahead: int | None = 0

    @property
    def pending(self) -> bool:
        """Whether a reply of ours is still to come."""
        return bool(self._scripts)

    @property
    def framed(self) -> bool:
        """Whether the driver's part of the stream is known to stand between two messages.

        True after any operation of the driver, but for this: what came last was more than :data:`_WALK_MAX` messages,
        or ended within a message's first five bytes, and the end of it was no ReadyForQuery. Ask only when the driver
        has no operation under way: within one, data of a row may look like the end of a reply.
        """
        return self._ahead == 0 or bool(self._scripts)

    def begin_sent(self) -> None:
        """Take note that BEGIN was written, extended protocol, without Sync; the stream must be ``framed``."""
        self._scripts.append(_BEGIN)
        self.begin = Begin.SENT
        self.told = False

    def rollback_sent(self) -> None:
        """Take note that ROLLBACK was written as a simple query; the stream must be ``framed``."""
        self._scripts.append(_ROLLBACK)
        self.begin = Begin.NONE
        self.told = False

    def seen(self, data: bytes) -> None:
        """Take note of a piece that is the driver's altogether, because nothing is ``pending``."""
        self._walk(data)
        # Not asked first: a notification of 90 bytes from process 5, cut behind its channel's first letter, ends so.
        if self._ahead is None and data[-6:-1] == _READY:
            self._ahead = 0
            self.told = True

    def feed(self, data: bytes) -> bytes:
        """Return what of ``data`` is the driver's.

        Raises:
            ReplyError: The messages are no reply to what was sent. What came before the wrong one is lost with it.
        """
        scripts = self._scripts
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = len(data)
        forward: list[bytes] = []
        at = 0
        while scripts:
            if end - at < _HEADER:
                self._rest = data[at:]
                return b"".join(forward)
            size = int.from_bytes(data[at + 1 : at + _HEADER], "big") + 1
            if size < _HEADER:
                raise ReplyError(f"a message of impossible length {size - 1}")
            if end - at < size:
                self._rest = data[at:]
                return b"".join(forward)
            kind, script = data[at], scripts[0]
            if kind == script[self._at]:
                self._step(script, data[at + _HEADER : at + size])
            elif kind in _UNASKED:
                forward.append(data[at : at + size])
            elif kind == 0x45:  # E
                self._refused(script, data[at + _HEADER : at + size])
                break  # it is for the driver, and so is all that follows
            else:
                raise ReplyError(f"a message {chr(kind)!r} where {chr(script[self._at])!r} was due")
            at += size
        self._ahead = 0
        remainder = data[at:]
        if remainder:
            self.seen(remainder)
            if not forward:
                return remainder
            forward.append(remainder)
        return b"".join(forward)

    def _step(self, script: bytes, body: bytes) -> None:
        self._at += 1
        if script is _ROLLBACK and self._at == 2 and body != b"I":
            raise ReplyError("the transaction is still open after ROLLBACK")
        if self._at == len(script):
            self._scripts.popleft()
            self._at = 0
            if script is _BEGIN:
                self.begin = Begin.DONE

    def _refused(self, script: bytes, body: bytes) -> None:
        if script is _ROLLBACK:
            raise ReplyError("the server refused a ROLLBACK")
        self._scripts.clear()
        self._at = 0
        # A fatal error ends the session (57P01: somebody terminated it). It is no answer to BEGIN.
        if not _is_fatal(body):
            self.begin = Begin.REFUSED

    def _walk(self, data: bytes) -> None:
        ahead = self._ahead
        if ahead is None:
            return
        end, messages = len(data), 0
        while ahead < end:
            if end - ahead < _HEADER or messages == _WALK_MAX:
                self._ahead = None
                return
            if data[ahead] == 0x5A:  # Z
                self.told = True
            ahead += int.from_bytes(data[ahead + 1 : ahead + _HEADER], "big") + 1
            messages += 1
        self._ahead = ahead - end


def _is_fatal(body: bytes) -> bool:
    fields = {field[:1]: field[1:] for field in body.split(b"\0")}
    # V is the severity that is not translated (PostgreSQL 9.6); poolers send only S.
    return fields.get(b"V", fields.get(b"S")) in (b"FATAL", b"PANIC")
