"""One forward pass, watched: multiply-accumulates by module, and the most memory its tensors took at once."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gcnet.ops  # noqa: F401  (registers its operators)
from gcnet.surgery.probe import evaluating
from gcnet.surgery.watching import watching

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Observation:
    """What one forward pass in evaluation mode did.

    Attributes:
        events: (name of a module, MACs) in the order of the pass: a module is entered (0 MACs), or products were
            computed in it and in none of its children. A module under several names has the first one.
        peak_bytes: the most memory taken at once by tensors that the pass made; see `gcnet.profile`.
    """

    events: tuple[tuple[str, int], ...]
    peak_bytes: int

    @property
    def macs(self) -> int:
        return sum(macs for _, macs in self.events)


def observe(model: nn.Module, images: Tensor) -> Observation:
    """Run the model once, in evaluation mode without gradients; its modes and statistics stay as they are."""
    from torch.utils.flop_counter import FlopCounterMode  # here, since it imports triton

    events: list[tuple[str, int]] = []
    with evaluating(model), ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        peak = stack.enter_context(_peak_bytes(model, images))
        counter = stack.enter_context(FlopCounterMode(display=False, custom_mapping=_formulas()))
        stack.enter_context(_noting(model, counter, events))
        outputs = model(images)
        peak_bytes = peak()
        del outputs
    return Observation(tuple(events), peak_bytes)


@contextmanager
def _noting(model: nn.Module, counter: FlopCounterMode, events: list[tuple[str, int]]) -> Iterator[None]:
    """Inside, what was counted between entering and leaving modules is written into `events`."""
    inside: list[str] = []
    counted = 0

    def note() -> None:
        nonlocal counted
        macs = counter.get_total_flops() // 2 - counted
        if macs:
            events.append((inside[-1], macs))
            counted += macs

    def enter(name: str, *_: Any) -> None:
        note()
        inside.append(name)
        events.append((name, 0))

    def leave(*_: Any) -> None:
        note()
        inside.pop()

    with watching(dict(model.named_modules()), leave, enter=enter, outermost=True):
        yield


@contextmanager
def _peak_bytes(model: nn.Module, images: Tensor) -> Iterator[Callable[[], int]]:
    """A function that tells the peak so far, above what was there before."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
        before = torch.cuda.memory_allocated(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        yield lambda: torch.cuda.max_memory_allocated(images.device) - before
    else:
        with _TensorBytes([images, *model.parameters(), *model.buffers()]) as seen:
            yield lambda: seen.peak


class _TensorBytes(TorchDispatchMode):
    """Adds up the storages of all tensors that operators return, from their first sight until they are freed."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {StorageWeakRef(tensor.untyped_storage()).cdata: 0 for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = StorageWeakRef(storage).cdata
        if key not in self.bytes:
            self.bytes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.bytes.pop(key)


def _pooled_transform(h: Any, key: Any, reduce: Any, *rest: Any, **_: Any) -> int:
    """gcnet::pooled_transform: an attention pool if there is a key, and one or two linear layers."""
    expand = rest[3]
    layers = math.prod(expand) + (0 if reduce is None else math.prod(reduce))
    return 2 * h[0] * layers + (0 if key is None else 4 * math.prod(h))


def _formulas() -> dict[Any, Any]:
    """What torch.utils.flop_counter leaves out or cannot know; torchvision's, if the model can have them."""
    prod = math.prod
    found: dict[Any, Any] = {
        torch.ops.aten.mv: lambda a, *_, **__: 2 * prod(a),
        torch.ops.aten.dot: lambda a, *_, **__: 2 * prod(a),
        torch.ops.aten.addmv: lambda _, matrix, *__, **___: 2 * prod(matrix),
        torch.ops.gcnet.attention_pool: lambda x, *_, **__: 4 * prod(x),  # logits and weighted sum
        torch.ops.gcnet.pooled_transform: _pooled_transform,
    }
    if "torchvision" in sys.modules:  # the convolution; the sampling is not counted
        found[torch.ops.torchvision.deform_conv2d] = lambda x, weight, *_, out_shape, **__: (
            2 * x[0] * prod(weight) * prod(out_shape[2:])
        )
    return found
