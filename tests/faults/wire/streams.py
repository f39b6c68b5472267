"""A server's stream, the driver that reads it, and between them what stands there in an asyncpg connection.

The driver here parses the whole stream, so it is what the claims of the reader are compared with.
"""

from __future__ import annotations

import asyncio
from typing import Any

from forebay.dialects._asyncpg.rider import Rider

__all__ = ["HOSTILE", "IDLE", "IN_FAILED", "IN_TRANSACTION", "UNASKED", "Wire", "data_row", "message", "notification"]


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return one message of the protocol."""
    return kind + (4 + len(body)).to_bytes(4, "big") + body


def data_row(*columns: bytes) -> bytes:
    """Return a row."""
    return message(
        b"D", len(columns).to_bytes(2, "big") + b"".join(len(column).to_bytes(4, "big") + column for column in columns)
    )


def notification(process: int, channel: bytes, payload: bytes = b"") -> bytes:
    """Return what a listener gets."""
    return message(b"A", process.to_bytes(4, "big") + channel + b"\0" + payload + b"\0")


IDLE, IN_TRANSACTION, IN_FAILED = message(b"Z", b"I"), message(b"Z", b"T"), message(b"Z", b"E")

#: Rows that contain what a reply ends with, when they are cut at the right place.
HOSTILE = {
    "a text that ends in Z before a column of five bytes": data_row(b"the end: Z", b"Tango"),
    "a bytea that contains the end of a reply": data_row(b"abcdefgh" + IN_TRANSACTION + b"tail"),
    "a bytea that is the end of a reply": data_row(IDLE),
    "a reply within a row": data_row(message(b"C", b"SELECT 1\0") + IDLE + notification(5, b"c") + IDLE),
    "lengths that lead far away": data_row(IDLE + b"D\x7f\xff\xff\xff" + IDLE + b"Z\0\0\0\5"),
    "lengths that lead nowhere": data_row(IDLE + b"\0" * 40 + b"D\0\0\0\0" + IDLE),
    "ours": data_row(message(b"1") + message(b"2") + message(b"C", b"BEGIN\0") + IN_TRANSACTION),
}

#: What comes unasked, anywhere.
UNASKED = {
    "notice": message(b"N", b"SNOTICE\0VNOTICE\0C00000\0MZ\0RZ\0\0"),
    "parameter": message(b"S", b"application_nameZ\0\0"),
    "notification": notification(4711, b"channelZ", b"payload A"),
    "notification without a payload": notification(5, b"Z"),
    # Its length is 90, which is Z, and its process 5.
    "notification that looks like the end": notification(5, b"channel", b"p" * 73),
}


class Driver:
    """Stands for asyncpg's protocol: parses all of what it is given.

    Attributes:
        given: All of it.
        kinds: The types of the messages so far.
        partial: Whether the last message is incomplete.
        ready: How many ReadyForQuery there were.
        lost: The connection is gone.
    """

    def __init__(self) -> None:
        self.given = bytearray()
        self.kinds = bytearray()
        self.ready = 0
        self.lost = False
        self.cancelling = False
        self._at = 0

    @property
    def partial(self) -> bool:
        """Whether the last message is incomplete."""
        return self._at != len(self.given)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.given += data
        while len(self.given) - self._at >= 5:
            size = 1 + int.from_bytes(self.given[self._at + 1 : self._at + 5], "big")
            if size < 5 or self._at + size > len(self.given):
                break
            self.kinds.append(self.given[self._at])
            self.ready += self.given[self._at] == 0x5A
            self._at += size

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note."""
        self.lost = True

    def is_connected(self) -> bool:
        """Tell."""
        return not self.lost

    def _is_cancelling(self) -> bool:
        return self.cancelling


class Transport:
    """Stands for the transport: keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep."""
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        """Keep."""
        self.written += b"".join(pieces)

    def set_protocol(self, protocol: Any) -> None:
        """Keep."""
        self.protocol = protocol

    def get_protocol(self) -> Any:
        """Return what was kept."""
        return self.protocol

    def get_extra_info(self, name: str) -> None:
        """Know nothing."""

    def abort(self) -> None:
        """Take note."""
        self.aborted = True


class _Connection:
    def __init__(self) -> None:
        self._protocol, self._transport = Driver(), Transport()


class Wire:
    """A rider between a driver and a transport of ours.

    Attributes:
        driver: The driver.
        transport: The transport.
        rider: What is tested.
    """

    def __init__(self) -> None:
        connection = _Connection()
        self.driver, self.transport = connection._protocol, connection._transport
        self.rider = Rider(connection, _NoLoop())
        # What a version without it has done is judged by the same tests.
        self._answered: Any = getattr(self.rider, "answered", lambda asked: None)
        #: How many ReadyForQuery the driver had seen when something of ours was sent last.
        self.ready_before_ours: int | None = None

    @property
    def asked(self) -> int:
        """What to give back to :meth:`completed`."""
        return getattr(self.rider, "asked", 0)

    def begin(self) -> None:
        """Have BEGIN sent with what is written next."""
        self.rider.begin("BEGIN", None)

    def write(self, data: bytes) -> None:
        """Write as the driver does."""
        ours = self.rider.begin_is_held
        self.transport.write(data)
        if ours:
            self.ready_before_ours = self.driver.ready

    def roll_back(self) -> None:
        """Send ROLLBACK."""
        self.rider.roll_back(passed_on=False)
        self.ready_before_ours = self.driver.ready

    def receive(self, data: bytes) -> None:
        """Have a piece come from the server, and check what is claimed then."""
        if self.transport.aborted:
            return
        self.rider.data_received(data)
        self.check()

    def completed(self, asked: int) -> None:
        """Take note that an operation of the driver's returned normally, and check what is claimed then."""
        self._answered(asked)
        self.check()

    def check(self) -> None:
        """Check that nothing is claimed that is not so."""
        replies = self.rider.replies
        if replies.framed and not replies.pending:
            assert not self.driver.partial, "it claims to stand between two messages, and stands within one"
        if replies.told and self.ready_before_ours is not None:
            assert self.driver.ready > self.ready_before_ours, (
                "it claims that the driver knows the transaction's status"
            )


class _NoLoop(asyncio.AbstractEventLoop):
    def time(self) -> float:
        return 0.0
