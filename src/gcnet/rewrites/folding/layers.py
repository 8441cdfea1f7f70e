"""The layers of a folded model: a context block merged with the convolution before it, or the one behind it.

B images, C channels of the wide map y, K channels of the narrow map h, P positions. Inference only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet import ops
from gcnet.blocks.context import ContextBlock, over_map, scale_and_add
from gcnet.errors import RewriteError
from gcnet.ops.context_vectors import Branch
from gcnet.surgery.probe import exact

_WEIGHTS = ("reduce_weight", "reduce_bias", "norm_weight", "norm_bias", "expand_weight", "expand_bias")  # of a Branch
_REFUSAL = (
    "train(True) on a folded model: its norms and blocks are merged into the convolutions; train the model that went "
    "into fold, then fold again. Call eval() on what holds it, and train(True) on its other parts only"
)


class Merged(nn.Module):
    """A layer that is made of several: it cannot go back into training mode.

    PyTorch tells a module of its mode before it tells the children. So a layer refuses by its class, and whatever holds
    one (`keep_in_eval`) refuses before anything inside has changed. What stands around a folded model has its own flag
    set by then: `eval` mends it.
    """

    def train(self, mode: bool = True) -> Any:
        if mode:
            raise RewriteError(_REFUSAL)
        return super().train(mode)


class FoldedContext(Merged):
    """y = fuse(W h + b, context of y): a 1x1 convolution and the context block behind it (arXiv 1904.11492, eq. 5).

    The context is taken from the narrow map: `w_k . (W h_j + b) = (W^T w_k) . h_j + const`, the constant cancels in the
    softmax, and `sum_j alpha_j (W h_j + b) = W (sum_j alpha_j h_j) + b` since the alphas sum to one. W and b go into
    the first layer of each transform, b and the added vector into the bias of the convolution.

    Shape:
        h (B, K, *spatial) -> (B, C, *spatial); `residual`, if given, is like the output and is added to it.
    """

    def __init__(self, conv: Any, block: ContextBlock) -> None:
        super().__init__()
        W = exact(conv.weight).flatten(1)
        b = W.new_zeros(len(W)) if conv.bias is None else exact(conv.bias)
        self.gate = block.gate
        self.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=conv.weight.requires_grad)
        key, scale, add = _tensors(block)
        self.key = None if key is None else _parameter(exact(key) @ W, conv.weight)
        self.scale = None if scale is None else FoldedTransform(scale, W, b)
        added = b if scale is None else None  # with a scale, b has to be scaled too
        self.add = None if add is None else FoldedTransform(add, W, b, added)
        self.bias = None if scale is None else _parameter(b, conv.weight)

    def forward(self, h: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        scale, shift = _vectors(self, h)
        weight, bias = self.weight, self.bias
        if _one_image(h) and not h.is_cuda:
            if shift is not None and scale is None:
                bias, shift = shift.squeeze(0), None
            elif scale is not None and residual is None and h[0, 0].numel() > h.shape[1]:  # the map is the larger
                scale_C = scale.reshape(-1)
                weight = weight * scale_C.reshape(-1, *[1] * (weight.ndim - 1))
                assert bias is not None
                bias = bias * scale_C if shift is None else torch.addcmul(shift.reshape(-1), bias, scale_C)
                scale = shift = None
        return join(convolve(h, weight, bias), scale, shift, residual, relu)


class FoldedBlock(Merged):
    """A context block that stays on its map, whose only reader it is: fusion writes into the map."""

    def __init__(self, block: ContextBlock) -> None:
        super().__init__()
        self.gate = block.gate
        key, scale, add = _tensors(block)
        self.key = None if key is None or block.key is None else _parameter(key, block.key.weight)
        self.scale = None if scale is None else FoldedTransform(scale)
        self.add = None if add is None else FoldedTransform(add)

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        return join(x, *_vectors(self, x), residual, relu)


class ContextThenConv(Merged):
    """y = W (gate * x + t) + b: a context block and the 1x1 convolution behind it.

    The gate scales the input channels of the convolution and t joins its bias, `W t + b`, where the weight is smaller
    than the map; elsewhere fusion writes into the map, whose only reader the block is.

    Shape:
        x (B, K, *spatial) -> (B, C, *spatial).
    """

    def __init__(self, block: ContextBlock, conv: Any) -> None:
        super().__init__()
        self.block = FoldedBlock(block)
        self.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=conv.weight.requires_grad)
        self.bias = None if conv.bias is None else _parameter(conv.bias, conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        if not _one_image(x) or x[0, 0].numel() < self.weight.shape[0]:
            return convolve(self.block(x), self.weight, self.bias)
        scale, shift = _vectors(self.block, x)
        weight, bias = self.weight, self.bias
        if shift is not None:
            bias = F.linear(shift.reshape(-1), weight.flatten(1), bias)
        if scale is not None:
            weight = weight * over_map(scale, weight)
        return convolve(x, weight, bias)


class FoldedTransform(nn.Module):
    """A block's transform as plain weights.

    Args:
        branch: the block's.
        W: (C, K) and
        b: (C,), of the convolution in front: pooled vectors (B, K) of the narrow map come in, W and b merge into the
            first layer. None: pooled vectors (B, C) of the map itself.
        shift: (C,), added to what comes out.
    """

    def __init__(
        self, branch: Branch, W: Tensor | None = None, b: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        super().__init__()
        self.eps, self.activation = branch.eps, branch.activation
        first, gains, last = (
            None if weight is None else (exact(weight), exact(weight.new_zeros(len(weight)) if bias is None else bias))
            for weight, bias in zip(branch.weights[::2], branch.weights[1::2], strict=True)
        )
        assert last is not None
        if W is not None and b is not None:
            weight, bias = first or last
            merged = weight @ W, bias + weight @ b
            first, last = (None, merged) if first is None else (merged, last)
        if shift is not None:
            last = last[0], last[1] + shift
        like = branch.weights[4] if first is None else branch.weights[0]
        values = [*(first or (None, None)), *(gains or (None, None)), *last]
        for name, value in zip(_WEIGHTS, values, strict=True):
            self.register_parameter(name, None if value is None else _parameter(value, like))

    def branch(self) -> Branch:
        """What `context_vectors` takes."""
        own = self._parameters  # an attribute that is a parameter takes a call in Python; a pruned one is not in here
        weights = tuple([own[name] if name in own else getattr(self, name) for name in _WEIGHTS])
        return Branch(weights, self.eps, self.activation)


def _vectors(layer: FoldedContext | FoldedBlock, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The gate's scale and the added shift, (B, C) each, which fusion needs; None for the one unused."""
    scale, add = (None if transform is None else transform.branch() for transform in (layer.scale, layer.add))
    return scale_and_add(x, layer.key, scale, add, layer.gate)


def join(y: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
    """relu(y * scale + shift + residual); without gradients it is written into y, which nobody else reads."""
    if torch.is_grad_enabled() or y.is_cuda:
        return ops.fuse(y, scale=scale, shift=shift, residual=residual, relu=relu)
    if scale is not None and shift is None and residual is not None:
        y = torch.addcmul(residual, y, over_map(scale, y), out=y)
        return y.relu_() if relu else y
    if scale is not None:
        y = y.mul_(over_map(scale, y))
    if shift is not None:
        y = y.add_(over_map(shift, y))
    if residual is not None:
        y = y.add_(residual)
    return y.relu_() if relu else y


def _one_image(x: Tensor) -> bool:
    """Whether the batch is one image, and will be: a size that is being traced is no plain number."""
    return type(x.shape[0]) is int and x.shape[0] == 1


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution with kernel and stride 1."""
    return (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3](x, weight, bias)


def _parameter(value: Tensor, like: Any) -> nn.Parameter:
    value = value.detach().to(like.device, like.dtype).contiguous()
    return nn.Parameter(value, requires_grad=like.requires_grad)


def _tensors(block: ContextBlock) -> tuple[Tensor | None, Branch | None, Branch | None]:
    tensors = block.as_tensors()
    assert tensors is not None  # `fold` leaves others as they are
    return tensors


class StayInEval:
    """Takes the place of the `train` method of a module that holds merged layers."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        if mode:
            raise RewriteError(_REFUSAL)
        return type(self.module).train(self.module, mode)


def keep_in_eval(model: nn.Module) -> None:
    """Let the model, and each part of it that holds a merged layer, refuse training mode."""
    for module in model.modules():
        if isinstance(module, Merged):
            vars(module).pop("train", None)  # of an earlier fold, bound to the module that this one replaced
        elif module is model or any(isinstance(part, Merged) for part in module.modules()):
            vars(module)["train"] = StayInEval(module)
