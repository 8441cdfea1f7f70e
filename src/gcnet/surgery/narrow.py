"""Training with frozen norms: 1x1 convolution, norm and context block as one step that reads the narrow map.

The algebra of `fold`, differentiable: with running statistics the norm is an affine map, so with its gain in the weight
W (C, K) and its shift b (C,) the block sees `W h_j + b`. Logits are `(W^T w_k) . h_j + const` and the pooled vector is
`W (sum_j alpha_j h_j) + b`: forward and backward of the context touch h, which has K = C / 4 channels, instead of the
map of C. B images, C channels, K channels of the narrow map h.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcnet import ops
from gcnet.blocks import ContextBlock, GlobalContext, SimplifiedNonLocal, SqueezeExcitation
from gcnet.blocks.as_made import as_made, tensors_of
from gcnet.blocks.context import open_gate, over_map
from gcnet.surgery.labels import FROZEN_NORM, label

CONTEXT_BLOCKS = (ContextBlock, GlobalContext, SimplifiedNonLocal, SqueezeExcitation)


def applies(conv: nn.Conv2d, norm: Any, block: Any) -> bool:
    """Whether the three can be one step: all as made, the norm on running statistics.

    The block's transforms are called, so what hangs on them takes effect.
    """
    return (
        type(block) in CONTEXT_BLOCKS
        and (type(norm) is nn.BatchNorm2d or label(type(norm)) == FROZEN_NORM)
        and not (norm.training and type(norm) is nn.BatchNorm2d)
        and norm.running_mean is not None
        and is_pointwise(conv)
        and tensors_of(conv, nn.Conv2d) is not None
        and as_made(norm, type(norm))
        and as_made(block, type(block))
        and (block.key is None or tensors_of(block.key, nn.Linear) is not None)
    )


def pays(h: Tensor) -> bool:
    """Whether the maps are large beside the weight, which is formed anew in each step, and its gradient likewise.

    At c5 of a ResNet-50 and 8x3x224x224 (392 positions, K = 512) the ordinary path takes a seventh less, at c4 (1568
    positions, K = 256) a tenth more.
    """
    return h.numel() > 2 * h.shape[1] ** 2


def is_pointwise(module: Any) -> bool:
    """Whether a module is a 1x1 convolution: each position of its output comes from that position of its input."""
    return (
        isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and module.groups == 1
        and set(module.kernel_size) == {1}
        and set(module.stride) == {1}
        and (module.padding in ("same", "valid") or set(module.padding) == {0})
    )


def context_from_narrow_map(conv: nn.Conv2d, norm: Any, block: Any, h: Tensor) -> Tensor:
    """block(norm(conv(h))), the context computed from h. Shapes: h (B, K, H, W) -> (B, C, H, W)."""
    gain_C, shift_C = affine(norm, conv.bias)
    W_CK = conv.weight.flatten(1) * gain_C[:, None]
    if block.key is None:
        pooled_BK = ops.average_pool(h)
    else:
        pooled_BK = ops.attention_pool(h, block.key.weight[0] @ W_CK, block.key.bias)
    context_BC = F.linear(pooled_BK, W_CK, shift_C)
    scale_BC = None if block.scale is None else open_gate(block.gate, block.scale(context_BC))
    add_BC = None if block.add is None else block.add(context_BC)
    kernel = W_CK[:, :, None, None]
    if scale_BC is None and h.shape[0] == 1:
        assert add_BC is not None
        return F.conv2d(h, kernel, shift_C + add_BC[0])
    out = F.conv2d(h, kernel)  # without its bias, whose gradient were one more sum over the wide map
    shift_BC = shift_C.expand(len(h), -1) if scale_BC is None else shift_C * scale_BC
    shift_map = over_map(shift_BC if add_BC is None else shift_BC + add_BC, out)
    return out + shift_map if scale_BC is None else torch.addcmul(shift_map, out, over_map(scale_BC, out))


def affine(norm: Any, conv_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The norm as y * gain + shift, the bias of the convolution before it included."""
    gain_C = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        gain_C = gain_C * norm.weight
    mean_C = norm.running_mean if conv_bias is None else norm.running_mean - conv_bias
    shift_C = -mean_C * gain_C
    return gain_C, shift_C if norm.bias is None else shift_C + norm.bias
