"""The folder of a run: who may write into it, how it began, how it ended."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from gcnet.errors import RunError, UsageError
from gcnet.files.atomic import write_text
from gcnet.tasks.settings import Settings, changed, from_json, to_json
from gcnet.version import hardware, versions


@dataclass(frozen=True)
class Run:
    """A run that ended: its folder and the content of its `summary.json`."""

    folder: Path
    summary: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


def check_new(folder: Path) -> None:
    """Refuse a folder that holds anything."""
    if folder.is_file():
        raise RunError(f"{folder} is a file; choose another name for the run")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if (folder / "settings.json").exists():
        state = read_summary(folder).get("status", "interrupted")
        raise RunError(
            f"{folder} holds a run that is {state}; go on with it by `gcnet train --resume {folder}` "
            f"(resume=True in Python), choose another name, or delete the folder"
        )
    raise RunError(f"{folder} is not empty and holds no run; choose another name for the run")


def settings_to_resume(folder: Path, given: Mapping[str, Any]) -> Settings:
    """Those that the run in this folder began with, changed by what was given, by flat names."""
    if not (folder / "settings.json").exists():
        raise UsageError(f"resume: {folder} holds no run (no settings.json)")
    if "recipe" in given:
        raise UsageError("recipe: a run that is resumed keeps its recipe; --epochs may grow")
    return replace(from_json(folder / "settings.json"), runs=folder.parent, name=folder.name, **given)


def check_resumable(folder: Path, settings: Settings) -> None:
    """Refuse to go on where there is no run, or with other settings than it began with."""
    if not (folder / "settings.json").exists():
        raise RunError(f"{folder} holds no run to resume (no settings.json); start it without resume")
    began = from_json(folder / "settings.json")
    differences = changed(began, settings)
    stretches = began.optimisation.schedule != "one_cycle"
    if stretches and settings.optimisation.epochs > began.optimisation.epochs:
        differences = [text for text in differences if not text.startswith("epochs:")]
    if differences:
        may_grow = "only epochs may grow" if stretches else "one_cycle is planned for its epochs"
        raise RunError(
            f"{folder} cannot be resumed with other settings ({'; '.join(differences)}): {may_grow}; "
            "give the run another name to train with these"
        )


def check_data(folder: Path, fingerprint: str) -> None:
    """Refuse to go on with other data."""
    began = _read(folder / "run.json")
    if began and began.get("data") != fingerprint:
        raise RunError(
            f"the data of {folder} changed since the run began (files added, removed, renamed or of another size); "
            "restore them, or start another run"
        )


def begin(folder: Path, settings: Settings, fingerprint: str) -> None:
    """Write `settings.json` and `run.json`; a resumed run keeps its own and notes when it went on."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    began = _read(folder / "run.json")
    if not began:
        began = {
            "command": shlex.join(sys.argv),
            "started": now,
            "resumed": [],
            "seed": settings.run.seed,
            "data": fingerprint,
            "versions": {"python": platform.python_version(), **versions()},
            "hardware": hardware(),
        }
    else:
        began["resumed"] = [*began.get("resumed", []), now]
    write_text(folder / "settings.json", to_json(settings))
    write_text(folder / "run.json", json.dumps(began, indent=2) + "\n")


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of `summary.json`, empty if the run has not written one."""
    return _read(folder / "summary.json")


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
