"""What a command says when it fails: one line for what the user can mend, the traceback for what only we can."""

from __future__ import annotations

import functools
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from gcnet.errors import UsageError

PACKAGE = Path(__file__).parents[1]
EXTRAS = {
    "lightning": "train",
    "torchmetrics": "train",
    "faster_coco_eval": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "mlxtend": "demo",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
}


def reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its errors turned into a line on stderr and exit code 1, its warnings into a line each."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            try:
                return command(*args, **kwargs)
            except KeyboardInterrupt:
                typer.echo("gcnet: interrupted", err=True)
            except ModuleNotFoundError as error:
                if error.name not in EXTRAS:
                    raise
                typer.echo(f"gcnet: {error.name} is not installed: pip install 'gcnet[{EXTRAS[error.name]}]'", err=True)
            except UsageError as error:
                raise typer.BadParameter(str(error)) from error
            except (OSError, ValueError, TypeError) as error:
                if not of_the_user(error):
                    raise
                typer.echo(f"gcnet: {one_line(error)}", err=True)
            raise typer.Exit(1)

    return run


def of_the_user(error: Exception) -> bool:
    """Whether the message is for the user: an error of the system, or one that gcnet itself raised in words."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and PACKAGE in Path(frames[-1].filename).parents


def one_line(error: Exception) -> str:
    """The message without line breaks; the file of a bare error of the system is part of it."""
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        message = str(error)
    return " ".join(message.split()) or type(error).__name__


def _say_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    typer.echo(f"gcnet: note: {' '.join(str(message).split())}", err=True)
