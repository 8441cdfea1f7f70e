"""Norms of a model that is folded: which can be merged into the convolution before them, and what stays of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_eval

from gcnet.blocks import NonLocal
from gcnet.errors import RewriteError
from gcnet.rewrites.folding.layers import Merged
from gcnet.surgery.labels import FROZEN_NORM, FROZEN_NORM_ACT, label
from gcnet.surgery.places import carry_hooks, replace
from gcnet.surgery.probe import exact, is_channels_last


class MergedNorm(Merged, nn.Identity):
    """Stands where a norm was that a convolution has swallowed."""


class FixedNorm(Merged, nn.BatchNorm2d):
    """A frozen norm as a batch norm that keeps to its running statistics; it can be merged."""


class NormThenAct(Merged):
    """What stays of a norm with dropout and activation of its own, when the norm has been merged or exchanged."""

    def __init__(self, norm: nn.Module, drop: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.norm, self.drop, self.act = norm, drop, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(self.norm(x)))


def check_norms(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.training:
                raise RewriteError(
                    f"the norm {name!r} is in training mode, so it depends on the batch; call model.eval() before fold"
                )
            if module.running_mean is None:
                raise RewriteError(
                    f"the norm {name!r} has no running statistics (track_running_stats=False), so it depends on the "
                    "batch and cannot be merged; train it with running statistics, or leave the model unfolded"
                )


def unfreeze(model: nn.Module) -> nn.Module:
    """Frozen norms as batch norms in eval mode, which do the same and can be merged."""
    new: dict[nn.Module, nn.Module] = {}
    modules: list[Any] = list(model.modules())
    for module in modules:
        kind = label(type(module))  # not compared with isinstance: a subclass may do something else
        if kind in (FROZEN_NORM, FROZEN_NORM_ACT):
            norm = FixedNorm(len(module.weight), eps=module.eps)
            with torch.no_grad():
                for key in ("weight", "bias", "running_mean", "running_var"):
                    getattr(norm, key).copy_(getattr(module, key))
            norm = norm.to(module.weight.device, module.weight.dtype).eval().requires_grad_(False)
            acting = kind == FROZEN_NORM_ACT
            new[module] = carry_hooks(module, NormThenAct(norm, module.drop, module.act) if acting else norm)
    return replace(model, new)


def merge_norm(conv: Any, norm: Any) -> nn.Module:
    """The norm's scale and shift go into the convolution; what else the norm carries is returned, to take its place."""
    weight, mean, variance = (exact(t) for t in (conv.weight, norm.running_mean, norm.running_var))
    bias, gain, shift = (None if t is None else exact(t) for t in (conv.bias, norm.weight, norm.bias))
    transposed = isinstance(conv, nn.modules.conv._ConvTransposeNd)
    fused = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, gain, shift, transposed)
    for key, value in zip(("weight", "bias"), fused, strict=True):
        value = value.to(conv.weight.device, conv.weight.dtype)
        if key == "weight":
            layout = torch.channels_last if is_channels_last(conv.weight) else torch.contiguous_format
            value = value.contiguous(memory_format=layout)
        setattr(conv, key, nn.Parameter(value, requires_grad=conv.weight.requires_grad))
    drop, act = (getattr(norm, key, nn.Identity()) for key in ("drop", "act"))
    bare = type(drop) is type(act) is nn.Identity
    substitute = MergedNorm() if bare else NormThenAct(nn.Identity(), drop, act)
    return carry_hooks(norm, substitute.eval())


def is_grouped_transpose(conv: Any) -> bool:
    return isinstance(conv, nn.modules.conv._ConvTransposeNd) and conv.groups > 1


def merge_own_norm(block: NonLocal) -> None:
    """The norm behind W_z goes into W_z."""
    if block.norm is not None:
        block.out = fuse_linear_bn_eval(block.out, block.norm)
        block.norm = None
