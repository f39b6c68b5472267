"""Who holds a connection: the task, and the line of the user's code that checked it out.

So that an exhausted pool can say who has it without having been asked beforehand. The task is noted for every
checkout, the line once half of the limit is in use: finding it costs as much as the checkout itself. Only a code
object, a line number and a weak reference to the task are kept, no frame: so no local variable lives longer for it, nor
the result of a task that is done, which may well be the connection itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from types import CodeType, FrameType
from typing import Any, NamedTuple

import greenlet
import sqlalchemy

import forebay

# Frames of these packages are not the user's. Told by file name once per code object, then by identity.
_OURS = tuple(
    os.path.dirname(os.path.abspath(module.__file__)) + os.sep
    for module in (sqlalchemy, forebay, asyncio, greenlet)
    if module.__file__
)
_of_ours: dict[int, tuple[CodeType, bool]] = {}
_MOST_FRAMES = 40

TaskRef = weakref.ref[asyncio.Task[Any]]


class Holder(NamedTuple):
    """Who checked a connection out, and where."""

    task: TaskRef | None
    name: str | None
    code: CodeType | None
    line: int


def holder_here(loop: asyncio.AbstractEventLoop, exact: bool) -> Holder | TaskRef | None:
    """Return who is checking a connection out: the running task, and where it does so if ``exact``.

    The place is that of the innermost frame that belongs to neither SQLAlchemy nor Forebay.
    """
    task = asyncio.current_task(loop)
    ref = None if task is None else weakref.ref(task)
    if not exact:
        return ref
    name = None if task is None else task.get_name()
    # As frames_here() and is_ours() do, but this runs at every checkout of a busy pool: no list, no calls.
    frame: FrameType | None = sys._getframe(1).f_back  # none: the bottom of a greenlet
    left = greenlet.getcurrent().parent
    for _ in range(_MOST_FRAMES):
        if frame is None:
            if left is None or left.gr_frame is None:
                break
            frame, left = left.gr_frame, left.parent
            continue
        code = frame.f_code
        if not (_of_ours.get(id(code)) or _judged(code))[1]:
            return Holder(ref, name, code, frame.f_lineno)
        frame = frame.f_back
    return Holder(ref, name, None, 0)


def frames_here() -> list[FrameType]:
    """Return the frames of the caller's call, innermost first, at most ``_MOST_FRAMES``, greenlets seen through."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1).f_back  # none: the bottom of a greenlet
    left = greenlet.getcurrent().parent
    while len(found) < _MOST_FRAMES:
        if frame is None:
            # The bottom of a greenlet: the call goes on in the one that started it.
            if left is None or left.gr_frame is None:
                break
            frame, left = left.gr_frame, left.parent
        else:
            found.append(frame)
            frame = frame.f_back
    return found


def is_ours(code: CodeType) -> bool:
    """Tell whether code belongs to SQLAlchemy, Forebay or the event loop, and not to the user."""
    return (_of_ours.get(id(code)) or _judged(code))[1]


def _judged(code: CodeType) -> tuple[CodeType, bool]:
    # Keeping the code object keeps its id from being used again.
    known = _of_ours[id(code)] = (code, _in_ours(code.co_filename))
    return known


def described(seconds: float, holder: Holder | TaskRef | None) -> str:
    """Describe a checkout in words: how long ago, from where, by which task, and where that task is now."""
    text = f"{seconds:.1f} s"
    name, ref = None, holder
    if isinstance(holder, Holder):
        name, ref = holder.name, holder.task
        if holder.code is not None:
            text += f" from {_short(holder.code.co_filename)}:{holder.line} in {holder.code.co_name}"
    task = ref() if isinstance(ref, weakref.ref) else None
    if task is not None:
        text += f" (task {task.get_name()!r}{_whereabouts(task)})"
    elif name is not None:
        text += f" (task {name!r}, done)"
    elif ref is not None:
        text += " (by a task that is gone)"
    return text


def _whereabouts(task: asyncio.Task[Any]) -> str:
    if task.done():
        return ", done"
    # The outermost frames come first; the last one of the user's is where it waits.
    places = [frame for frame in task.get_stack() if not is_ours(frame.f_code)]
    return f", now at {_short(places[-1].f_code.co_filename)}:{places[-1].f_lineno}" if places else ""


def _in_ours(filename: str) -> bool:
    return filename.startswith(_OURS) or filename.startswith("<")


def _short(filename: str) -> str:
    return os.sep.join(filename.split(os.sep)[-2:])
