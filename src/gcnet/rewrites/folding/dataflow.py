"""Which layer feeds which, seen in one forward pass: what `fold` may merge, and where a tensor has no other reader.

Convolutions and norms are recognised by the parameters that reach the functional call, not by their class: a layer
that changes its weight on the way (standardised, parametrised, quantised) is not seen, and so never merged. What made a
tensor is known as long as the tensor lives, so the pass takes no more memory than it would.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from gcnet.surgery.probe import tensors_in
from gcnet.surgery.watching import watching

CONVS = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
NORMS = {"batch_norm"}
# Functions whose result is a new tensor, or the changed first argument: no view of somebody else's memory.
FRESH = CONVS | NORMS | {"add", "add_", "__add__", "__iadd__", "mul", "mul_", "__mul__", "__imul__"}
FRESH |= {"relu", "relu_", "relu6", "silu", "hardswish", "gelu", "mish", "leaky_relu", "elu", "hardtanh"}
# Calls that look at a tensor's form and not at its values.
_QUESTIONS = {"size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex", "__len__"}


@dataclass
class Layer:
    """One watched layer: a convolution, a norm or a block.

    Attributes:
        kind: "conv", "norm" or "block".
        sources: What made its input, one entry per call: the name of a layer, or of a function in parentheses.
        readers: What read its output, over all calls, in the same notation; "(output)" where the model returned it.
    """

    kind: str
    sources: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Made:
    """What made a tensor: a layer, or a function in parentheses; the function, if it is one of FRESH; who read it."""

    source: str
    function: str = ""
    readers: list[str] = field(default_factory=list)


class Dataflow(TorchFunctionMode):
    """Watches one forward pass of a model.

    Args:
        model: in eval mode.
        blocks: the modules, by name, that count as one layer, whatever they do inside.
    """

    def __init__(self, model: nn.Module, blocks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers: dict[str, Layer] = {}
        self._made = WeakTensorKeyDictionary()
        self._inputs: dict[str, list[_Made]] = defaultdict(list)  # of each block, one per call
        self._blocks = blocks
        self._inside = 0
        self._owner: dict[int, str] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            if any(name.startswith(block + ".") for block in blocks):
                continue
            key = None
            if isinstance(module, nn.modules.conv._ConvNd):
                # a parametrised weight is made anew at each look, and is no parameter
                key = dict(module.named_parameters(recurse=False)).get("weight")
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                key = dict(module.named_buffers(recurse=False)).get("running_mean")
            if key is not None:
                self._owner.setdefault(id(key), name)

    def run(self, model: nn.Module, arguments: tuple[Any, ...]) -> Any:
        """One pass without gradients; returns the model's output."""
        with watching(self._blocks, self._leave, enter=self._enter), torch.no_grad(), self:
            output = model(*arguments)
        for tensor in tensors_in(output):
            self._read(tensor, "(output)")
        return output

    def only_reader(self, name: str) -> str | None:
        """The one layer that reads this layer's output, at every call; None if there is none or another reader."""
        layer = self.layers.get(name)
        readers = set(layer.readers) if layer else set()
        if layer is None or len(readers) != 1 or len(layer.readers) != len(layer.sources):
            return None
        reader = readers.pop()
        return reader if reader in self.layers and set(self.layers[reader].sources) == {name} else None

    def owns_input(self, block: str) -> bool:
        """Whether nothing but this block reads its input, which is a new tensor: it may be overwritten."""
        calls = self._inputs[block]
        return bool(calls) and all(made.function in FRESH and len(made.readers) == 1 for made in calls)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if self._inside or (name == "__get__" and not isinstance(out, Tensor)):  # a shape, a dtype
            return out
        owner, kind = None, ""
        if name in CONVS or name in NORMS:
            key = args[1] if len(args) > 1 else kwargs.get("weight" if name in CONVS else "running_mean")
            owner, kind = self._owner.get(id(key)), "conv" if name in CONVS else "norm"
        if not owner and name in _QUESTIONS:
            return out
        reader = owner or f"({name})"
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        in_place = bool(inputs) and out is inputs[0] and not owner
        origin = self._maker(inputs[0]).function if in_place else name
        sources = [self._read(tensor, reader) for tensor in inputs]
        if owner:
            self.layers.setdefault(owner, Layer(kind)).sources.append(sources[0])
        if isinstance(out, Tensor):
            self._made[out] = _Made(reader, origin if origin in FRESH and name in FRESH else "")
        return out

    def _maker(self, tensor: Tensor) -> _Made:
        return self._made.get(tensor) or _Made("(input)")

    def _read(self, tensor: Tensor, reader: str) -> str:
        made = self._maker(tensor)
        made.readers.append(reader)
        if made.source in self.layers:
            self.layers[made.source].readers.append(reader)
        return made.source

    def _enter(self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._inside:
            x = args[0] if args else next(iter(kwargs.values()))
            self.layers.setdefault(name, Layer("block")).sources.append(self._read(x, name))
            self._inputs[name].append(self._maker(x))
        self._inside += 1

    def _leave(self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self._inside -= 1
        if not self._inside and isinstance(output, Tensor):
            self._made[output] = _Made(name)
