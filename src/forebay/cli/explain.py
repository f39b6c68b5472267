"""``forebay explain``: from the text of an error to its cause and what to do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.cli.errors import CliError, Refused

if TYPE_CHECKING:
    from forebay.hints import Hint


class NotFound(CliError):
    """Nothing in the index is in the text."""


def explain(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="The error's text, or its code. Without it, or with -, read from standard input."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Explain an error message: code, cause, remedy, page.

    Takes a line or a whole traceback. Exits with 0 when the error is known, with 1 when it is not; then what comes near
    is named.
    """
    from forebay.hints import explain as recognise
    from forebay.hints import find, nearest

    given = " ".join(text or [])
    if given in ("", "-"):
        if not given and sys.stdin.isatty():
            raise Refused("give the text of an error, or pipe a traceback in: my-program 2>&1 | forebay explain")
        given = sys.stdin.read()
    if not given.strip():
        raise Refused("there is no text to explain")
    by_code = find(given)
    found = [by_code] if by_code is not None else [each.hint for each in recognise(given)]
    near = [] if found else nearest(given)
    if as_json:
        from forebay.cli.output import print_json

        print_json({"found": [_facts(hint) for hint in found], "near": [_facts(hint) for hint in near]})
        if not found:
            raise typer.Exit(1)
        return
    if not found:
        # The text is not repeated: it may hold a URL with its password.
        offer = "; near it: " + ", ".join(hint.code for hint in near) + " (forebay explain CODE)" if near else ""
        raise NotFound(f"this text is not in the error index{offer}. All errors: docs/errors/index.md")
    _print(found[0])
    if len(found) > 1:
        from forebay.cli.output import stdout

        stdout().print("also in this text: " + ", ".join(hint.code for hint in found[1:]), markup=False)


def _print(hint: Hint) -> None:
    from rich.text import Text

    from forebay.cli.output import stdout

    console = stdout()
    console.print(Text(hint.code, style="bold"))
    console.print(Text(f"  {hint.texts[0]}", style="dim"))
    console.print(Text(f"\nWhy: {hint.cause}\n"))
    for number, remedy in enumerate(hint.remedies, 1):
        console.print(Text(f"{number}. {remedy}"))
    console.print(Text(f"\nPage: {hint.page}"))


def _facts(hint: Hint) -> dict[str, Any]:
    return {
        "code": hint.code,
        "text": hint.texts[0],
        "cause": hint.cause,
        "remedies": list(hint.remedies),
        "url": hint.page,
    }
