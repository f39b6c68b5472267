"""Hiding a name of a driver from Forebay, and from nobody else: the driver itself goes on using it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from forebay.dialects import _parts
from forebay.dialects._parts import Parts

__all__ = ["hidden"]


@contextmanager
def hidden(parts: Parts, classes: tuple[type, ...], things: tuple[Any, ...], name: str) -> Iterator[None]:
    """Have Forebay's code find no ``name`` on objects of ``classes``, nor on ``things`` themselves.

    Asking whether it is there says no; taking it all the same, in a line of Forebay's, raises as it would.

    Args:
        parts: The driver's table, which is to look again.
        classes: Classes written in Python, whose objects are to have no such name.
        things: Classes and modules that are asked themselves.
        name: The name.
    """

    original_has = _parts.has

    def has(thing: Any, asked: str) -> bool:
        hides = asked == name and (isinstance(thing, classes) or any(thing is one for one in things))
        return not hides and original_has(thing, asked)

    def masked(original: Any) -> Any:
        def __getattribute__(self: Any, asked: str) -> Any:
            if asked == name and _names_it(sys._getframe(1), name):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            return original(self, asked)

        return __getattribute__

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_parts, "has", has)
        for one in classes:
            # Only what the class has by itself is put back; else the one inherited shows again.
            patch.setattr(one, "__getattribute__", masked(one.__getattribute__), raising=False)
        parts.forget()
        try:
            yield
        finally:
            parts.forget()


def _names_it(frame: Any, name: str) -> bool:
    # Code in C has no frame of its own: what it takes would seem to be taken by whoever called it.
    code = frame.f_code
    ours = str(frame.f_globals.get("__name__", "")).startswith("forebay.dialects")
    return ours and (name in code.co_names or name in code.co_consts)
