"""The reply parser against a plain reference, over streams cut into pieces at random."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.dialects._asyncpg.replies import Begin, Replies, ReplyError


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return one message of the protocol."""
    return kind + (4 + len(body)).to_bytes(4, "big") + body


READY = message(b"Z", b"T")
UNASKED = [message(b"N", b"SNOTICE\0\0"), message(b"S", b"TimeZone\0UTC\0"), message(b"A", b"\0\0\0\x05ch\0Z\0\0\0\0")]
#: What may hide in a row: the bytes that end a reply, and the types of ours.
BODIES = st.sampled_from([b"", b"Z\0\0\0\x05I", b"12C", b"E" * 40, bytes(range(256)), b"x" * 3000])

unasked = st.lists(st.sampled_from(UNASKED), max_size=2)
driver_replies = st.builds(
    lambda rows, tail: [
        message(b"2"),
        *(message(b"D", row) for row in rows),
        message(b"C", b"SELECT 1\0"),
        READY,
        *tail,
    ],
    st.lists(BODIES, max_size=4),
    unasked,
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[tuple[str, bytes]], list[int]]:
    """Draw transactions as the server answers them, each message marked "ours" or "driver's", and where to cut."""
    stream: list[tuple[str, bytes]] = []

    def put(owner: str, kind: bytes, body: bytes) -> None:
        stream.extend(("driver", m) for m in draw(unasked))
        stream.append((owner, message(kind, body)))

    for _ in range(draw(st.integers(1, 3))):
        stream.append(("command", b"BEGIN"))
        if draw(st.booleans()):
            put("ours", b"1", b"")
        else:
            put("driver", b"E", b"SERROR\0VERROR\0C22023\0\0")
            stream.append(("driver", READY))
            continue
        put("ours", b"2", b"")
        put("ours", b"C", b"BEGIN\0")
        stream.extend(("driver", m) for m in draw(driver_replies))
        stream.append(("command", b"ROLLBACK"))
        put("ours", b"C", b"ROLLBACK\0")
        put("ours", b"Z", b"I")
    cuts = draw(st.lists(st.integers(1, 4000), min_size=1, max_size=60))
    return stream, cuts


@given(conversations())
def test_what_is_ours_is_swallowed_and_all_else_passes_wherever_the_stream_is_cut(
    conversation: tuple[list[tuple[str, bytes]], list[int]],
) -> None:
    """Goal: exactly our replies disappear. Method: generated conversations, cut at random, compared with the marks."""
    stream, cuts = conversation
    replies = Replies()
    passed = b""
    phase = b""
    at = 0

    def deliver(data: bytes) -> None:
        nonlocal passed, at
        while data:
            size = cuts[at % len(cuts)]
            at += 1
            piece, data = data[:size], data[size:]
            if replies.pending:
                passed += replies.feed(piece)
            else:
                replies.seen(piece)
                passed += piece

    for owner, data in stream:
        if owner == "command":
            deliver(phase)
            phase = b""
            if data == b"BEGIN":
                # What came last may have ended in something the parser declines to judge; then nothing is sent.
                if not replies.framed:
                    deliver(READY)
                    passed = passed[: -len(READY)]
                replies.begin_sent()
            else:
                if not replies.framed:
                    deliver(READY)
                    passed = passed[: -len(READY)]
                replies.rollback_sent()
        else:
            phase += data
    deliver(phase)
    assert passed == b"".join(data for owner, data in stream if owner == "driver")


@given(
    st.lists(st.sampled_from([*UNASKED, message(b"1"), message(b"t", b"\0\0"), READY]), max_size=12), st.integers(1, 9)
)
def test_framed_is_true_only_between_two_messages(messages: list[bytes], size: int) -> None:
    """Goal: BEGIN is never awaited in the middle of a message. Method: pieces of every size, compared with the sums."""
    data = b"".join(messages)
    ends = {sum(map(len, messages[:n])) for n in range(len(messages) + 1)}
    replies = Replies()
    for at in range(0, len(data), size):
        replies.seen(data[at : at + size])
        if replies.framed:
            assert min(at + size, len(data)) in ends


def test_a_notification_that_is_cut_where_it_looks_like_the_end_of_a_reply_is_not_over() -> None:
    """Goal: BEGIN is not awaited in the middle of a message. Method: length 90, process 5, a channel's first letter."""
    whole = message(b"A", b"\0\0\0\x05" + b"channel\0" + b"p" * 73 + b"\0")
    replies = Replies()
    replies.seen(READY + whole[:10])
    assert whole[4:10] == b"Z\0\0\0\x05c"
    assert not replies.framed
    replies.seen(whole[10:])
    assert replies.framed


def test_begin_and_rollback_tell_how_they_went() -> None:
    """Goal: the states of a transaction's start and end. Method: one conversation, message by message."""
    replies = Replies()
    replies.begin_sent()
    assert (replies.begin, replies.told) == (Begin.SENT, False)
    for kind in b"1", b"2":
        assert replies.feed(message(kind)) == b""
        assert replies.begin is Begin.SENT
    assert replies.feed(message(b"C", b"BEGIN\0")) == b""
    assert (replies.begin, replies.pending, replies.told) == (Begin.DONE, False, False)
    replies.seen(READY)
    assert replies.told
    replies.rollback_sent()
    assert not replies.told
    assert replies.feed(message(b"C", b"ROLLBACK\0") + message(b"Z", b"I")) == b""
    assert not replies.pending


def test_an_error_in_answer_to_begin_is_the_drivers_and_so_is_all_that_follows() -> None:
    """Goal: the statement behind a failed BEGIN fails with the true error. Method: feed it."""
    replies = Replies()
    replies.begin_sent()
    answer = message(b"E", b"SFEHLER\0VERROR\0C25001\0\0") + READY
    assert replies.feed(answer) == answer
    assert (replies.begin, replies.pending, replies.told) == (Begin.REFUSED, False, True)


@pytest.mark.parametrize("severity", [b"SFATAL\0VFATAL\0", b"SFATAL\0", b"SPANIK\0VPANIC\0"])
def test_the_end_of_the_session_is_no_answer_to_begin(severity: bytes) -> None:
    """Goal: a connection that was terminated counts as lost before the answer. Method: feed a fatal error."""
    replies = Replies()
    replies.begin_sent()
    answer = message(b"E", severity + b"C57P01\0\0")
    assert replies.feed(answer) == answer
    assert replies.begin is Begin.SENT


@pytest.mark.parametrize(
    "answer",
    [
        message(b"E", b"SERROR\0\0"),
        message(b"C", b"ROLLBACK\0") + message(b"Z", b"E"),
        message(b"D", b"row"),
        b"C\0\0\0\x01",
    ],
    ids=["error", "still open", "something else", "no length"],
)
def test_a_wrong_answer_to_rollback_condemns_the_connection(answer: bytes) -> None:
    """Goal: nobody gets a connection whose transaction did not end. Method: feed each wrong answer."""
    replies = Replies()
    replies.rollback_sent()
    with pytest.raises(ReplyError):
        replies.feed(answer)
