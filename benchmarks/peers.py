"""The other side of a comparison: mmcv's and timm's blocks with our weights in the same model; a BN fold without us.

The models are torchvision's ResNets. In a folded one the last norm of a residual unit is an empty slot (`bn3` is an
Identity): the peer's block goes there, so that nothing but the block itself is added.
"""

import copy
from typing import TypeVar

import timm.layers
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

import gcnet
from gcnet.blocks import ContextBlock
from gcnet.blocks.context import Bottleneck

Model = TypeVar("Model", bound=nn.Module)


def awaken(model: Model) -> Model:
    """Give each BatchNorm statistics and each of our blocks a last layer that is not zero, in place.

    A fresh model has mean 0 and variance 1 everywhere and blocks that add nothing: every error would pass unseen.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.3, 0.8)  # below 1: a sum of many branches stays small
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, ContextBlock):
            for branch in (module.add, module.scale):
                if isinstance(branch, Bottleneck):
                    nn.init.normal_(branch.expand.weight, std=0.1)
                    nn.init.normal_(branch.expand.bias, std=0.1)
    return model


def with_ours(plain: resnet.ResNet, block: str) -> nn.Module:
    """`gcnet.insert` with the block's defaults (r = 16, c3 to c5, every unit), awake; SE with the published gate."""
    options = {"gate": "sigmoid"} if block == "se" else {}
    model = gcnet.insert(plain, block, **options)
    for inserted in gcnet.inserted(model).values():
        awaken(inserted)
    return model


def fold_batch_norms(plain: resnet.ResNet) -> resnet.ResNet:
    """A copy in eval mode, every norm merged into its conv by PyTorch's own function; no code of ours."""
    model = copy.deepcopy(plain).eval()
    model.conv1 = fuse_conv_bn_eval(model.conv1, model.bn1)  # type: ignore[arg-type]
    model.bn1 = nn.Identity()
    for unit in units(model).values():
        for i in "123":
            if hasattr(unit, f"conv{i}"):
                conv, norm = getattr(unit, f"conv{i}"), getattr(unit, f"bn{i}")
                setattr(unit, f"conv{i}", fuse_conv_bn_eval(conv, norm))
                setattr(unit, f"bn{i}", nn.Identity())
        if isinstance(unit.downsample, nn.Sequential):
            conv, norm = unit.downsample
            unit.downsample = fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var]
    return model


def freeze_batch_norms(model: nn.Module) -> nn.Module:
    """Every BatchNorm2d becomes torchvision's FrozenBatchNorm2d with the same numbers, in place."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
                frozen.load_state_dict(norm.state_dict(), strict=False)  # all but num_batches_tracked
                setattr(parent, name, frozen)
    return model


def with_peers(plain: resnet.ResNet, ours: nn.Module, peer: str) -> resnet.ResNet:
    """A copy of the plain model, folded or not, with the peer's blocks where `ours` has ours, weights copied."""
    convert = {"mmcv": mmcv_block, "timm": timm_block}[peer]
    model = copy.deepcopy(plain)
    found = units(model)
    for name, block in gcnet.inserted(ours).items():
        assert isinstance(block, ContextBlock)
        unit = found[name.removesuffix(".context")]
        last = "bn3" if isinstance(unit, resnet.Bottleneck) else "bn2"
        norm = getattr(unit, last)
        theirs = convert(block).train(model.training)
        setattr(unit, last, theirs if isinstance(norm, nn.Identity) else nn.Sequential(norm, theirs))
    return model


def units(model: resnet.ResNet) -> dict[str, nn.Module]:
    """Name -> residual unit."""
    return {
        f"layer{i}.{name}": unit for i in (1, 2, 3, 4) for name, unit in getattr(model, f"layer{i}").named_children()
    }


def mmcv_block(ours: ContextBlock) -> nn.Module:
    """mmcv's ContextBlock with the weights of our GC block; its SE would have a LayerNorm, so there is none here."""
    from mmcv.cnn import ContextBlock as MmcvContextBlock  # here: gpu_suite.py does without where it is not installed

    assert isinstance(ours.add, Bottleneck)
    hidden = ours.add.reduce.out_features
    theirs = MmcvContextBlock(ours.channels, ratio=hidden / ours.channels)
    return _filled(theirs, ours, {"key": "conv_mask", **_branch("add", "channel_add_conv.{}", (0, 1, 3))})


def timm_block(ours: ContextBlock) -> nn.Module:
    """timm's GlobalContext (its add form) or SEModule with the weights of our GC or SE block."""
    if isinstance(ours.add, Bottleneck):
        assert ours.add.norm is not None
        hidden = ours.add.reduce.out_features
        theirs = timm.layers.GlobalContext(ours.channels, fuse_add=True, fuse_scale=False, rd_channels=hidden)
        theirs.mlp_add.norm.eps = ours.add.norm.eps  # type: ignore[union-attr]
        return _filled(theirs, ours, {"key": "conv_attn", **_branch("add", "mlp_add.{}", ("fc1", "norm", "fc2"))})
    assert isinstance(ours.scale, Bottleneck)
    assert ours.gate == "sigmoid"
    theirs = timm.layers.SEModule(ours.channels, rd_channels=ours.scale.reduce.out_features)
    return _filled(theirs, ours, {"scale.reduce": "fc1", "scale.expand": "fc2"})


def _branch(ours: str, theirs: str, names: tuple[object, object, object]) -> dict[str, str]:
    return {f"{ours}.{a}": theirs.format(b) for a, b in zip(("reduce", "norm", "expand"), names, strict=True)}


def _filled(theirs: nn.Module, ours: nn.Module, layers: dict[str, str]) -> nn.Module:
    """Theirs with all weights taken from ours; both must have exactly the layers named."""
    like = next(ours.parameters())
    theirs = theirs.to(like.device, like.dtype)
    own, target = ours.state_dict(), theirs.state_dict()
    names = {f"{a}.{kind}": f"{b}.{kind}" for a, b in layers.items() for kind in ("weight", "bias")}
    assert own.keys() == names.keys(), own.keys() ^ names.keys()
    theirs.load_state_dict({names[name]: value.reshape(target[names[name]].shape) for name, value in own.items()})
    return theirs.train(ours.training)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative difference in the 2-norm."""
    return float((a - b).detach().norm() / b.detach().norm())
