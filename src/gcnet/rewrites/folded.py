"""The layers of a folded model: a context block merged with the convolution before it, or the one behind it.

B images, C channels of the wide map y, K channels of the narrow map h, P positions. Inference only.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet import ops
from gcnet.blocks.context import Bottleneck, ContextBlock, open_gate, over_map
from gcnet.rewrites.errors import RewriteError

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class FoldedContext(nn.Module):
    """y = fuse(W h + b, context of y): a 1x1 convolution and the context block behind it (arXiv 1904.11492, eq. 5).

    The context is taken from the narrow map: `w_k . (W h_j + b) = (W^T w_k) . h_j + const`, the constant cancels in the
    softmax, and `sum_j alpha_j (W h_j + b) = W (sum_j alpha_j h_j) + b` since the alphas sum to one. W and b go into
    the first layer of each transform, b and the added vector into the bias of the convolution.

    Shape:
        h (B, K, *spatial) -> (B, C, *spatial); `residual`, if given, is like the output and is added to it.
    """

    def __init__(self, conv: Conv, block: ContextBlock) -> None:
        super().__init__()
        W = conv.weight.detach().flatten(1).double()
        b = W.new_zeros(len(W)) if conv.bias is None else conv.bias.detach().double()
        self.gate = block.gate
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.key = None if block.key is None else _parameter(block.key.weight[0].double() @ W, conv)
        self.scale = None if block.scale is None else _after(block.scale, W, b)
        self.add = None if block.add is None else _after(block.add, W, b)
        self.bias = None
        if self.scale is not None:
            self.bias = _parameter(b, conv)
        elif self.add is not None:
            _shift(self.add, b)

    def forward(self, h: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        scale_BC, shift_BC = vectors(h, self.key, self.scale, self.add, self.gate)
        weight, bias = self.weight, self.bias
        if h.shape[0] == 1 and not h.is_cuda:
            if shift_BC is not None and scale_BC is None:
                bias, shift_BC = shift_BC[0], None
            elif scale_BC is not None and residual is None and h[0, 0].numel() > h.shape[1]:  # the map is the larger
                weight = weight * scale_BC[0].reshape(-1, *[1] * (weight.ndim - 1))
                assert bias is not None
                bias = bias * scale_BC[0] if shift_BC is None else torch.addcmul(shift_BC[0], bias, scale_BC[0])
                scale_BC = shift_BC = None
        return join(convolve(h, weight, bias), scale_BC, shift_BC, residual, relu)


class FoldedBlock(ContextBlock):
    """A context block that stays on its map, whose only reader it is: fusion writes into the map."""

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        return join(x, *vectors(x, self.key, self.scale, self.add, self.gate), residual, relu)


class ContextThenConv(nn.Module):
    """y = W (gate * x + t) + b: a context block and the 1x1 convolution behind it.

    The gate scales the input channels of the convolution and t joins its bias, `W t + b`, where the weight is smaller
    than the map; elsewhere fusion writes into the map, whose only reader the block is.

    Shape:
        x (B, K, *spatial) -> (B, C, *spatial).
    """

    def __init__(self, block: ContextBlock, conv: Conv) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)
        self.block.__class__ = FoldedBlock
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] > 1 or x[0, 0].numel() < self.weight.shape[0]:
            return convolve(self.block(x), self.weight, self.bias)
        scale_1K, shift_1K = vectors(x, self.block.key, self.block.scale, self.block.add, self.block.gate)
        weight, bias = self.weight, self.bias
        if shift_1K is not None:
            bias = F.linear(shift_1K.to(weight.dtype), weight.flatten(1), bias)[0]
        if scale_1K is not None:
            weight = weight * over_map(scale_1K, weight)
        return convolve(x, weight, bias)


def vectors(
    x: Tensor, key: Tensor | nn.Linear | None, scale: nn.Module | None, add: nn.Module | None, gate: str
) -> tuple[Tensor | None, Tensor | None]:
    """The two vectors that fusion needs, (B, C) each: the gate's scale and the added shift; None for the one unused."""
    if isinstance(key, nn.Linear):
        key = key.weight[0]
    pooled = ops.average_pool(x) if key is None else ops.attention_pool(x, key)
    scale_BC = None if scale is None else open_gate(gate, scale(pooled)).to(x.dtype)
    return scale_BC, None if add is None else add(pooled).to(x.dtype)


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


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution with kernel and stride 1."""
    return (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3](x, weight, bias)


class StayInEval:
    """Takes the place of a folded model's `train` method: merged norms have no statistics to train with."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, mode: bool = True) -> nn.Module:
        if mode:
            raise RewriteError(
                "train(True) on a folded model: its norms and blocks are merged into the convolutions; train the model "
                "that went into fold, then fold again"
            )
        return self.model


def _after(transform: nn.Module, W: Tensor, b: Tensor) -> nn.Module:
    """The transform on the pooled narrow map: its first layer merged with W (C, K) and b (C,)."""
    transform = copy.deepcopy(transform)
    name = "reduce" if isinstance(transform, Bottleneck) else "project"
    first: nn.Linear = getattr(transform, name)
    weight = first.weight.detach().double()
    bias = weight @ b + (0 if first.bias is None else first.bias.detach().double())
    setattr(transform, name, _linear(weight @ W, bias, first))
    return transform


def _shift(transform: nn.Module, b: Tensor) -> None:
    """Add b (C,) to what the transform puts out."""
    name = "expand" if isinstance(transform, Bottleneck) else "project"
    last: nn.Linear = getattr(transform, name)
    bias = b if last.bias is None else last.bias.detach().double() + b
    setattr(transform, name, _linear(last.weight.detach(), bias, last))


def _linear(weight: Tensor, bias: Tensor, like: nn.Linear) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    layer.weight, layer.bias = _parameter(weight, like), _parameter(bias, like)
    return layer.train(like.training)


def _parameter(value: Tensor, like: Any) -> nn.Parameter:
    return nn.Parameter(value.detach().to(like.weight.dtype).contiguous(), requires_grad=like.weight.requires_grad)
