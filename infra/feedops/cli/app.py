"""How every `feedrank` command behaves: its help, its errors, its consoles."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from feedmodel.errors import CommandError
from feedops.errors import OperationError
from feedops.workspace import is_checkout
from feedrank.errors import FeedrankError

if TYPE_CHECKING:  # Typer brings its own copy of Click, and exports little of it
    from typer._click import Context, Parameter

output = Console()
messages = Console(stderr=True)


def _without_flag_types(parameters: "list[Parameter]") -> "list[Parameter]":
    """`--debug` in the help, not `--debug <bool>`: a flag takes no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    def get_params(self, ctx: "Context") -> "list[Parameter]":
        return _without_flag_types(super().get_params(ctx))


class CheckoutCommand(Command):
    """A command that needs more of the project than a wheel has."""

    def invoke(self, ctx: "Context") -> object:
        if not is_checkout():
            raise OperationError(
                f"feedrank {self.name} needs the project's checkout (handler, templates, events): "
                "clone it and run `make run`; an installed wheel trains and publishes"
            )
        return super().invoke(ctx)


class Group(TyperGroup):
    def get_params(self, ctx: "Context") -> "list[Parameter]":
        return _without_flag_types(super().get_params(ctx))


class MainGroup(Group):
    """Prints the text of an expected error, its details below the first line, and exits with code
    1. With --debug, or for any other error, there is a traceback."""

    def invoke(self, ctx: "Context") -> object:
        try:
            return super().invoke(ctx)
        except (CommandError, FeedrankError, OSError) as error:
            text = _text_of(error)
            if not text or ctx.params["debug"]:
                raise
            message, _, details = text.partition("\n")
            messages.print(Text(message, "bold red"), soft_wrap=True)
            if details:
                messages.print(Text(details, "dim"), soft_wrap=True)
            raise typer.Exit(1) from error


def _text_of(error: Exception) -> str:
    """Empty for an OSError that names no file: nobody could tell what it is about."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else ""
    return str(error)


class CommandLine(typer.Typer):
    def add_commands(
        self, heading: str, *commands: Callable[..., None], checkout: bool = True
    ) -> None:
        """Each command has its function's name. `heading` groups them in `feedrank --help`;
        `checkout` says whether they need the project's checkout."""
        for command in commands:
            self.command(cls=CheckoutCommand if checkout else Command, rich_help_panel=heading)(
                command
            )
