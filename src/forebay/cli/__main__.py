"""Entry point of the ``forebay`` command: a table of subcommands and nothing else.

Typer and rich come with the extra ``forebay[cli]`` and are imported only here and in the subcommands, so ``import
forebay`` needs neither. A subcommand is one line in ``COMMANDS``; its module is imported when the subcommand is used
or listed, and keeps its own heavy imports (SQLAlchemy, the engine) inside the function it names.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from forebay.cli.errors import CliError

if TYPE_CHECKING:
    from typer.core import TyperGroup

#: Subcommand -> ``module:function``, in the order ``forebay --help`` shows them.
COMMANDS: dict[str, str] = {
    "demo": "forebay.cli.demo.command:demo",
    "bench": "forebay.cli.bench.command:bench",
    "size": "forebay.cli.size:size",
    "wait": "forebay.cli.wait:wait",
    "doctor": "forebay.cli.doctor.command:doctor",
    "lazy": "forebay.cli.lazy:lazy",
    "explain": "forebay.cli.explain:explain",
}

_NEEDED = ("typer", "rich")


def main() -> NoReturn:
    """Run the ``forebay`` command with the process's arguments and exit.

    The exit code is 0 for success, 1 for a failure, 2 for a usage error or a refusal, 130 after Ctrl-C.
    """
    try:
        group = _command_group()
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        print(
            f"forebay: the command line needs {error.name}, which is not installed: pip install 'forebay[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    try:
        group(prog_name="forebay")
    except CliError as error:
        # `from None` in spirit: the cause may carry a URL with its password, so only the prepared line is shown.
        print(f"forebay: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    sys.exit(0)


def _command_group() -> Any:
    """Build the Typer group over ``COMMANDS``; no subcommand module is imported yet."""
    import rich  # noqa: F401  Typer does without it, the commands do not
    import typer
    import typer.main

    app = typer.Typer(
        cls=_lazy_group_class(),
        add_completion=False,
        no_args_is_help=True,
        # A traceback drawn with its local variables would show the database URL, password included.
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    return typer.main.get_command(app)


def _options() -> None:
    """Forebay: the async engine, driver adapters and connection pool for SQLAlchemy."""


def _lazy_group_class() -> type[TyperGroup]:
    """Return a Typer group that finds its subcommands in ``COMMANDS``."""
    from typer.core import TyperGroup

    class LazyGroup(TyperGroup):
        """Imports a subcommand's module when that subcommand is asked for."""

        def list_commands(self, ctx: Any) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return _load(cmd_name) if cmd_name in COMMANDS else None

    return LazyGroup


def _load(name: str) -> Any:
    """Import the function behind one subcommand and turn it into a Typer command."""
    import typer
    import typer.main

    module, _, function = COMMANDS[name].partition(":")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command = getattr(import_module(module), function)
    # Paragraphs are rewrapped to the terminal's width; Typer would keep the docstring's own line ends.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    app.command(name, help="\n\n".join(each.replace("\n", " ") for each in paragraphs))(command)
    return typer.main.get_command(app)


if __name__ == "__main__":
    main()
