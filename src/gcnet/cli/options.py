"""Options that several commands have, and how their texts are read."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

BLOCK_PANEL = "The block and its place"

Weights = Annotated[str | None, typer.Option(help="imagenet, or a file of weights.")]
Stages = Annotated[str | None, typer.Option(help="Such as c3,c4,c5.", rich_help_panel=BLOCK_PANEL)]
Reduction = Annotated[int | None, typer.Option(help="Channels per hidden channel.", rich_help_panel=BLOCK_PANEL)]
At = Annotated[
    str | None, typer.Option(help="Glob over module names, in place of stages.", rich_help_panel=BLOCK_PANEL)
]
Where = Annotated[
    str | None, typer.Option(help="all, last, before_last, or indices such as 0,2.", rich_help_panel=BLOCK_PANEL)
]
Position = Annotated[
    str | None, typer.Option(help="after_1x1, after_add, before_3x3 or after_3x3.", rich_help_panel=BLOCK_PANEL)
]
Option = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE for the block; may be repeated.", rich_help_panel=BLOCK_PANEL)
]


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


def split(text: str) -> list[str]:
    """The parts of a list such as c3,c4."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str, flag: str, what: str) -> tuple[int, ...]:
    """The numbers of a list, which should be `what`: "sizes such as 640,720"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of {what}", param_hint=flag) from None
