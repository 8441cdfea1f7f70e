"""The command line: one file per command, each of which loads torch only when it runs."""

from gcnet.cli.app import COMMANDS as COMMANDS
from gcnet.cli.app import app as app
from gcnet.cli.app import main as main

__all__ = ["COMMANDS", "app", "main"]
