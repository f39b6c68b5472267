"""The index as pages of the documentation, written by ``python -m forebay.hints docs/errors``; a test compares them."""

from __future__ import annotations

from forebay.hints._entry import Hint

__all__ = ["index_page", "page"]

_MADE = "<!-- Made from the error index by `python -m forebay.hints docs/errors`; change it there. -->"


def page(hint: Hint) -> str:
    """Return the page of one error, in Markdown."""
    parts = [_MADE, f"# {hint.code}", "```text\n" + "\n".join(hint.texts) + "\n```", "## Why", hint.cause]
    parts += ["## What to do", "\n".join(f"{number}. {text}" for number, text in enumerate(hint.remedies, 1))]
    if hint.instead:
        parts.append("## Do this instead")
        if hint.instead_setup:
            parts.append(f"<!-- setup\n{hint.instead_setup.rstrip()}\n-->")
        parts.append(f"```python\n{hint.instead.rstrip()}\n```")
    if hint.stock:
        parts += ["## With SQLAlchemy's own engine", hint.stock]
    parts.append(f"On the command line: `forebay explain {hint.code}`. [All errors](index.md)")
    return "\n\n".join(parts) + "\n"


def index_page(hints: tuple[Hint, ...]) -> str:
    """Return the page that lists every error by the text users see."""
    rows = [f"| `{_cell(text)}` | [{hint.code}]({hint.code}.md) |" for hint in hints for text in hint.texts]
    return "\n".join(
        [
            _MADE,
            "",
            "# Errors",
            "",
            'What you see, and its page. `forebay explain "the text"` finds it for you, from a whole traceback too:',
            "",
            "    my-program 2>&1 | forebay explain",
            "",
            "An exception that leaves Forebay's engine, session or pool carries the same as a note.",
            "",
            "| text | page |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
