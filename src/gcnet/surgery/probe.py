"""One dummy forward pass: what do the modules of a model put out, and of which shape?"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gcnet.errors import RewriteError
from gcnet.surgery.record import preprocessing
from gcnet.surgery.watching import watching

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Seen:
    """The shapes of a module's first argument and of its output, one per call; None stands for no tensor."""

    inputs: list[tuple[int, ...] | None] = field(default_factory=list)
    outputs: list[tuple[int, ...] | None] = field(default_factory=list)


@dataclass(frozen=True)
class Probe:
    """The input's shape and what each watched module saw."""

    example: tuple[int, ...]
    seen: dict[str, Seen]


def probe(model: nn.Module, names: Iterable[str], example: Any = None) -> Probe:
    """Run the model once on `example`, or on a guessed input, and note the shapes at the named modules.

    The model is run in eval mode without gradients and left as it was: batch-norm statistics, modes and hooks.

    Raises:
        RewriteError: no input could be guessed that the model takes.
    """
    modules = {name: model.get_submodule(name) for name in names}
    seen: dict[str, Seen] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen[name].inputs.append(_shape(args[0]) if args else None)
        seen[name].outputs.append(_shape(output))

    failures = []
    for candidate in _examples(model, example):
        seen.update({name: Seen() for name in modules})
        arguments = candidate if isinstance(candidate, tuple) else (candidate,)
        try:
            with evaluating(model), torch.no_grad(), watching(modules, note):
                model(*arguments)
        except Exception as error:  # whatever the model raises on a shape it does not take
            if example is not None:
                raise RewriteError(f"the model fails on the given example: {first_line(error)}") from error
            failures.append(f"{tuple(arguments[0].shape)}: {first_line(error)}")
            continue
        return Probe(tuple(arguments[0].shape), seen)
    tried = "; ".join(failures) if failures else "it has no convolution to guess the input from"
    raise RewriteError(
        f"no dummy input suits the model ({tried}); give one, for instance example=torch.zeros(1, 3, 224, 224)"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode; afterwards each of its modules is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def example_arguments(model: nn.Module, example: Any = None) -> tuple[Any, ...]:
    """The arguments of a forward pass: the given example, or random normal numbers of a shape that the model takes.

    Raises:
        RewriteError: no input could be guessed that the model takes.
    """
    if example is None:
        shape = probe(model, ()).example
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like(model))
    return example if isinstance(example, tuple) else (example,)


def example_input(model: nn.Module) -> Tensor:
    """One image of zeros of the size that a model of `create_model` expects, on its device."""
    parameter = next(model.parameters())
    described = preprocessing(model)
    shape = (1, 3, *described.get("size", (128, 128))) if described else (1, 1, 48, 48)  # detectors: any size
    return torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


def exact(t: Tensor) -> Tensor:
    """Detached and in float64, in which weights are merged; on the CPU where the device has no float64."""
    t = t.detach()
    return (t.cpu() if t.device.type == "mps" else t).double()


def like(model: nn.Module) -> Tensor:
    """A tensor of the model's device and floating-point type."""
    return next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))


def is_channels_last(t: Tensor) -> bool:
    """Whether a tensor of four dimensions lies in memory with the channels last, and in no other way."""
    return t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors in what a model returns: also inside mappings, sequences and plain objects such as dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        inner: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple | set):
        inner = value
    elif isinstance(value, nn.Module) or not hasattr(value, "__dict__"):
        return []
    else:
        inner = vars(value).values()
    return [tensor for item in inner for tensor in tensors_in(item)]


def floating_tensors(value: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(value) if tensor.is_floating_point()]


def first_line(error: Exception) -> str:
    """What an error of somebody else's says first, for a message of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _examples(model: nn.Module, example: Any) -> Iterable[Any]:
    """Inputs to try: the given one, the model's own `example_input_array`, then zeros guessed from its first conv."""
    if example is not None:
        yield example
        return
    own = getattr(model, "example_input_array", None)
    if isinstance(own, Tensor):
        yield own.to(like(model))
        return
    conv = next((module for module in model.modules() if isinstance(module, CONVS)), None)
    if conv is None:
        return
    dims = conv.weight.ndim - 2
    sizes: list[tuple[int, ...]] = [(128,) * dims if dims < 3 else (16, 64, 64)]
    known = (preprocessing(model) or {}).get("size") or getattr(model, "default_cfg", {}).get("input_size", ())[-2:]
    if dims == 2 and len(known) == 2 and tuple(known) not in sizes:
        sizes.append(tuple(known))
    channels = dict.fromkeys((conv.in_channels, 3, 1))
    for size in sizes:
        for count in channels:
            yield torch.zeros(1, count, *size).to(like(model))


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
