"""Does an exported file compute what the model computes? It is run at two batches and sizes and compared."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gcnet.errors import RewriteError
from gcnet.exporters.program import Dynamic, dtype_inside, outside, prepared
from gcnet.surgery.probe import first_line

TOLERANCE = 1e-4
Run = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Agreement:
    """How far a file is from PyTorch.

    Attributes:
        runtime: what ran the file.
        errors: shape of the input -> |file - PyTorch| / |PyTorch| in the 2-norm, the worst of the outputs.
        allowed: shape of the input -> the largest error that passes.
    """

    runtime: str
    errors: dict[tuple[int, ...], float]
    allowed: dict[tuple[int, ...], float]


class CannotRun(RewriteError):
    """There is no runtime here, or it has no kernel for an operation in this dtype: the file may be right."""


def check_onnx(
    content: bytes, model: nn.Module, *, input_size: Sequence[int], dynamic: Dynamic = True, dtype: str | None = None
) -> Agreement:
    """Run an ONNX file by onnxruntime's CPU provider and compare it with the model it was made from.

    Raises:
        RewriteError: the file does not load, does not take a size it should take, or differs by more than 1e-4
            relative (in half precision: by more than twice what PyTorch in the same dtype differs from float32).
        CannotRun: onnxruntime is not installed, or has no CPU kernel for an operation in this dtype.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise CannotRun('onnxruntime is not installed: pip install "gcnet[export]"') from None

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print it also raises
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no public base
        raise _kind(error)(f"onnxruntime cannot load the exported model: {first_line(error)}") from error

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session.run(None, {"input": x.numpy()})]

    return _compare(f"onnxruntime {onnxruntime.__version__}", run, model, input_size, dynamic, dtype)


def check_program(
    content: bytes, model: nn.Module, *, input_size: Sequence[int], dynamic: Dynamic = True, dtype: str | None = None
) -> Agreement:
    """The same for a .pt2 file, run by PyTorch."""
    program = torch.export.load(io.BytesIO(content)).module()
    return _compare(f"torch {torch.__version__}", lambda x: tree_leaves(program(x)), model, input_size, dynamic, dtype)


def shapes(input_size: Sequence[int], dynamic: Dynamic) -> list[tuple[int, ...]]:
    """The inputs at which a file is compared: other batches than the one it was made with, and another size."""
    if not dynamic:
        return [(1, *input_size)]
    channels, *size = input_size
    grown = [s + 32 * (i + 1) if s >= 32 else 2 * s for i, s in enumerate(size)]
    return [(1, channels, *size), (3, channels, *(grown if dynamic is True else size))]


@torch.no_grad()
def _compare(
    runtime: str, run: Run, model: nn.Module, input_size: Sequence[int], dynamic: Dynamic, dtype: str | None
) -> Agreement:
    same = prepared(model, dtype)
    inside = dtype_inside(model, dtype)
    half = outside(inside) != inside
    exact = copy.deepcopy(model).cpu().to(torch.float32 if half else inside).eval()
    errors: dict[tuple[int, ...], float] = {}
    allowed: dict[tuple[int, ...], float] = {}
    for shape in shapes(input_size, dynamic):
        x = torch.randn(shape, dtype=outside(inside), generator=torch.Generator().manual_seed(0))
        try:
            expected = tree_leaves(exact(x))
        except Exception as error:  # whatever a model raises on a size it is not made for
            raise RewriteError(
                f"the model itself does not take an input of {_by(shape)}, so no file can that takes any size "
                f"({first_line(error)}); fix the size: dynamic='batch' (--fixed-size)"
            ) from error
        try:
            found = run(x)
        except Exception as error:
            message = f"{runtime} cannot run the exported model at {_by(shape)}: {first_line(error)}"
            raise _kind(error)(message) from error
        errors[shape] = distance(found, expected)
        allowed[shape] = TOLERANCE
        if half:
            allowed[shape] = 2 * distance(tree_leaves(same(x)), expected) + torch.finfo(inside).eps
        if not errors[shape] <= allowed[shape]:  # NaN must not pass
            raise RewriteError(
                f"the exported model differs from PyTorch at {_by(shape)}: {errors[shape]:.1e} relative by {runtime}, "
                f"allowed is {allowed[shape]:.1e}; no file was written"
            )
    return Agreement(runtime, errors, allowed)


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest |found - expected| / |expected| of the outputs; infinite where shapes differ."""
    if [tuple(y.shape) for y in found] != [tuple(y.shape) for y in expected]:
        return float("inf")
    tiny = torch.finfo(torch.float64).tiny
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm().clamp_min(tiny)) for a, b in pairs)


def _by(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape))


def _kind(error: Exception) -> type[RewriteError]:
    return CannotRun if "NOT_IMPLEMENTED" in str(error) else RewriteError
