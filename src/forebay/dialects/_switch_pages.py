"""The off switches as a page: ``python -m forebay.dialects._switch_pages docs/reference/engine-options.md``."""

from __future__ import annotations

import sys
from pathlib import Path

from forebay.dialects.switches import DEPRECATED, SWITCHES, Deprecated, Switch

_HEAD = """\
<!-- Made from the table by `python -m forebay.dialects._switch_pages docs/reference/engine-options.md`; change it
there. -->

# Off switches

Forebay's driver adapters do four things that SQLAlchemy does not do. They save a round trip or an error. Each of these
keywords of `create_async_engine` turns one of them off: with `False` it is done exactly as in SQLAlchemy. A driver that
is not listed for an option accepts it and ignores it. `async_engine_from_config` reads `true`, `false` and (for
`begin_with_statement`) `none` from strings, and [the environment](../how-to/settings.md) has a variable for each:
`DB_BEGIN_WITH_STATEMENT` and so on.

With all four off, a transaction sends the same as in SQLAlchemy:

```python
from forebay import create_async_engine

engine = create_async_engine(
    "postgresql+asyncpg://app@localhost/shop",
    begin_with_statement=False,
    rollback_without_wait=False,
    resend_lost_statements=False,
    retry_stale_plans=False,
)
```

| option | default | values | drivers | on | off | why this default |
| --- | --- | --- | --- | --- | --- | --- |
"""

_DEPRECATED = """
## Deprecated names

They work, with a `DeprecationWarning`. Given together with the new name they must say the same.

| name | write instead | warns since | removed in |
| --- | --- | --- | --- |
"""


def as_markdown() -> str:
    """Return the page."""
    switches = "".join(f"| {' | '.join(_cells(switch))} |\n" for switch in SWITCHES)
    return _HEAD + switches + _DEPRECATED + "".join(f"| {' | '.join(_old_cells(old))} |\n" for old in DEPRECATED)


def _cells(switch: Switch) -> tuple[str, ...]:
    return (
        f"[`{switch.name}`]({switch.page})",
        f"`{switch.default!r}`",
        ", ".join(f"`{value!r}`" for value in switch.allowed),
        ", ".join(switch.drivers),
        switch.on,
        switch.off,
        switch.why,
    )


def _old_cells(old: Deprecated) -> tuple[str, ...]:
    values = "; ".join(f'`{old.instead}={new!r}` for `"{value}"`' for value, new in old.values.items())
    return f"`{old.name}`", values, old.since, old.until


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m forebay.dialects._switch_pages FILE")
    Path(sys.argv[1]).write_text(as_markdown(), encoding="utf-8")
