"""The command line, one module a command; a new file here is a new command.

Our choice; the paper has no counterpart. A module holds ``HELP``, one sentence, and ``build()``, which imports what the
command needs and returns a typer function. Only the command that is used is built, so that ``--help`` never waits for
torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pudnet_lib.errors import PudNetError

#: Modules of this package that are no commands.
HELPERS = ("options", "progress")


class LazyCommand(TyperCommand):
    """A command that is known by name and help line, and built when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Build the real command and hand the arguments to it."""
        module = importlib.import_module(f"{__name__}.{(self.name or '').replace('-', '_')}")
        app = typer.Typer(add_completion=False)
        app.command(name=self.name, help=f"{module.HELP}\n\n{getattr(module, 'DETAILS', '')}")(module.build())
        real = typer.main.get_command(app)
        return real.make_context(info_name, args, parent=parent, **extra)


class LazyGroup(TyperGroup):
    """Finds the commands by the files of this package."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of all commands."""
        found = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(name.replace("_", "-") for name in found if name not in HELPERS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give the placeholder of a command; None for an unknown one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        return LazyCommand(name=cmd_name, help=module.HELP)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _pudnet() -> None:
    """PudNet Kit: predict the parameters of ConvNets for unseen image data.

    A folder of images in, a working ConvNet out: pudnet predict FOLDER --out DIR. All experiments: pudnet reproduce.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command and end the process: 0 done, 1 something failed, 2 bad input (one line on stderr), 130 Ctrl-C.

    Args:
        arguments: Command line without the program's name; by default the process's.
    """
    try:
        app(arguments, prog_name="pudnet")
    except PudNetError as error:
        print(f"pudnet: {error}", file=sys.stderr)
        sys.exit(2)
