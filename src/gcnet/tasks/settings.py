"""Every setting of one training run: frozen parts in one frozen record, called with flat names or with parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, InitVar, asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gcnet.errors import SettingsError, UsageError
from gcnet.tasks.parts import (
    BlockSettings,
    DataSettings,
    ModelSettings,
    Optimisation,
    Part,
    RunSettings,
    TaskSettings,
    idle,
    named,
)
from gcnet.tasks.spec import TaskSpec
from gcnet.tasks.table import TASKS, spec

FORMAT = 2  # of settings.json; the first one was flat, had every setting for every task, and has no number
OLD_TASKS = {"segment": "instances"}
SAID_FOR_ALL = ("label_smoothing", "mixup", "scales", "photometric", "strict")  # and meant for some tasks only


@dataclass(frozen=True, kw_only=True, init=False)
class Settings:
    """All that decides one run; saved as `settings.json` in the run's folder.

    Called with flat names, each of which belongs to one part, or with whole parts: `Settings(data="pictures", lr=0.1)`
    is `Settings(data=DataSettings(path="pictures"), optimisation=Optimisation(lr=0.1))`. Three names are those of a
    part and of its first field, `data` (path), `model` (name) and `block` (name); others that differ are
    `detector_options` (model.options), `block_options` (block.options) and `name` (run.name). `dataclasses.replace`
    takes flat names, too.

    Args:
        task: "classify", "detect", "instances" or "scenes".
        data, model, block, optimisation, run: see the parts in `gcnet.tasks.parts`. What is not given has the task's
            default, else the part's.
        own: what only this task has, such as `label_smoothing` or `scales`.
        base: settings that hold where nothing is given.

    Raises:
        SettingsError: a value that is not allowed, a name that is none or that does nothing for the task.
    """

    task: str
    data: DataSettings
    model: ModelSettings
    block: BlockSettings
    optimisation: Optimisation
    own: TaskSettings
    run: RunSettings
    # `dataclasses.replace` passes on what it reads under this name: what is given beside it changes these settings.
    base: InitVar[Settings | None] = property(lambda self: self)  # type: ignore[assignment] # noqa: RUF009

    def __init__(self, *, base: Settings | None = None, **given: Any) -> None:
        task = given.pop("task", "classify" if base is None else base.task)
        known = spec(task)
        if base is None:
            given = known.derive(given)
        types, names = _types(known), flat_fields(known)
        wholes: dict[str, Part] = {} if base is None else {part: getattr(base, part) for part in types}
        values: dict[str, dict[str, Any]] = {part: {} for part in types}
        for name, value in given.items():
            if isinstance(value, Part) and name in types:
                wholes[name] = value
            elif name in names:
                part, one = names[name]
                values[part][one.name] = value
            else:
                raise _refusal(name, value, task)
        object.__setattr__(self, "task", task)
        for part, kind in types.items():
            object.__setattr__(self, part, _made(part, kind, wholes.get(part), values[part], known))
        for name in known.idle:
            part, one = names[name]
            if value := getattr(getattr(self, part), one.name):
                raise idle(name, value, task)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.run.runs / self.run.name


def flat_fields(known: TaskSpec) -> dict[str, tuple[str, Field[Any]]]:
    """Every setting of a task by its flat name: its part, and the field with default, help text and panel."""
    return {name: (part, one) for part, kind in _types(known).items() for name, one in named(kind)}


def all_fields() -> dict[str, Field[Any]]:
    """The settings of all tasks by their flat names, each with default, help text and panel."""
    return {name: one for task in TASKS for name, (_, one) in flat_fields(spec(task)).items()}


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting by its flat name; `task` first."""
    parts = flat_fields(spec(settings.task))
    return {"task": settings.task} | {
        name: getattr(getattr(settings, part), one.name) for name, (part, one) in parts.items()
    }


def _types(known: TaskSpec) -> dict[str, type[Part]]:
    return {
        "data": DataSettings,
        "model": ModelSettings,
        "block": BlockSettings,
        "optimisation": Optimisation,
        "own": known.settings,
        "run": RunSettings,
    }


def _made(part: str, kind: type[Part], whole: Part | None, values: Mapping[str, Any], known: TaskSpec) -> Part:
    if part == "own" and type(whole) is not kind and whole == type(whole)():
        whole = None  # what another task has and was not set
    if whole is None:
        defaults = {one.name: known.defaults[name] for name, one in named(kind) if name in known.defaults}
        missing = [
            name
            for name, one in named(kind)
            if one.name not in values and one.default is MISSING and one.default_factory is MISSING
        ]
        if missing:
            raise SettingsError(f"{missing[0]} is not given, and has no default")
        return kind(**{**defaults, **values})
    if type(whole) is not kind:
        raise SettingsError(f"{part}={whole!r} does not go with task={known.name!r}, whose {part} is {kind.__name__}")
    return replace(whole, **values) if values else whole


def _refusal(name: str, value: Any, task: str) -> SettingsError:
    if any(name in flat_fields(spec(other)) for other in TASKS):
        return idle(name, value, task)
    takers = [other for other in TASKS if name in spec(other).shorthands]
    if takers:
        return UsageError(f"{name}={value!r} goes with --task {' or '.join(takers)}")
    known = ", ".join(flat_fields(spec(task)))
    return SettingsError(f"{name}={value!r}: there is no such setting; those of task={task!r} are {known}")


def to_json(settings: Settings) -> str:
    """The settings as JSON text."""
    return json.dumps({"format": FORMAT, **asdict(settings)}, indent=2, default=str) + "\n"


def from_json(path: Path) -> Settings:
    """The settings in a run's `settings.json`, also of a run of version one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "format" not in values:
            return _of_version_one(values)
        if values.pop("format") != FORMAT:
            raise SettingsError(f"its format is not {FORMAT}: another version of gcnet wrote it")
        parts = _types(spec(values["task"]))
        given: dict[str, Any] = {name: kind(**values.pop(name)) for name, kind in parts.items()}
        return Settings(**given, **values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} does not hold the settings of a run ({error})") from error


def _of_version_one(values: dict[str, Any]) -> Settings:
    task: str = values.get("task", "classify")
    task = OLD_TASKS.get(task, task)
    own = {name for name, _ in named(spec(task).settings)}
    kept = {name: value for name, value in values.items() if name not in SAID_FOR_ALL or name in own}
    return Settings(**{**kept, "task": task})


def changed(old: Settings, new: Settings) -> list[str]:
    """The settings that differ, each as "name: old -> new", apart from those that do not change what is computed."""
    before, after = (json.loads(json.dumps(flat(settings), default=str)) for settings in (old, new))
    free = {name for name, (_, one) in flat_fields(spec(new.task)).items() if one.metadata["free"]}
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in {**before, **after}
        if name not in free and before.get(name) != after.get(name)
    ]
