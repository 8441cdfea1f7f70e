"""One small model per family of `insert`, with nothing left at zero: a branch that is zero would hide every error."""

import warnings
from collections.abc import Callable

import timm
import torch
import torchvision
from torch import nn
from torchvision.models import detection, resnet
from torchvision.models.convnext import CNBlockConfig

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "torchvision BasicBlock": lambda: torchvision.models.resnet18(num_classes=10),
    "torchvision Bottleneck": lambda: resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3], 10, width_per_group=16),
    "torchvision ResNeXt": lambda: resnet.ResNet(resnet.Bottleneck, [1, 2, 2, 2], 10, groups=8, width_per_group=4),
    "torchvision RegNet": lambda: torchvision.models.regnet_y_400mf(num_classes=10),
    "torchvision ConvNeXt": lambda: torchvision.models.ConvNeXt(_convnext(), num_classes=10),
    "torchvision EfficientNet": lambda: torchvision.models.efficientnet_b0(num_classes=10),
    "torchvision MobileNetV3": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "timm ResNet": lambda: timm.create_model("resnet26d", num_classes=10),
    "timm SE-ResNet": lambda: timm.create_model("seresnet18", num_classes=10),
    "timm ByobNet": lambda: timm.create_model("gcresnext26ts", num_classes=10),
    "timm RepVGG": lambda: timm.create_model("repvgg_a0", num_classes=10),
    "timm RegNet": lambda: timm.create_model("regnety_002", num_classes=10),
    "timm ConvNeXt": lambda: timm.create_model("convnext_atto", num_classes=10),
    "timm EfficientNet": lambda: timm.create_model("efficientnet_lite0", num_classes=10),
    "timm MobileNetV3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=10),
    "detector": lambda: detection.FasterRCNN(_fpn(), num_classes=3),
}


def _fpn() -> nn.Module:
    return detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None)


def _convnext() -> list:
    return [CNBlockConfig(8, 16, 1), CNBlockConfig(16, 24, 1), CNBlockConfig(24, 32, 3), CNBlockConfig(32, None, 1)]


def build(family: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's and timm's own deprecations
        model = FAMILIES[family]()
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", "layer_scale")):
            nn.init.constant_(parameter, 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.8)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The logits, or a detector's feature maps in one row."""
    if hasattr(model, "backbone"):
        return torch.cat([level.flatten() for level in model.backbone(x).values()])
    return model(x)


def awake(model: nn.Module, blocks: dict[str, nn.Module]) -> None:
    """Randomise the blocks in place."""
    for block in blocks.values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.1)
