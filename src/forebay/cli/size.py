"""``forebay size [URL]``: how many connections each process may have, from numbers, a plan or the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from forebay.engine.sizing import Budget, Plan, ServerLimits, Sizing


def size(
    url: Annotated[
        str | None,
        typer.Argument(help="Database to ask for its limits (read-only).", show_default=False),
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(min=1, help="What the server allows, where no URL is given.", show_default=False)
    ] = None,
    reserved: Annotated[
        int | None,
        typer.Option(min=0, help="Of these, not to be used (3, or what the server says).", show_default=False),
    ] = None,
    others: Annotated[
        int | None,
        typer.Option(min=0, help="Connections of other applications (0, or those there are).", show_default=False),
    ] = None,
    plan: Annotated[
        str | None, typer.Option(help="A provider's plan, such as neon:1cu; see --providers.", show_default=False)
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes of one replica, such as uvicorn --workers.")] = 1,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas: machines, pods, containers.")] = 1,
    pool_size: Annotated[
        int | None, typer.Option(min=1, help="Check this pool_size instead of proposing one.", show_default=False)
    ] = None,
    max_overflow: Annotated[
        int | None, typer.Option(min=0, help="And this max_overflow (10).", show_default=False)
    ] = None,
    app: Annotated[
        str | None, typer.Option(help="Application name whose connections are not others'.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait for the server.")] = 10.0,
    providers: Annotated[bool, typer.Option("--providers", help="List the plans and what people quote.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say how many connections each process may have, and what is left for others.

    Limits come from the server at URL, from a provider's plan or from --max-connections. With --pool-size it checks
    that setting, multiplied by processes and replicas.

    Exit code: 0 it fits, 1 it does not fit or the server could not be asked, 2 wrong usage.
    """
    from forebay.cli.interrupts import run
    from forebay.cli.output import print_json, stdout
    from forebay.engine.sizing import Budget, by_reserve, by_share, find_plan

    if providers:
        print_json(_provider_data()) if json else _draw_providers(stdout())
        return
    sources = [source for source in (url, max_connections, plan) if source is not None]
    if len(sources) != 1:
        raise typer.BadParameter("give one of URL, --max-connections and --plan")
    if max_overflow is not None and pool_size is None:
        raise typer.BadParameter("--max-overflow goes with --pool-size")

    limits = found = None
    if url is not None:
        limits = run(_ask(url, app, timeout))
        # A limit of the role or the database is below what the server leaves to ordinary accounts already.
        own = limits.limited_by != "server"
        total, kept, used = limits.limit, 0 if own else limits.kept_back, limits.others_within(limits.limited_by)
    elif plan is not None:
        found = find_plan(plan)
        if found is None:
            raise typer.BadParameter(f"no plan {plan!r}; forebay size --providers lists them")
        total, kept, used = found.max_connections, found.reserved, 0
    else:
        assert max_connections is not None
        total, kept, used = max_connections, 3, 0
    kept = kept if reserved is None else reserved
    used = used if others is None else others
    if kept > total:
        raise typer.BadParameter(f"{kept} connections cannot be reserved of {total}")

    sizings = [by_share(total, processes, replicas)]
    sizings.append(by_reserve(total, min(total, kept + used), processes, replicas))
    budgets = [Budget(total, kept, used, processes, replicas, each.pool_size, each.max_overflow) for each in sizings]
    asked = None
    if pool_size is not None:
        asked = Budget(total, kept, used, processes, replicas, pool_size, 10 if max_overflow is None else max_overflow)
    if json:
        print_json(_data(limits, found, sizings, budgets, asked))
    else:
        _draw(stdout(), limits, found, sizings, budgets, asked)
    judged = [asked] if asked is not None else budgets
    # Of two proposals one that fits is enough.
    if all(each.state() == "over" for each in judged):
        raise typer.Exit(1)


async def _ask(url: str, app: str | None, timeout_s: float) -> ServerLimits:
    from sqlalchemy.pool import NullPool

    from forebay.cli.any_url import any_database
    from forebay.cli.database import open_engine
    from forebay.cli.errors import CliError, Refused
    from forebay.engine.sizing import read_limits

    database = any_database(url)
    if database.backend == "sqlite":
        raise Refused("SQLite has no limit of connections: one writes at a time, whatever the pool's size")
    engine = open_engine(database, poolclass=NullPool)
    try:
        with database.explaining("read the limits"):
            return await read_limits(engine, application_name=app, timeout_s=timeout_s)
    except TimeoutError:
        raise CliError(f"could not read the limits ({database.label}): no answer within {timeout_s:g} s") from None


_NAMES = {"share": "80 % and 10 %", "reserve": "all but reserved"}
_MARKS = {"ok": ("fits", "green"), "warning": ("fits, tight", "yellow"), "over": ("does not fit", "red")}


def _draw(
    console: Console,
    limits: ServerLimits | None,
    plan: Plan | None,
    sizings: list[Sizing],
    budgets: list[Budget],
    asked: Budget | None,
) -> None:
    from rich import box
    from rich.table import Table

    from forebay.engine.sizing.formula import WARN_SHARE

    first = budgets[0]
    if limits is not None:
        _draw_limits(console, limits)
    elif plan is not None:
        note = f" ({plan.note})" if plan.note else ""
        console.print(f"[bold]{plan.name}[/]: {plan.max_connections} connections, {plan.reserved} reserved{note}")
    taken = f", {first.others} in use by others" if first.others else ""
    console.print(
        f"{first.max_connections} connections, {first.reserved} reserved{taken}; "
        f"processes x replicas: {first.processes} x {first.replicas} = {first.processes * first.replicas}\n"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("for each process", no_wrap=True)
    for name in ("pool_size", "max_overflow", "worst case", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    # A proposal uses as much as its formula says, so that much is no warning.
    rows = [(_NAMES[each.formula], budget, 1.0) for each, budget in zip(sizings, budgets, strict=True)]
    if asked is not None:
        rows.append(("as you asked", asked, WARN_SHARE))
    for name, budget, warn_at in rows:
        text, colour = _MARKS["ok" if budget.share <= warn_at == 1 else budget.state(warn_at)]
        cells = (budget.pool_size, budget.max_overflow, budget.worst_case, budget.left)
        table.add_row(name, *map(str, cells), f"[{colour}]{text}[/]")
    console.print(table)
    console.print((asked or budgets[0]).sentence() + ".", soft_wrap=True)


def _draw_limits(console: Console, limits: ServerLimits) -> None:
    from rich.markup import escape

    which = {"server": "", "role": ", limited for this role", "database": ", limited for this database"}
    console.print(
        f"[bold]{limits.database} {escape(limits.version)}[/]: {limits.limit} connections{which[limits.limited_by]}; "
        f"{limits.superuser_reserved} for superusers, {limits.reserved} otherwise reserved"
    )
    users = ", ".join(f"{escape(name)} {number}" for name, number in list(limits.by_application.items())[:8])
    seen = "" if limits.complete else "; this account does not see all about them"
    console.print(f"in use now: {limits.in_use}{f' ({users})' if users else ''}{seen}", soft_wrap=True)
    if limits.superuser:
        console.print("[yellow]this account is a superuser: an application should not be one[/]")


def _data(
    limits: ServerLimits | None,
    plan: Plan | None,
    sizings: list[Sizing],
    budgets: list[Budget],
    asked: Budget | None,
) -> dict[str, Any]:
    from forebay.cli.output import plain

    first = budgets[0]
    return {
        "command": "size",
        "server": None if limits is None else {**plain(limits), "limit": limits.limit, "limited_by": limits.limited_by},
        "plan": None if plan is None else plain(plan),
        "max_connections": first.max_connections,
        "reserved": first.reserved,
        "others": first.others,
        "processes": first.processes,
        "replicas": first.replicas,
        "proposals": [
            {"formula": sizing.formula, **_budget_data(budget)} for sizing, budget in zip(sizings, budgets, strict=True)
        ],
        "asked": None if asked is None else _budget_data(asked),
    }


def _budget_data(budget: Budget) -> dict[str, Any]:
    return {
        "pool_size": budget.pool_size,
        "max_overflow": budget.max_overflow,
        "worst_case": budget.worst_case,
        "left": budget.left,
        "share": round(budget.share, 4) if budget.usable else None,
        "state": budget.state(),
    }


def _draw_providers(console: Console) -> None:
    from rich import box
    from rich.table import Table

    from forebay.engine.sizing import PLANS, QUOTES

    plans = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Plans (hints: the server's own answer wins)")
    for name in ("plan", "connections", "reserved", "pooler clients", "note"):
        plans.add_column(name, justify="left" if name in ("plan", "note") else "right")
    for plan in PLANS:
        clients = "" if plan.pooler_clients is None else str(plan.pooler_clients)
        plans.add_row(plan.name, str(plan.max_connections), str(plan.reserved), clients, plan.note)
    console.print(plans)
    quotes = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="What people quote, multiplied out")
    for name in ("where", "connections", "replicas", "each", "worst case", ""):
        quotes.add_column(name, justify="left" if name in ("where", "") else "right")
    for quote in QUOTES:
        mark = "[red]overcommits[/]" if quote.overcommits else ""
        cells = (quote.max_connections, quote.replicas, f"{quote.pool_size} + {quote.max_overflow}", quote.worst_case)
        note = " ".join(part for part in (mark, quote.note) if part)
        quotes.add_row(quote.where, *("" if cell is None else str(cell) for cell in cells), note)
    console.print(quotes)


def _provider_data() -> dict[str, Any]:
    from forebay.cli.output import plain
    from forebay.engine.sizing import PLANS, QUOTES

    quotes = [{**plain(each), "worst_case": each.worst_case, "overcommits": each.overcommits} for each in QUOTES]
    return {"command": "size", "plans": [plain(each) for each in PLANS], "quotes": quotes}
