"""What the Triton ops share: which tensors they serve, memory layouts, and how positions are split over programs.

Nothing here imports triton: only the files called programs.py do, and only when a kernel is first launched.
B images, C channels, P positions.
"""

import math
import os
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gcnet.errors import GcnetError

HAS_TRITON = find_spec("triton") is not None
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MAX_SPLITS = 256


def serves(x: Tensor) -> bool:
    """Whether the Triton ops take this map: on CUDA, float32 or half precision, Triton installed, no export under way.

    Never true for a CPU tensor: with TRITON_INTERPRET=1 only a direct call of an op reaches the interpreter. An
    exported graph keeps to operators that every runtime knows.
    """
    return (
        x.is_cuda
        and HAS_TRITON
        and x.dtype in DTYPES
        and not torch.compiler.is_exporting()
        and x.numel() <= (2**31 - 1) * x.shape[0]  # offsets inside an image are 32-bit
    )


class Layout(NamedTuple):
    """How the kernels see a dense map: the size of the contiguous dimension in units of `align`, and the other size."""

    units: int
    outer: int
    align: int  # the largest power of two up to 16 that divides the contiguous size: how wide a load may be
    channels_last: bool


def dense(x: Tensor) -> Tensor:
    """x itself if it is contiguous or channels-last (in any number of dimensions), else a contiguous copy.

    Raises:
        ValueError: x has a dtype that the kernels do not take.
    """
    if x.dtype not in DTYPES:
        raise GcnetError(f"x has dtype {x.dtype}; the Triton ops take float32, float16 and bfloat16")
    return x if x.is_contiguous() or x.movedim(1, -1).is_contiguous() else x.contiguous()


def layout(x: Tensor) -> Layout:
    """Of a map that `dense` has returned."""
    C, P = x.shape[1], x.shape[2:].numel()
    channels_last = not x.is_contiguous()
    inner, outer = (C, P) if channels_last else (P, C)
    align = math.gcd(inner, 16)
    return Layout(inner // align, outer, align, channels_last)


def in_layout_of(x: Tensor, other: Tensor) -> Tensor:
    """other with the strides of x, a dense map of the same shape: itself if it has them, else a copy."""
    return other if other.stride() == x.stride() else torch.empty_like(x, dtype=other.dtype).copy_(other)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def slots(x: Tensor, per_processor: int) -> int:
    """How many programs run at once; in the interpreter a small number that makes small maps be split too."""
    if not x.is_cuda:
        return 6
    return per_processor * torch.cuda.get_device_properties(x.device).multi_processor_count


@lru_cache(maxsize=4096)
def split(images: int, tiles: int, slots: int) -> tuple[int, int]:
    """(steps, splits): tiles per program and programs per image that keep all slots busy to the end.

    The estimated time is waves of programs times tiles per program; one tile more stands for start and combination.

    Example:
        >>> split(32, 132, 132)  # four images at a time would leave slots idle in the last wave
        (33, 4)
    """
    best, best_cost = (tiles, 1), math.inf
    for steps in range(tiles, 0, -1):
        splits = -(-tiles // steps)
        if splits > MAX_SPLITS:
            break
        cost = -(-images * splits // slots) * (steps + 1)
        if cost < best_cost:
            best, best_cost = (steps, splits), cost
    return best


def launch(
    kernel: Any, grid: tuple[int, ...], x: Tensor, *arguments: Any, at: Layout | None = None, **options: Any
) -> None:
    """Run a Triton program, whose first argument is x, on the device of x. On the CPU only the interpreter takes it.

    With `at` it gets what `triton_tiles` asks for: units, outer, ALIGN and CHANNELS_LAST.
    Fused multiply-adds are asked for: Triton means to change its default.
    """
    if at is not None:
        options |= {"units": at.units, "outer": at.outer, "ALIGN": at.align, "CHANNELS_LAST": at.channels_last}
    if x.is_cuda:
        with torch.cuda.device(x.device):
            kernel[grid](x, *arguments, enable_fp_fusion=True, **options)
        return
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise GcnetError(
            f"x is on device {x.device}; the Triton ops run on CUDA (or, for tests, on the CPU with "
            "TRITON_INTERPRET=1 set before Triton is imported)"
        )
    kernel[grid](x, *arguments, **options)
