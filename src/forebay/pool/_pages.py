"""The pool's options as a page, written by ``python -m forebay.pool._pages docs/reference/pool-options.md``."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from forebay.pool.options import OPTIONS, Option

_HEAD = """\
<!-- Made from the options by `python -m forebay.pool._pages docs/reference/pool-options.md`; change it there. -->

# Pool options

Keywords of `create_async_engine`, with the units and bounds that are checked when the engine is made. Seconds
everywhere. `None`, where it is allowed, means that the thing is off or left to the driver. No number may be larger than
1e9; infinity is taken for `pool_timeout` only, where it means `None`.

| option | unit | default | bounds | meaning | why this default |
| --- | --- | --- | --- | --- | --- |
"""


def as_markdown() -> str:
    """Return the page."""
    return _HEAD + "".join(f"| {' | '.join(_cells(option))} |\n" for option in OPTIONS)


def _cells(option: Option) -> tuple[str, ...]:
    return f"`{option.name}`", option.unit, f"`{option.default!r}`", _bounds(option), option.meaning, option.why


def _bounds(option: Option) -> str:
    low = "" if option.minimum is None else f"≥ {option.minimum:g}"
    high = "" if option.maximum in (None, math.inf) else f"≤ {option.maximum:g}"
    return ", ".join(part for part in (low, high, "or `None`" if option.optional else "") if part)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m forebay.pool._pages FILE")
    Path(sys.argv[1]).write_text(as_markdown(), encoding="utf-8")
