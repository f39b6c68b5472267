"""``forebay bench [URL]``: the options, and the order in which things happen."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    url: Annotated[
        str | None,
        typer.Argument(
            help="Async database URL, such as postgresql+asyncpg://user:password@host/database. "
            "Without one it runs on a SQLite file of its own.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Time for the measuring.")] = 45.0,
    tasks: Annotated[
        int | None,
        typer.Option(
            min=1, max=500, help="Concurrent tasks, and connections each (10; on SQLite 1).", show_default=False
        ),
    ] = None,
    pre_ping: Annotated[bool, typer.Option("--pre-ping", help="Give both engines pool_pre_ping=True.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare stock SQLAlchemy, the raw driver and Forebay on the same operations.

    The three take turns in one process, round after round; shown are medians and ratios of medians, the cases Forebay
    loses included.

    Makes its own tables (forebay_bench_*), refuses to run if one of them exists, and removes them at the end, also
    after Ctrl-C or an error. Exit code: 0 done, 1 failed, 2 refused.
    """
    from forebay.cli.bench.report import as_data, draw
    from forebay.cli.bench.run import run_bench
    from forebay.cli.interrupts import run
    from forebay.cli.output import print_json, stdout

    result = run(run_bench(url, seconds=seconds, tasks=tasks, pre_ping=pre_ping, quiet=json))
    if json:
        print_json(as_data(result))
    else:
        draw(result, stdout())
