"""``forebay lazy``: every relationship that plain attribute access would load."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer


def lazy(
    module: Annotated[str, typer.Argument(metavar="MODULE", help="The module with the models, such as shop.models.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List every relationship with lazy='select', SQLAlchemy's default: attributes whose reading fails in async code.

    The module is imported from the current directory; no database is opened. Models of the loaded modules of the same
    package are listed too. forebay.lazy_relationships(Base) returns the same list to a test of yours.

    Exit code: 0 there is none, 1 there are some, 2 wrong usage.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from forebay.cli.doctor.target import namespaces_of
    from forebay.cli.errors import CliError, Refused
    from forebay.cli.output import print_json, stdout
    from forebay.session.lazy_loading import all_relationships, lazy_relationships, registries_in

    # What the application prints when it is imported is not part of the list.
    with contextlib.redirect_stdout(sys.stderr):
        names = namespaces_of(module)
    registries = list(registries_in(value for each in names for value in each.values()))
    if not registries:
        raise Refused("there is no declarative base and no model in that module")
    try:
        total, found = len(all_relationships(*registries)), lazy_relationships(*registries)
    except SQLAlchemyError as error:
        raise CliError(f"the models cannot be configured: {error}") from error
    if as_json:
        rows = [
            {
                "relationship": str(each),
                "module": each.model.__module__,
                "target": each.target.__name__,
                "many": each.many,
                "awaitable": each.awaitable,
            }
            for each in found
        ]
        print_json({"ok": not found, "relationships": total, "lazy": rows})
    else:
        console = stdout()
        for each in found:
            kind = "many" if each.many else "one"
            how = ", has awaitable_attrs" if each.awaitable else ""
            console.print(f"{each.model.__module__}.{each} -> {each.target.__name__} ({kind}{how})", soft_wrap=True)
        console.print(f"{len(found)} of {total} relationships with lazy='select'")
    if found:
        raise typer.Exit(1)
