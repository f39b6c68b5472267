"""Row data can look like the end of a reply, and TCP may cut exactly there: nobody is to take it for one."""

from __future__ import annotations

import pytest

from tests.faults.marks import ours_only
from tests.faults.wire.streams import HOSTILE, IDLE, IN_TRANSACTION, UNASKED, Wire, data_row, message, notification

pytestmark = ours_only

SYNC, FLUSH = message(b"S"), message(b"H")
FETCH = message(b"B", b"\0" * 8) + message(b"E", b"\0" * 5) + SYNC
BEGUN = message(b"1") + message(b"2") + message(b"C", b"BEGIN\0")
DONE = message(b"C", b"SELECT 1\0") + IN_TRANSACTION


def in_a_large_result() -> Wire:
    """Return a wire in a transaction, so many rows into the first result that the reader has lost its place."""
    wire = Wire()
    wire.begin()
    wire.write(FETCH)
    wire.receive(BEGUN + message(b"2") + data_row(b"row") * 30)
    return wire


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_row_cut_anywhere_ends_no_reply(name: str) -> None:
    """Goal: neither the place in the stream nor the transaction's status is read from a row.

    Method: a large result, then the hostile row, cut at each byte; what is claimed is compared with a full parse. At
    the end of the reply the reader knows its place, so a ROLLBACK can be sent and its reply is found.
    """
    row = HOSTILE[name]
    for cut in range(1, len(row)):
        wire = in_a_large_result()
        wire.receive(row[:cut])
        replies = wire.rider.replies
        assert not replies.told
        assert not replies.framed
        wire.receive(row[cut:] + DONE)
        wire.completed(0)
        assert replies.told
        assert replies.framed
        wire.roll_back()
        given = bytes(wire.driver.given)
        wire.receive(message(b"C", b"ROLLBACK\0") + IDLE)
        assert wire.driver.given == given
        assert not replies.pending


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_row_in_a_small_result_cut_anywhere_ends_no_reply(name: str) -> None:
    """Goal: the same where every message is followed. Method: three rows, cut twice, at each byte and five later."""
    reply = BEGUN + message(b"2") + data_row(b"row") + HOSTILE[name] + data_row(b"row") + DONE
    for cut in range(1, len(reply)):
        wire = Wire()
        wire.begin()
        wire.write(FETCH)
        for piece in (reply[:cut], reply[cut : cut + 5], reply[cut + 5 :]):
            wire.receive(piece)
            assert wire.rider.replies.told == (wire.driver.ready == 1)
        # It needs nobody's word.
        assert wire.rider.replies.framed


@pytest.mark.parametrize("name", UNASKED)
def test_what_comes_unasked_behind_a_large_result_and_is_cut_is_waited_for(name: str) -> None:
    """Goal: BEGIN is not sent in the middle of a notification. Method: cut at each byte, behind a reply's end."""
    unasked = UNASKED[name]
    for cut in range(1, len(unasked)):
        wire = in_a_large_result()
        wire.receive(data_row(b"row") * 30 + DONE + unasked[:cut])
        wire.completed(0)
        assert not wire.rider.replies.framed
        assert wire.rider.replies.told
        wire.receive(unasked[cut:])
        # The next reply, of any kind, makes it certain again.
        wire.write(message(b"Q", b"ROLLBACK;\0"))
        wire.receive(message(b"C", b"ROLLBACK\0") + IDLE)
        wire.completed(1)
        assert wire.rider.replies.framed


@pytest.mark.parametrize(
    "unasked",
    [notification(0x5A000000, b"\5channel"), notification(0x0533, b"c", b"p" * (0x5A00 - 11))],
    ids=["process", "length"],
)
def test_a_notification_of_unlikely_length_or_process_is_no_end_either(unasked: bytes) -> None:
    """Goal: no place in a notification's header is taken for the end. Method: cut at each byte of it."""
    for cut in range(1, 20):
        wire = in_a_large_result()
        wire.receive(data_row(b"row") * 30 + DONE + unasked[:cut])
        wire.completed(0)
        assert not wire.rider.replies.framed


def test_an_answer_to_something_else_is_not_taken_for_the_end_of_the_last() -> None:
    """Goal: two tasks on one connection. Method: the first goes on only when the second has had part of a hostile row.

    Then the second asks for a statement's description, which has no ReadyForQuery and can look like one.
    """
    wire = in_a_large_result()
    wire.receive(data_row(b"row") * 30 + DONE)
    wire.write(FETCH)
    wire.receive(message(b"2") + data_row(b"Z", b"Tango")[: 5 + 2 + 4 + 1 + 4 + 1])
    wire.completed(0)
    assert not wire.rider.replies.framed

    wire = in_a_large_result()
    wire.receive(data_row(b"row") * 30 + DONE)
    wire.write(message(b"P", b"\0SELECT 1\0\0\0") + FLUSH)
    wire.receive(message(b"T", b"\0\1Z\0\0\0\5\x89" + b"\0" * 14)[: 5 + 2 + 6])
    wire.completed(0)
    assert not wire.rider.replies.framed


@pytest.mark.parametrize(
    "nonsense",
    [b"\0" * 20, b"D\0\0\0\3", b"D\x7f\0\0\0row", b"D\xff\xff\xff\xff", b"Z\0\0\0\6I", b"x\0\0\0\4", b"HTTP/1.1 400"],
    ids=["zeros", "too short", "2 GiB", "negative", "long end", "no type", "another protocol"],
)
def test_what_is_no_message_is_passed_on_and_ends_the_claim_to_know(nonsense: bytes) -> None:
    """Goal: absurd lengths and types lead nowhere. Method: between two messages; then a reply makes good again."""
    wire = Wire()
    wire.receive(nonsense)
    assert wire.driver.given == nonsense
    assert not wire.rider.replies.framed
    assert not wire.rider.can_send
    asked = wire.asked
    wire.write(message(b"Q", b"SELECT 1\0"))
    wire.rider.data_received(DONE)
    wire.rider.answered(asked)
    assert wire.rider.replies.framed


@pytest.mark.parametrize("kind", [b"D", b"Z", b"t", b"x", b"\0"])
def test_a_wrong_answer_to_begin_drops_the_connection_and_the_driver_hears_of_it(kind: bytes) -> None:
    """Goal: whoever waits for an answer gets an error. Method: a message that is no answer to BEGIN."""
    wire = Wire()
    wire.begin()
    wire.write(FETCH)
    wire.receive(message(kind, b"T"))
    assert wire.transport.aborted
    assert not wire.driver.given
    assert wire.rider.fault is not None
    wire.rider.data_received(IDLE)  # what the transport had read already
    assert not wire.driver.given
    wire.rider.connection_lost(None)
    assert wire.driver.lost


def test_a_huge_notice_in_front_of_our_reply_takes_no_more_time_than_its_size() -> None:
    """Goal: no quadratic work and nothing kept. Method: 64 MB in pieces of 64 KB; each is the driver's at once."""
    wire = Wire()
    wire.begin()
    wire.write(FETCH)
    size, piece = 64 << 20, 1 << 16
    wire.rider.data_received(b"N" + (4 + size).to_bytes(4, "big"))
    given = 5
    for _ in range(size // piece):
        wire.rider.data_received(b"x" * piece)
        given += piece
        assert len(wire.driver.given) == given
    wire.rider.data_received(BEGUN + message(b"2") + DONE)
    assert not wire.rider.replies.pending
    assert wire.rider.replies.told
