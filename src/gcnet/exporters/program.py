"""A model as a captured program, from which every file for other programs starts, and as a .pt2 file.

Half precision stays inside the file: inputs and outputs are float32, since numpy has no bfloat16 and images arrive as
float32 anyway.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_map

from gcnet.errors import RewriteError
from gcnet.surgery import record
from gcnet.version import __version__

Dynamic = bool | Literal["batch"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_AXES = {1: ("length",), 2: ("height", "width"), 3: ("frames", "height", "width")}


def export_program(
    model: nn.Module, *, input_size: Sequence[int], dynamic: Dynamic = True, dtype: str | None = None
) -> bytes:
    """The model as the content of a .pt2 file, which `torch.export.load` opens; arguments as for `export_onnx`."""
    check_arguments(input_size, dynamic, dtype)
    file = io.BytesIO()
    with quiet():
        torch.export.save(
            capture(model, input_size, dynamic, dtype),
            file,
            extra_files=description(model, input_size, dynamic, dtype),
        )
    return file.getvalue()


def description(model: nn.Module, input_size: Sequence[int], dynamic: Dynamic, dtype: str | None) -> dict[str, str]:
    """What a file says about its model, each entry JSON; what is not known is left out.

    | key | content |
    |---|---|
    | `gcnet.version` | the version that wrote the file |
    | `gcnet.architecture` | the arguments of `create_model`, and the rewrites |
    | `gcnet.preprocessing` | size, resize, interpolation, mean, std and channel order of photographs |
    | `gcnet.classes` | names in the order of the logits |
    | `gcnet.export` | axes of the input that may vary, dtype inside, dtype of input and outputs, torch's version |
    """
    built = record.architecture(model)
    inside = dtype_inside(model, dtype)
    entries: dict[str, Any] = {
        "gcnet.version": __version__,
        "gcnet.architecture": (built or {"name": type(model).__name__}) | {"rewrites": record.rewrites(model)},
        "gcnet.preprocessing": record.preprocessing(model),
        "gcnet.classes": record.classes(model),
        "gcnet.export": {
            "input": [*named_axes(input_size, dynamic).values()],
            "input_size": list(input_size),
            "dtype": _name(inside),
            "input_dtype": _name(outside(inside)),
            "torch": torch.__version__,
        },
    }
    return {key: json.dumps(value) for key, value in entries.items() if value is not None}


def check_arguments(input_size: Sequence[int], dynamic: Dynamic, dtype: str | None) -> None:
    """Raise RewriteError unless the arguments of an export make sense."""
    sizes = list(input_size)
    if len(sizes) not in (2, 3, 4) or not all(type(size) is int and size > 0 for size in sizes):
        raise RewriteError(
            f"input_size={tuple(sizes)}: expected channels and one to three spatial sizes, whole numbers from 1, "
            "for example (3, 224, 224)"
        )
    if dynamic not in (True, False, "batch"):
        raise RewriteError(f"dynamic={dynamic!r} is unknown; use True (batch and size), 'batch' or False")
    if dtype is not None and dtype not in DTYPES:
        raise RewriteError(f"dtype={dtype!r} is unknown; use one of {', '.join(map(repr, DTYPES))}")


class InHalfPrecision(nn.Module):
    """A model in half precision between inputs and outputs of float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, input: Tensor) -> Any:
        return tree_map(lambda output: output.float(), self.model(input.to(self.dtype)))


def prepared(model: nn.Module, dtype: str | None) -> nn.Module:
    """A copy on the CPU in eval mode, in the dtype asked for, that takes and gives `outside(dtype)`."""
    inside = dtype_inside(model, dtype)
    result = copy.deepcopy(model).cpu().to(inside).eval()
    return result if outside(inside) == inside else InHalfPrecision(result, inside).eval()


def outside(inside: torch.dtype) -> torch.dtype:
    """The dtype of input and outputs of a file that computes in `inside`."""
    return torch.float32 if inside in (torch.float16, torch.bfloat16) else inside


def dtype_inside(model: nn.Module, dtype: str | None) -> torch.dtype:
    if dtype is not None:
        return DTYPES[dtype]
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def capture(model: nn.Module, input_size: Sequence[int], dynamic: Dynamic, dtype: str | None) -> ExportedProgram:
    batch = 2 if dynamic else 1  # an example of one image would fix the batch at one
    x = torch.zeros(batch, *input_size, dtype=outside(dtype_inside(model, dtype)))
    axes = {axis: Dim.DYNAMIC for axis, name in named_axes(input_size, dynamic).items() if isinstance(name, str)}
    with quiet(), torch.no_grad():
        try:
            program = torch.export.export(prepared(model, dtype), (x,), dynamic_shapes=(axes,) if axes else None)
        except Exception as error:  # whatever the model or the tracer raises
            hint = {True: "; try dynamic='batch' or False (--fixed-size, --static)", "batch": "; try dynamic=False"}
            raise RewriteError(
                f"the model cannot be exported with dynamic={dynamic!r}: {reason_of(error)}{hint.get(dynamic, '')}"
            ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of the machine that exported
    return program


def named_axes(input_size: Sequence[int], dynamic: Dynamic) -> dict[int, str | int]:
    """Every axis of the input: its name if it may vary, else its size."""
    names = _AXES[len(input_size) - 1]
    spatial = names if dynamic is True else tuple(input_size[1:])
    return dict(enumerate(("batch" if dynamic else 1, input_size[0], *spatial)))


def reason_of(error: BaseException) -> str:
    """The operation that stopped an exporter where it names one, else the first line of what it said."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(str(cause))
        cause = cause.__cause__
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", "\n".join(chain))
    if missing:
        return f"there is no ONNX function for {missing[1]}"
    said = chain[-1].strip()
    return f"{type(error).__name__}: {said.splitlines()[0][:300]}" if said else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' remarks about their own future and optimiser, and the graphs they print when they fail."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
