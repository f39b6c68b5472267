"""``forebay demo [URL]``: the options, and the order in which things happen."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    url: Annotated[
        str | None,
        typer.Argument(
            help="Async database URL, such as postgresql+asyncpg://user:password@host/database. "
            "Without one the demo runs on a SQLite file of its own.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long the traffic runs.")] = 5.0,
    tasks: Annotated[int, typer.Option(min=1, max=10_000, help="Requests under way at a time.")] = 20,
    pool_size: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Connections at most (10; on SQLite 4).", show_default=False),
    ] = None,
    orders: Annotated[int, typer.Option(min=1, max=1_000_000, help="Orders loaded beforehand.")] = 5000,
    seed: Annotated[int, typer.Option(help="Decides the data and what the tasks ask for.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a small storefront under concurrent traffic and check its data.

    Makes its own tables (forebay_demo_*), refuses to run if one of them exists, and removes them at the end, also after
    Ctrl-C or an error. Exit code: 0 all well, 1 failed, 2 refused.
    """
    from forebay.cli.demo.report import as_data, draw
    from forebay.cli.demo.run import Options, run_demo
    from forebay.cli.interrupts import run
    from forebay.cli.output import print_json, stdout

    options = Options(seconds=seconds, tasks=tasks, pool_size=pool_size, orders=orders, seed=seed, quiet=json)
    result = run(run_demo(url, options))
    if json:
        print_json(as_data(result))
    else:
        draw(result, stdout())
    if not result.succeeded:
        raise typer.Exit(1)
