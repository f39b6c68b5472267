"""What the tests of this folder share: on whose side they run, and how a fault that is not mended yet is marked."""

from __future__ import annotations

import os
from typing import Final

import pytest

__all__ = ["SIDE", "not_yet", "ours_only"]

SIDE: Final = os.environ.get("FOREBAY_FAULTS_SIDE", "forebay")
"""``forebay``, or ``stock``: the same tests on SQLAlchemy's own classes, to see what they do there."""

if SIDE not in ("forebay", "stock"):
    raise ValueError(f"FOREBAY_FAULTS_SIDE={SIDE!r}: must be 'forebay' or 'stock'")

#: The test is about something that stock does not have: an option or a promise of ours.
ours_only = pytest.mark.skipif(SIDE == "stock", reason="stock SQLAlchemy has nothing like it")


def not_yet(what: str) -> pytest.MarkDecorator:
    """Mark a fault that is known and not mended: the test must fail until it is.

    Args:
        what: What goes wrong, in one sentence; it is shown as the reason.
    """
    return pytest.mark.xfail(strict=True, reason=what)
