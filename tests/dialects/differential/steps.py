"""Scripts of what a program may do with a connection or session: made from a seed, printed to be pasted, cut down.

A script is a list of plain tuples, the kind of step first, so that what a failure prints is Python again. Scripts do
not know on which engine they run; see ``player``.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Step = tuple[Any, ...]
Script = list[Step]


@dataclass(frozen=True)
class Grammar:
    """What the scripts for one kind of server are made of.

    Attributes:
        statements: Pairs of SQL and weight; ``{n}`` becomes a number, ``{m}`` another one.
        levels: Isolation levels.
        streams: Statements to read in parts, in which no row fails.
        failing_streams: The same, in which one does: it is read to that row.
        slow: Statements to cancel, which sleep.
        raw: Things to do with the driver's own connection.
        other: Statements for a second connection; none of them waits for a lock.
        kinds: Kind of step and weight, over and above what all servers do.
        faces: What holds the connection: ``connection``, ``session``.
        options: Options of a block, as of ``execution_options()``.
    """

    statements: tuple[tuple[str, int], ...]
    levels: tuple[str, ...]
    streams: tuple[str, ...]
    failing_streams: tuple[str, ...]
    slow: tuple[str, ...]
    raw: tuple[str, ...]
    other: tuple[str, ...]
    kinds: dict[str, int]
    faces: tuple[str, ...] = ("connection", "connection", "session")
    options: tuple[dict[str, Any], ...] = ()


#: What every server is asked to do, and how often.
KINDS = {
    "execute": 30,
    "core": 8,
    "many": 4,
    "commit": 6,
    "rollback": 6,
    "close": 5,
    "open": 3,
    "savepoint": 5,
    "release": 3,
    "rollback_to": 3,
    "outermost": 1,
    "block": 3,
    "level": 3,
    "stream": 3,
    "failing_stream": 1,
    "read": 3,
    "close_stream": 1,
    "raw": 4,
    "raw_connection": 1,
    "other": 3,
    "begin": 2,
    "end": 1,
    "ask": 3,
    "invalidate": 1,
    "orm": 6,
    "dispose": 1,
}

_CORE = ("insert", "insert_returning", "insert_many_returning", "update", "delete", "select", "select_for_update")
_ORM = ("add", "get", "change", "delete", "flush", "refresh", "add_all", "scalars")
_NESTED = ("execute", "core", "many", "savepoint", "release", "orm", "rollback_to", "ask")


def make(seed: int, grammar: Grammar) -> Script:
    """Return the script of ``seed``: always the same for the same grammar."""
    return Maker(random.Random(seed), grammar).script()


@dataclass
class Maker:
    """Makes one script."""

    chance: random.Random
    grammar: Grammar
    kinds: list[str] = field(init=False)
    weights: list[int] = field(init=False)

    def __post_init__(self) -> None:
        kinds = {**KINDS, **self.grammar.kinds}
        self.kinds, self.weights = list(kinds), list(kinds.values())

    def script(self) -> Script:
        """Return a script of 3 to 24 steps."""
        face = self.chance.choice(self.grammar.faces)
        return [("face", face), ("open", self._options()), *(self._step() for _ in range(self.chance.randint(3, 24)))]

    def _options(self) -> dict[str, Any]:
        return dict(self.chance.choice(self.grammar.options)) if self.chance.random() < 0.2 else {}

    def _step(self) -> Step:
        return self._of(self.chance.choices(self.kinds, self.weights)[0])

    def _of(self, kind: str) -> Step:
        chance, grammar = self.chance, self.grammar
        match kind:
            case "execute":
                return (kind, self._statement())
            case "core":
                return (kind, chance.choice(_CORE), self._n())
            case "orm":
                return (kind, chance.choice(_ORM), self._n())
            case "many":
                numbers = [self._n() for _ in range(chance.randint(1, 4))]
                return (kind, chance.choice(("insert", "update", "wrong")), numbers)
            case "open":
                return (kind, self._options())
            case "level":
                return (kind, chance.choice(grammar.levels))
            case "stream":
                options = chance.choice(({}, {"yield_per": chance.randint(1, 30)}, {"max_row_buffer": 7}))
                return (kind, chance.choice(grammar.streams), options, chance.randint(0, 120))
            case "failing_stream":
                return (kind, chance.choice(grammar.failing_streams), chance.choice(({}, {"yield_per": 10})))
            case "read":
                return (kind, chance.randint(1, 120))
            case "raw" | "raw_connection":
                return (kind, chance.choice(grammar.raw), self._n())
            case "cancel":
                sql = chance.choice(grammar.slow).format(n=self._n())
                return (kind, sql, chance.choice(("task", "timeout", "twice")))
            case "other":
                statements = [self._filled(chance.choice(grammar.other)) for _ in range(chance.randint(1, 2))]
                return (kind, statements, chance.choice(("commit", "rollback", "leave")))
            case "block":
                steps = [self._of(chance.choice(_NESTED)) for _ in range(chance.randint(0, 3))]
                return (kind, steps, chance.random() < 0.3)
            case "twophase":
                steps = [self._of("execute") for _ in range(chance.randint(0, 2))]
                endings = ("commit", "prepare commit", "prepare rollback", "rollback", "leave")
                return (kind, steps, chance.choice(endings))
            case "begin":
                return (kind, chance.random() < 0.2)
            case "end" | "outermost":
                return (kind, chance.choice(("commit", "rollback")))
            case _:
                return (kind,)

    def _statement(self) -> str:
        statements = self.grammar.statements
        chosen = self.chance.choices([sql for sql, _ in statements], [weight for _, weight in statements])[0]
        return self._filled(chosen)

    def _filled(self, sql: str) -> str:
        return sql.replace("{n}", str(self._n())).replace("{m}", str(self._n()))

    def _n(self) -> int:
        return self.chance.randint(1, 12)


def kinds_of(script: Script) -> Iterator[str]:
    """Yield the kind of every step, those inside of others too."""
    for step in script:
        yield step[0]
        for part in step[1:]:
            if isinstance(part, list) and part and isinstance(part[0], tuple):
                yield from kinds_of(part)


def printed(script: Script) -> str:
    """Return ``script`` as Python, a step a line."""
    return "[\n" + "".join(f"    {step!r},\n" for step in script) + "]"


async def shrunk(script: Script, differs: Callable[[Script], Awaitable[bool]], tries: int = 150) -> Script:
    """Return a part of ``script`` that still ``differs``, found by leaving steps out, halves first."""
    size = max(1, (len(script) - 1) // 2)
    while size:
        at, smaller = 1, False
        while at < len(script) and tries:
            candidate = script[:at] + script[at + size :]
            tries -= 1
            if await differs(candidate):
                script, smaller = candidate, True
            else:
                at += size
        if not smaller or size > 1:
            size //= 2
    return script
