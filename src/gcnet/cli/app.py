"""The program `gcnet` and the table of its commands, in the order in which the help lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from gcnet.cli.analyze import analyze
from gcnet.cli.blocks import blocks
from gcnet.cli.compare import compare
from gcnet.cli.convert import convert
from gcnet.cli.demo import demo
from gcnet.cli.errors import reported
from gcnet.cli.evaluate import evaluate
from gcnet.cli.export import export
from gcnet.cli.fold import fold
from gcnet.cli.predict import predict
from gcnet.cli.profile import profile
from gcnet.cli.simplify import simplify
from gcnet.cli.train import train
from gcnet.version import __version__

COMMANDS = (demo, train, evaluate, predict, compare, analyze, blocks, profile, fold, simplify, export, convert)

app = typer.Typer(
    help="Global context for vision models: put context blocks into the model you have, train it, compare the blocks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"gcnet {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


for _command in COMMANDS:
    app.command()(reported(_command))


def main() -> None:
    """The program `gcnet`: exit code 0 = done, 1 = failed on the input, 2 = wrong usage."""
    app(prog_name="gcnet")
