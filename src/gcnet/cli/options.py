"""Options made from the fields of `Settings`, options that several commands have, and how their texts are read."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Annotated, Any

import typer

from gcnet.tasks.parts import BLOCK, OBJECTS, OPTIMISER, RUN
from gcnet.tasks.settings import all_fields
from gcnet.tasks.table import TASKS

PANELS = ("", BLOCK, OBJECTS, OPTIMISER, RUN)  # in the order in which the help shows them
FIRST = ("data", "task", "model", "weights")
FLAGS = {"block_options": "--option", "detector_options": "--detector-option"}
BLOCK_OPTIONS = ("block", "stages", "at", "where", "position", "block_options")

Reduction = Annotated[int | None, typer.Option(help="Channels per hidden channel.", rich_help_panel=BLOCK)]


def split(text: str) -> list[str]:
    """The parts of a list such as c3,c4."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str, flag: str, what: str) -> tuple[int, ...]:
    """The numbers of a list, which should be `what`: "sizes such as 640,720"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of {what}", param_hint=flag) from None


def named_values(texts: list[str], flag: str = "--option") -> dict[str, Any]:
    """The values of `--option NAME=VALUE`: JSON where it is JSON (numbers, true, false), none, else text."""
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as reduction=8", param_hint=flag)
        try:
            options[name] = (
                None if value.lower() == "none" else json.loads(value.lower() if value in ("True", "False") else value)
            )
        except ValueError:
            options[name] = value
    return options


# How a field is written -> the type of its option; what is not here is a text that `Settings` itself reads.
TYPES: dict[str, Any] = {
    "int": int,
    "int | None": int | None,
    "float": float,
    "float | None": float | None,
    "bool": bool,
    "Path": Path,
    "Mapping[str, Any]": list[str] | None,
}
READERS: dict[str, Callable[[Any, str], Any]] = {
    "tuple[str, ...] | None": lambda text, flag: tuple(split(text)),
    "tuple[int, ...] | None": lambda text, flag: whole_numbers(text, flag, "sizes such as 640,720,800"),
    "Mapping[str, Any]": named_values,
}


def settings_options(
    names: tuple[str, ...] | None = None, *, required: bool = False, helps: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting; its first argument becomes those that were given, by flat name.

    Args:
        names: of the settings, in the order of the help; None for all.
        required: whether an option without a default must be given.
        helps: texts in place of those of the fields.
    """
    fields = all_fields()
    wanted = dict.fromkeys([*FIRST, *fields]) if names is None else names
    made = [_task() if name == "task" else _option(name, fields[name], required, helps or {}) for name in wanted]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        @functools.wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            given = {name: values.pop(name) for name in wanted}
            said = [name for name in given if context.get_parameter_source(name).name != "DEFAULT"]  # type: ignore[union-attr]
            command({name: _read(name, fields.get(name), given[name]) for name in said}, **values)

        parameters = [_parameter("context", typer.Context), *sorted([*made, *own], key=_place)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _place(parameter: inspect.Parameter) -> float:
    """Of its panel on the page of help: one that is not of the settings comes behind the first."""
    panel = parameter.annotation.__metadata__[0].rich_help_panel or ""
    return PANELS.index(panel) if panel in PANELS else 0.5


def _option(name: str, one: Field[Any], required: bool, helps: Mapping[str, str]) -> inspect.Parameter:
    flags = [FLAGS[name]] if name in FLAGS else []
    option = typer.Option(
        *flags, help=helps.get(name, one.metadata["help"]), rich_help_panel=one.metadata["panel"] or None
    )
    if required and one.default is MISSING and one.default_factory is MISSING:
        return _parameter(name, str, inspect.Parameter.empty, option)
    default = None if one.default is MISSING else one.default
    return _parameter(name, TYPES.get(str(one.type), str | None), default, option)


def _task() -> inspect.Parameter:
    *others, last = TASKS
    return _parameter("task", str, others[0], typer.Option(help=f"{', '.join(others)} or {last}."))


def _parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty, option: Any = None) -> inspect.Parameter:
    annotation = kind if option is None else Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _read(name: str, one: Field[Any] | None, value: Any) -> Any:
    if name == "block" and value == "none":
        return None
    reader = READERS.get(str(one.type)) if one is not None else None
    return value if reader is None else reader(value, FLAGS.get(name, f"--{name.replace('_', '-')}"))
