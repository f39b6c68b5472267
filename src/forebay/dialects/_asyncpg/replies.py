"""The server's replies to commands the driver knows nothing of: found in the stream, and kept from the driver.

Theory of operation. We write ``BEGIN`` and ``ROLLBACK`` on the driver's connection ourselves, ahead of what the driver
writes. The replies come back in that order, so the messages of ours stand in front of the driver's. For each command of
ours there is a *script*: the message types its reply consists of. While a script is unfinished the stream is cut into
messages; what the script names is swallowed, everything behind the last script is the driver's.

PostgreSQL may put parameter changes, notices and notifications (``S``, ``N``, ``A``) anywhere. They are the driver's
at once: swallowing them would lose settings.

A command of ours may be sent only where the stream is known to stand between two messages. So the driver's part of it
is followed from header to header. In a large result that would cost too much: after some messages in one piece the
reader gives up and is *lost*. It then claims nothing, whatever the data look like, for a row may look like the end of a
reply. It finds its place again when the driver, which parses all of it, says that its reply is complete.

Nothing here does I/O, and how the stream is cut into pieces makes no difference to what is swallowed.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from struct import Struct

__all__ = ["Begin", "Replies", "ReplyError"]

#: Parse, Bind and Execute of BEGIN are answered by ParseComplete, BindComplete, CommandComplete; no ReadyForQuery.
_BEGIN = b"12C"
#: A simple query ROLLBACK is answered by CommandComplete and ReadyForQuery.
_ROLLBACK = b"CZ"

_UNASKED = b"SNA"
#: The types a server sends within a session, by version 3 of the protocol.
_TYPES = b"DC2Z1SNAETtnIs3cdGHWKRVv"
_ERROR = 0x45
_READY_FOR_QUERY = 0x5A
#: The beginning of a ReadyForQuery; one byte follows, the status of the transaction.
_READY = b"Z\x00\x00\x00\x05"
_READY_LENGTH = 5
_STATUSES = b"ITE"
_HEADER = 5
_header = Struct(">BI").unpack_from
# The length of a message counts itself and not the type. PostgreSQL sends nothing of more than 1 GiB.
_LENGTH_MIN = 4
_LENGTH_MAX = 1 << 30
# "BEGIN", "ROLLBACK" and the end of a string; a pooler may have other words.
_OURS_MAX = 256
# One message takes 0.2 us. Beyond this many in one piece it is a large result, where that would add up.
_WALK_MAX = 16
# A ReadyForQuery and the five bytes in front of it.
_TAIL = 11


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

    __slots__ = ("_ahead", "_at", "_head", "_kind", "_needed", "_rest", "_scripts", "_tail", "begin", "told")

    def __init__(self, *, lost: bool = False) -> None:
        """Begin where a session has been opened.

        Args:
            lost: The driver may be in the middle of a reply.
        """
        self.begin = Begin.NONE
        self.told = True
        self._scripts: deque[bytes] = deque()
        self._at = 0
        # Of a message that may be ours, what has come of it, and how much must come before it can be looked at.
        self._rest = bytearray()
        self._needed = 0
        # Bytes of the message under way that are still to come, all of them the driver's; None: lost.
        self._ahead: int | None = None if lost else 0
        # The type of that message.
        self._kind = 0
        # Of a message of the driver's, as much of its header as has come, if that is not all of it.
        self._head = b""
        # While lost, the last bytes that came of a reply that ends with a ReadyForQuery; None: of another one.
        self._tail: bytes | None = b""

    @property
    def pending(self) -> bool:
        """Whether a reply of ours is still to come."""
        return bool(self._scripts)

    @property
    def lost(self) -> bool:
        """Whether it is not known where in a message the driver's part of the stream stands."""
        return self._ahead is None

    @property
    def between(self) -> bool:
        """Whether what the driver was given is known to end between two messages."""
        return self._ahead == 0 and not self._head

    @property
    def framed(self) -> bool:
        """Whether a command of ours may be sent: its reply could be told from all else.

        Never true by what the data look like. Ask only when the driver has no operation under way.
        """
        return bool(self._scripts) or self.between

    def begin_sent(self) -> None:
        """Take note that BEGIN was written, extended protocol, without Sync.

        Raises:
            ReplyError: The reader is lost; the reply could not be found.
        """
        self._sent(_BEGIN)
        self.begin = Begin.SENT

    def rollback_sent(self) -> None:
        """Take note that ROLLBACK was written as a simple query.

        Raises:
            ReplyError: The reader is lost; the reply could not be found.
        """
        self._sent(_ROLLBACK)
        self.begin = Begin.NONE

    def _sent(self, script: bytes) -> None:
        if self._ahead is None:
            raise ReplyError("it is not known where the next reply of the server begins")
        self._scripts.append(script)
        self.told = False

    def asked(self, *, ready: bool) -> None:
        """Take note that the driver asks for something.

        Args:
            ready: The reply will end with a ReadyForQuery.
        """
        if self._ahead is None:
            self._tail = b"" if ready else None

    def answered(self) -> None:
        """Take note that the driver's operation is complete, by a ReadyForQuery behind the last command of ours.

        Nobody must have asked for another one since. So what came behind that ReadyForQuery, if anything, came unasked,
        and none of it ends like a ReadyForQuery but for a notification that was cut: its length or its process id may
        look so. Its type, A, and a zero are then within the five bytes in front.
        """
        self.told = True
        tail = self._tail
        if (
            self._ahead is None
            and tail is not None
            and len(tail) == _TAIL
            and tail[5:10] == _READY
            and tail[10] in _STATUSES
            and b"A\0" not in tail[:5]
        ):
            self._ahead = 0

    def seen(self, data: bytes) -> None:
        """Take note of a piece that is the driver's altogether, because nothing is ``pending``."""
        ahead = self._ahead
        if ahead is None:
            if self._tail is not None:
                self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
            return
        if self._head:
            data = self._head + data
            self._head = b""
        elif 0 < ahead <= len(data) and self._kind == _READY_FOR_QUERY:
            self.told = True
        end, messages, kind = len(data), 0, self._kind
        while ahead < end:
            if end - ahead < _HEADER:
                self._head = data[ahead:]
                ahead = end
                break
            kind, length = _header(data, ahead)
            if kind == _READY_FOR_QUERY:
                if length != _READY_LENGTH:
                    length = 0
                elif end - ahead > _HEADER:  # without its last byte the driver has not read it
                    self.told = True
            elif kind not in _UNASKED:
                messages += 1
            # As _is_possible() says, which would take as long again as all of this.
            if length < _LENGTH_MIN or length > _LENGTH_MAX or messages > _WALK_MAX or kind not in _TYPES:
                self._ahead, self._tail = None, data[-_TAIL:]
                return
            ahead += length + 1
        self._ahead, self._kind = ahead - end, kind

    def feed(self, data: bytes) -> bytes:
        """Return what of ``data`` is the driver's.

        Raises:
            ReplyError: The messages are no reply to what was sent. What came before the wrong one is lost with it.
        """
        at = 0
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return b""
            data = bytes(self._rest)
            self._rest.clear()
        elif not self.between:
            at = self._passed(data)
        scripts, end = self._scripts, len(data)
        forward = [data[:at]] if at else []
        while scripts:
            if end - at < _HEADER:
                self._keep(data[at:], _HEADER)
                return b"".join(forward)
            kind, length = _header(data, at)
            script = scripts[0]
            if kind in _UNASKED:
                _check(kind, length)
                passed = min(length + 1, end - at)
                self._ahead = length + 1 - passed
                forward.append(data[at : at + passed])
                at += passed
                continue
            ours = kind == script[self._at]
            if not ours and kind != _ERROR:
                raise ReplyError(
                    f"the server sent a message of type {chr(kind)!r} where {chr(script[self._at])!r} was expected"
                )
            if length < _LENGTH_MIN or length > (_OURS_MAX if ours else _LENGTH_MAX):
                raise _impossible(kind, length)
            if end - at <= length:
                self._keep(data[at:], length + 1)
                return b"".join(forward)
            body = data[at + _HEADER : at + length + 1]
            if not ours:
                self._refused(script, body)
                break  # it is for the driver, and so is all that follows
            self._step(script, body)
            at += length + 1
        remainder = data[at:]
        if remainder:
            self.seen(remainder)
            if not forward:
                return remainder
            forward.append(remainder)
        return b"".join(forward)

    def _keep(self, data: bytes, needed: int) -> None:
        """Keep the beginning of a message that may be ours until ``needed`` bytes of it are here."""
        self._rest += data
        self._needed = needed

    def _passed(self, data: bytes) -> int:
        """Return how much of ``data`` belongs to the driver's message that was under way when ours was sent."""
        at = 0
        if self._head:
            at = min(_HEADER - len(self._head), len(data))
            self._head += data[:at]
            if len(self._head) < _HEADER:
                return at
            kind, length = _header(self._head, 0)
            _check(kind, length)
            self._head, self._ahead = b"", length + 1 - _HEADER
        assert self._ahead is not None  # nothing of ours is sent by who is lost
        passed = min(self._ahead, len(data) - at)
        self._ahead -= passed
        return at + passed

    def _step(self, script: bytes, body: bytes) -> None:
        self._at += 1
        if script is _ROLLBACK and self._at == 2 and body != b"I":
            raise ReplyError("the server says that the transaction is still open after ROLLBACK")
        if self._at == len(script):
            self._scripts.popleft()
            self._at = 0
            if script is _BEGIN:
                self.begin = Begin.DONE

    def _refused(self, script: bytes, body: bytes) -> None:
        # A fatal error ends the session (57P01: somebody terminated it). It is no answer to a command.
        fatal = _is_fatal(body)
        if script is _ROLLBACK and not fatal:
            raise ReplyError("the server refused a ROLLBACK")
        self._scripts.clear()
        self._at = 0
        if not fatal:
            self.begin = Begin.REFUSED


def _is_possible(kind: int, length: int) -> bool:
    """Tell whether a message can begin so."""
    return (
        _LENGTH_MIN <= length <= _LENGTH_MAX
        and kind in _TYPES
        and (kind != _READY_FOR_QUERY or length == _READY_LENGTH)
    )


def _check(kind: int, length: int) -> None:
    if not _is_possible(kind, length):
        raise _impossible(kind, length)


def _impossible(kind: int, length: int) -> ReplyError:
    return ReplyError(f"the server sent a message of type {chr(kind)!r} with the impossible length {length}")


def _is_fatal(body: bytes) -> bool:
    fields = {field[:1]: field[1:] for field in body.split(b"\0")}
    # V is the severity that is not translated (PostgreSQL 9.6); poolers send only S.
    return fields.get(b"V", fields.get(b"S")) in (b"FATAL", b"PANIC")
