"""The reply parser against a reference parser, over many random conversations cut into pieces anywhere."""

from __future__ import annotations

import random

import pytest

from forebay.dialects._asyncpg.replies import Begin, Replies
from tests.dialects.asyncpg.test_replies import message

CASES = 20_000


READY = message(b"Z", b"T")
IDLE = message(b"Z", b"I")
NOTICE = message(b"N", b"SNOTICE\0VNOTICE\0C00000\0MBEGIN\0\0")
PARAMETER = message(b"S", b"TimeZone\0UTC\0")
# What is sent unasked has no three zeros in a row behind its length and process id.
NOTIFICATION = message(b"A", b"\0\0\x05Zch\0Z\0")
UNASKED = (NOTICE, PARAMETER, NOTIFICATION)
#: What may hide in a row: the bytes that end a reply, the types of ours, headers of other messages.
BODIES = (b"", b"Z\0\0\0\x05I", b"12C", b"E\0\0\0\x04", b"C\0\0\0\x0bBEGIN\0", bytes(range(256)), b"x" * 90)
REFUSED = message(b"E", b"SERROR\0VERROR\0C22023\0Mnonsense\0\0")
ENDED = message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")


def reference(stream: bytes, plan: list[str]) -> bytes:
    """Return what is the driver's of a whole stream, knowing what was asked for in which order.

    ``plan`` has "begin" and "rollback" for commands of ours and "driver" for one of the driver's, which ends with a
    ReadyForQuery. Takes one message after the other, and nothing into account but the protocol.
    """
    drivers, at, asked = [], 0, list(plan)
    while at < len(stream):
        size = 1 + int.from_bytes(stream[at + 1 : at + 5], "big")
        kind, whole = stream[at : at + 1], stream[at : at + size]
        at += size
        if kind in b"SNA":
            drivers.append(whole)
        elif asked[0] == "begin" and kind in b"12":
            pass
        elif asked[0] == "begin" and kind == b"C":
            del asked[0]
        elif asked[0] == "begin":
            assert kind == b"E"
            drivers.append(whole)
            del asked[0]  # what the driver asked for is skipped, and answered by the error
        elif asked[0] == "rollback":
            if kind == b"Z":
                del asked[0]
        else:
            drivers.append(whole)
            if kind == b"Z":
                del asked[0]
    return b"".join(drivers)


class Conversation:
    """Transactions as a server answers them, delivered to a parser while the next commands are sent."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.replies = Replies()
        self.stream = bytearray()
        self.plan: list[str] = []
        self.passed = bytearray()
        self.delivered = 0
        #: Up to here the driver has to have read before it has anything sent: the end of its last answer.
        self.due = 0
        self.over = False

    def run(self) -> None:
        """Play some transactions, and deliver all there is."""
        for _ in range(self.chance.randrange(1, 4)):
            self.transaction()
            if self.over:
                break
        self.deliver(len(self.stream))

    def transaction(self) -> None:
        """Play one: BEGIN with its first statement, perhaps more of them, a ROLLBACK or a COMMIT of the driver's."""
        chance = self.chance
        self.send()
        self.replies.begin_sent()
        self.plan += ["begin", "driver"]
        fate = chance.random()
        if fate < 0.15:
            self.put(*[message(b"1")] * chance.randrange(2), REFUSED, READY if chance.random() < 0.5 else IDLE)
            self.due = len(self.stream)
            return
        if fate < 0.2:
            self.put(*[message(b"1")] * chance.randrange(2), ENDED)
            self.over = True
            return
        self.put(message(b"1"), message(b"2"), message(b"C", b"BEGIN\0"))
        self.answer()
        for _ in range(chance.randrange(2)):
            self.send()
            self.plan.append("driver")
            self.answer()
        self.send()
        if chance.random() < 0.7:
            self.replies.rollback_sent()
            self.plan.append("rollback")
            self.put(message(b"C", b"ROLLBACK\0"), IDLE)
        else:
            self.plan.append("driver")
            self.put(message(b"C", b"COMMIT\0"), IDLE)
            self.due = len(self.stream)

    def answer(self) -> None:
        """Answer a statement of the driver's: with rows, or with an error."""
        chance = self.chance
        rows = [message(b"D", chance.choice(BODIES)) for _ in range(chance.choice((0, 1, 3, 24)) if self.rare() else 1)]
        self.put(message(b"2"), *rows, REFUSED if self.rare() else message(b"C", b"SELECT 1\0"), READY)
        self.due = len(self.stream)
        self.put()

    def rare(self) -> bool:
        """Tell "yes" one time in eight."""
        return self.chance.random() < 0.125

    def put(self, *messages: bytes) -> None:
        """Have the server send these, and unasked ones anywhere before, between and behind them."""
        chance = self.chance
        for each in (*messages, b""):
            while chance.random() < 0.15:
                self.stream += chance.choice(UNASKED)
            self.stream += each

    def send(self) -> None:
        """Deliver what must have been read when the next command is sent, and perhaps some of what follows it."""
        self.deliver(max(self.due, self.delivered))
        if self.chance.random() < 0.5:
            self.deliver(self.chance.randint(self.delivered, len(self.stream)))
        if not self.replies.framed:
            self.deliver(len(self.stream))
        if not self.replies.framed:
            # It is lost, and knows its place again behind a reply that the driver has read to its end.
            self.replies.asked(ready=True)
            self.plan.append("driver")
            self.stream += message(b"C", b"SELECT 1\0") + READY
            self.deliver(len(self.stream))
            self.replies.answered()
        assert self.replies.framed

    def deliver(self, end: int) -> None:
        """Deliver the stream up to ``end``, in pieces of any size."""
        any_up_to = self.chance.choice((1, 5, 12, 40, 5000, 5000))
        while self.delivered < end:
            size = min(self.chance.randint(1, any_up_to), end - self.delivered)
            piece = bytes(self.stream[self.delivered : self.delivered + size])
            self.delivered += size
            if self.replies.pending:
                self.passed += self.replies.feed(piece)
            else:
                self.replies.seen(piece)
                self.passed += piece


@pytest.mark.long
def test_what_passes_is_what_the_reference_says_is_the_drivers() -> None:
    """Goal: exactly our replies disappear, whatever comes in between and however it is cut or merged.

    Method: 20 000 seeded conversations: notices, parameter changes and notifications anywhere, a BEGIN refused or the
    session ended, a ROLLBACK answered before or behind the next BEGIN. A failure names its seed.
    """
    refused = ended = merged = 0
    for seed in range(CASES):
        conversation = Conversation(random.Random(seed))
        conversation.run()
        expected = reference(bytes(conversation.stream), conversation.plan)
        assert bytes(conversation.passed) == expected, f"seed {seed}"
        replies = conversation.replies
        assert not replies.pending, f"seed {seed}"
        assert replies.begin is not Begin.SENT or conversation.over, f"seed {seed}"
        refused += REFUSED in conversation.stream
        ended += conversation.over
        merged += len(conversation.plan) > 3
    # Each of the cases that matter was among them, often.
    assert min(refused, ended, merged) > CASES // 20
