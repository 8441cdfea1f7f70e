"""What a command says when it fails: one line for what the user can mend, the traceback for what only we can."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import typer

from gcnet.errors import GcnetError, UsageError

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
INTERRUPTED: dict[str, str] = {
    "compare": "the same command goes on where it was",
    "demo": "the same command goes on where it was",
    "evaluate": "nothing was written",
    "simplify": "nothing was written",
}


def reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its errors turned into a line on stderr and exit code 1, its warnings into a line each."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            try:
                return command(*args, **kwargs)
            except KeyboardInterrupt as stop:
                left = str(stop) or INTERRUPTED.get(getattr(command, "__name__", ""))
                typer.echo("gcnet: interrupted" + (f"; {left}" if left else ""), err=True)
            except ModuleNotFoundError as error:
                if error.name not in EXTRAS:
                    raise
                typer.echo(f"gcnet: {error.name} is not installed: pip install 'gcnet[{EXTRAS[error.name]}]'", err=True)
            except UsageError as error:
                raise typer.BadParameter(str(error)) from error
            except (OSError, GcnetError) as error:
                typer.echo(f"gcnet: {one_line(error)}", err=True)
            raise typer.Exit(1)

    return run


def one_line(error: Exception) -> str:
    """The message without line breaks; the file of a bare error of the system is part of it."""
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        message = str(error)
    return " ".join(message.split()) or type(error).__name__


def _say_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    typer.echo(f"gcnet: note: {' '.join(str(message).split())}", err=True)
