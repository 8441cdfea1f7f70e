"""The parts of a run's settings: frozen records whose fields say what they are and what is allowed. Needs no torch.

The help text beside a field is the one that the command line shows; its panel is the heading that it stands under.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gcnet.errors import SettingsError, choice, whole

BLOCK, OPTIMISER, OBJECTS, RUN = "The block and its place", "Optimisation", "Detectors", "The run"


def setting(
    default: Any, help: str = "", *, panel: str = "", flat: str = "", lowest: float | None = None, free: bool = False
) -> Any:
    """A field of a part.

    Args:
        default: the value unless another is given; MISSING for none; `dict` for an empty one.
        help: what it is, in one sentence.
        panel: heading of its option on the command line.
        flat: its name beside the settings of other parts, if it is not that of the field.
        lowest: a whole number allows whole numbers from there, another any numbers from there.
        free: it does not change what is computed, so a resumed run may have another.
    """
    metadata = {"help": help, "panel": panel, "flat": flat, "lowest": lowest, "free": free}
    if default is dict:
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def named(part: type[Part]) -> Iterator[tuple[str, Field[Any]]]:
    """The fields of a part by the names that they have beside those of other parts."""
    return ((one.metadata["flat"] or one.name, one) for one in fields(part))


@dataclass(frozen=True, kw_only=True)
class Part:
    """Checks what is said beside the fields, and turns lists into tuples."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name, one in named(type(self)):
            value, lowest = getattr(self, one.name), one.metadata["lowest"]
            if get_origin(hints[one.name]) is Literal:
                choice(name, value, get_args(hints[one.name]), kind=SettingsError)
            elif isinstance(lowest, int):
                whole(name, value, lowest, kind=SettingsError)
            elif lowest is not None and not (isinstance(value, int | float) and lowest <= value < float("inf")):
                raise SettingsError(f"{name}={value!r}: allowed are numbers from {lowest:g}")
            elif isinstance(value, list):
                object.__setattr__(self, one.name, tuple(value))


@dataclass(frozen=True, kw_only=True)
class DataSettings(Part):
    """What is learnt from.

    Args:
        path: a folder or CSV file of images; for detect and instances a folder that `gcnet.data.load_detection` reads;
            for scenes "cue", "dial-1", "dial-2", "dial-3", "mirror" or "twice" (`gcnet.scenes.draw`), of clothes
            "cue/fashion" and so on.
        image_size: side of the square input in pixels; None for the size that the model was published with. Of a
            detector the short side (None: 800); the long side is at most 5/3 of it.
    """

    path: str = setting(
        MISSING,
        "Folder or CSV of images; of COCO or VOC for objects; for scenes: cue, dial-1 to dial-3, mirror, twice, "
        "cue/fashion ...",
        flat="data",
    )
    image_size: int | None = setting(None, "Pixels (of a detector the short side); else as the model was published.")
    batch_size: int = setting(32, "Images in a batch.", lowest=1)
    workers: int = setting(0, "Processes that read images.", panel=RUN, lowest=0, free=True)
    cache: bool = setting(False, "Keep decoded images in memory.", panel=RUN, free=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "path", str(self.path))
        if self.image_size is not None and (type(self.image_size) is not int or self.image_size < 8):
            raise SettingsError(f"image_size={self.image_size!r}: allowed are whole numbers of pixels from 8, or None")


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Part):
    """What is trained.

    Args:
        name, weights: as in `gcnet.create_model`.
        options: of a detector, further arguments of `gcnet.models.detection.create_detector`, such as norm.
        deform: stages whose 3x3 convolutions become deformable, as in `gcnet.deform`.
    """

    name: str = setting("resnet50", "A torchvision classifier, timm/NAME, a detector, or scenes.", flat="model")
    weights: str | None = setting(None, "imagenet, or a file of weights.")
    options: Mapping[str, Any] = setting(
        dict, "NAME=VALUE for create_detector, such as norm=frozen.", panel=OBJECTS, flat="detector_options"
    )
    deform: tuple[str, ...] | None = setting(
        None, "Stages with deformable convolutions, such as c3,c4,c5.", panel=OBJECTS
    )


@dataclass(frozen=True, kw_only=True)
class BlockSettings(Part):
    """Which block is put in, and where: the arguments of `gcnet.insert`."""

    name: str | None = setting(None, "gc, snl, se, nl, ...; none: the plain model.", panel=BLOCK, flat="block")
    stages: tuple[str, ...] | None = setting(None, "Such as c3,c4,c5.", panel=BLOCK)
    at: str | None = setting(None, "Glob over module names, in place of stages.", panel=BLOCK)
    where: str | int | tuple[int, ...] | None = setting(
        None, "all, last, before_last, or indices such as 0,2.", panel=BLOCK
    )
    position: str | None = setting(None, "after_1x1, after_add, before_3x3 or after_3x3.", panel=BLOCK)
    options: Mapping[str, Any] = setting(
        dict, "NAME=VALUE for the block; may be repeated.", panel=BLOCK, flat="block_options"
    )

    def places(self) -> dict[str, Any]:
        """The arguments of `insert` that say where, as far as they are given, and those of the block."""
        given = {"stages": self.stages, "at": self.at, "where": self.where, "position": self.position}
        return {name: value for name, value in given.items() if value is not None} | dict(self.options)


@dataclass(frozen=True, kw_only=True)
class Optimisation(Part):
    """How weights are updated.

    `lr` is the highest learning rate; the inserted blocks get `lr * block_lr`. `warmup_epochs` rises linearly to it
    before cosine, steps and constant, over half of all steps at most; `warmup_steps`, if not 0, takes its place.
    one_cycle has a rise of its own (30 % of the steps). "steps" divides lr by 10 after 8/12 and again after 11/12 of
    all steps, which are the published 1x (12 epochs: after 8 and 11) and 2x (24: after 16 and 22).
    `clip_norm` bounds the 2-norm of all gradients together, 0 turns that off. The gradients of `accumulate` batches
    are added up for one step. `ema` is the decay of a moving average of the weights, which is validated and kept.
    """

    epochs: int = setting(30, "Passes through the training images.", lowest=1)
    accumulate: int = setting(1, "Batches per step.", lowest=1)
    optimizer: Literal["adamw", "sgd"] = setting("adamw", "adamw or sgd.", panel=OPTIMISER)
    lr: float = setting(1e-3, "Highest learning rate.", panel=OPTIMISER)
    block_lr: float = setting(1.0, "Multiplies lr for the inserted blocks.", panel=OPTIMISER, lowest=0.0)
    weight_decay: float = setting(0.05, "Not of norms and biases.", panel=OPTIMISER, lowest=0.0)
    schedule: Literal["cosine", "one_cycle", "steps", "constant"] = setting(
        "cosine", "cosine, one_cycle, steps or constant.", panel=OPTIMISER
    )
    warmup_epochs: float = setting(1.0, "Epochs until lr is reached.", panel=OPTIMISER, lowest=0.0)
    warmup_steps: int = setting(0, "In place of epochs, if not 0.", panel=OPTIMISER, lowest=0)
    clip_norm: float = setting(1.0, "Bound on the gradients' norm; 0: none.", panel=OPTIMISER, lowest=0.0)
    ema: float | None = setting(None, "Decay of averaged weights, such as 0.999.", panel=OPTIMISER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.lr < float("inf"):
            raise SettingsError(f"lr={self.lr!r}: allowed are numbers above 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise SettingsError(f"ema={self.ema!r}: allowed are numbers between 0 and 1, such as 0.999, or None")


@dataclass(frozen=True, kw_only=True)
class TaskSettings(Part):
    """What one task has and others do not: nothing, unless it has a type of its own."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(Part):
    """How and where a run is computed: the run is the folder `runs/name`.

    Args:
        seed: decides initialisation, data order and augmentation; the same for every block.
        devices: processes of a machine that train together, one per GPU where there are GPUs.
        nodes: machines that train together; torchrun or SLURM starts a process for each device of each.
        save_every: steps between further writings of the last checkpoint, for epochs that take hours; 0 for none.
    """

    name: str = setting("run", "The run is the folder RUNS/NAME.", panel=RUN, free=True)
    runs: Path = setting("runs", "The folder of all runs.", panel=RUN, free=True)  # noqa: RUF009
    seed: int = setting(0, "Decides initialisation, order and augmentation.", panel=RUN, lowest=0)
    devices: int = setting(1, "Processes, one per GPU.", panel=RUN, lowest=1)
    nodes: int = setting(1, "Machines, each started by torchrun or SLURM.", panel=RUN, lowest=1)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = setting(
        "32-true", "32-true, 16-mixed or bf16-mixed.", panel=RUN
    )
    channels_last: bool = setting(True, "Memory format of model and images.", panel=RUN)
    save_every: int = setting(0, "Steps between checkpoints inside an epoch; 0: none.", panel=RUN, lowest=0, free=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "runs", Path(self.runs))
        if not self.name or Path(self.name).is_absolute() or ".." in Path(self.name).parts:
            raise SettingsError(f"name={self.name!r}: allowed are names of folders inside runs={str(self.runs)!r}")


def idle(name: str, value: Any, task: str) -> SettingsError:
    """The refusal of a setting that another task has."""
    return SettingsError(f"{name}={value!r} does nothing for task={task!r}; leave it out")
