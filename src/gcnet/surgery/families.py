"""Where the stages of known model families are, and where in each residual unit a block belongs.

| family | unit | end of the branch (`after_1x1`) | on the sum (`after_add`) |
|---|---|---|---|
| torchvision ResNet, ResNeXt, Wide | BasicBlock, Bottleneck | before the addition | before the last ReLU |
| timm ResNet | BasicBlock, Bottleneck | before drop-path | before the last activation |
| timm ByobNet | Basic, Bottleneck, Dark, Edge, SelfAttn | before drop-path | before the last activation |
| timm ByobNet | RepVgg, MobileOne | after its attention slot (branches are summed before it) | the same |
| timm RegNet | Bottleneck, PreBottleneck | before drop-path | before the last activation, if it has one |
| timm ConvNeXt | ConvNeXtBlock | before drop-path, after the layer scale | on the unit's output |
| timm EfficientNet, MobileNetV3 | all residual units | before drop-path, or at the end | on the unit's output |
| torchvision RegNet | ResBottleneckBlock | end of `f` | before the last ReLU |
| torchvision ConvNeXt | CNBlock | before stochastic depth, after the layer scale | on the unit's output |
| torchvision EfficientNet, MobileNetV2/V3 | MBConv, InvertedResidual | end of its layers | on the unit's output |

Inside the branch (`before_3x3`, `after_3x3`) there are places in the Bottleneck of torchvision's and timm's ResNet:
behind the activation of the first convolution, and behind that of the second (and timm's anti-aliasing).
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from gcnet.errors import RewriteError, some
from gcnet.surgery.labels import derives, label
from gcnet.surgery.places import Place, input_of, output_of
from gcnet.surgery.probe import probe

# A rule says, for a unit and its name, where the block goes. It may make room in the unit (which is a copy).
Rule = Callable[[Any, str], Place]


@dataclass(frozen=True)
class Unit:
    """One residual unit of a stage: its name, its module, channels of its input and output."""

    name: str
    module: nn.Module
    in_channels: int
    out_channels: int


Stages = dict[str, list[Unit]]


def _slot(child: str) -> Rule:
    return lambda unit, name: Place(name, "slot", child)


def _before(attribute: str) -> Rule:
    return lambda unit, name: input_of(f"{name}.{attribute}")


def _after(attribute: str) -> Rule:
    return lambda unit, name: output_of(f"{name}.{attribute}")


def _unit_output(unit: Any, name: str) -> Place:
    return output_of(name)


def _timm_resnet_branch(unit: Any, name: str) -> Place:
    if unit.drop_path is None:
        unit.drop_path = nn.Identity()
    return input_of(f"{name}.drop_path")


def _timm_regnet_branch(unit: Any, name: str) -> Place:
    return output_of(f"{name}.conv3") if unit.downsample is None else input_of(f"{name}.drop_path")


def _timm_efficientnet_branch(unit: Any, name: str) -> Place:
    return input_of(f"{name}.drop_path") if unit.has_skip else output_of(name)


_TORCHVISION_RESNET = (_slot("context"), _slot("context_sum"))
_BYOB = (_before("drop_path"), _before("act"))
_TIMM_EFFICIENTNET = (_timm_efficientnet_branch, _unit_output)

RULES: dict[str, tuple[Rule, Rule]] = {
    "torchvision.models.resnet.BasicBlock": _TORCHVISION_RESNET,
    "torchvision.models.resnet.Bottleneck": _TORCHVISION_RESNET,
    "gcnet.surgery.units.BasicBlock": _TORCHVISION_RESNET,
    "gcnet.surgery.units.Bottleneck": _TORCHVISION_RESNET,
    "torchvision.models.regnet.ResBottleneckBlock": (_after("f"), _before("activation")),
    "torchvision.models.convnext.CNBlock": (_before("stochastic_depth"), _unit_output),
    "torchvision.models.efficientnet.MBConv": (_after("block"), _unit_output),
    "torchvision.models.efficientnet.FusedMBConv": (_after("block"), _unit_output),
    "torchvision.models.mobilenetv2.InvertedResidual": (_after("conv"), _unit_output),
    "torchvision.models.mobilenetv3.InvertedResidual": (_after("block"), _unit_output),
    "timm.models.resnet.BasicBlock": (_timm_resnet_branch, _before("act2")),
    "timm.models.resnet.Bottleneck": (_timm_resnet_branch, _before("act3")),
    "timm.models.byobnet.BasicBlock": _BYOB,
    "timm.models.byobnet.BottleneckBlock": _BYOB,
    "timm.models.byobnet.DarkBlock": _BYOB,
    "timm.models.byobnet.EdgeBlock": _BYOB,
    "timm.models.byobnet.SelfAttnBlock": _BYOB,
    "timm.models.byobnet.RepVggBlock": (_after("attn"), _after("attn")),
    "timm.models.byobnet.MobileOneBlock": (_after("attn"), _after("attn")),
    "timm.models.regnet.Bottleneck": (_timm_regnet_branch, _before("act3")),
    "timm.models.regnet.PreBottleneck": (_timm_regnet_branch, _unit_output),
    "timm.models.convnext.ConvNeXtBlock": (_before("drop_path"), _unit_output),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": _TIMM_EFFICIENTNET,
    "timm.models._efficientnet_blocks.InvertedResidual": _TIMM_EFFICIENTNET,
    "timm.models._efficientnet_blocks.UniversalInvertedResidual": _TIMM_EFFICIENTNET,
    "timm.models._efficientnet_blocks.EdgeResidual": _TIMM_EFFICIENTNET,
    "timm.models._efficientnet_blocks.CondConvResidual": _TIMM_EFFICIENTNET,
    "timm.models._efficientnet_blocks.MobileAttention": _TIMM_EFFICIENTNET,
}

# The places inside the branch, by unit: before and after the 3x3 convolution.
INNER_RULES: dict[str, tuple[Rule, Rule]] = {
    "torchvision.models.resnet.Bottleneck": (_slot("context_before_3x3"), _slot("context_after_3x3")),
    "gcnet.surgery.units.Bottleneck": (_slot("context_before_3x3"), _slot("context_after_3x3")),
    "timm.models.resnet.Bottleneck": (_after("act1"), _after("aa")),
}
INNER = ("before_3x3", "after_3x3")

RESNET_UNITS = (
    "gcnet.surgery.units.BasicBlock",
    "gcnet.surgery.units.Bottleneck",
    "torchvision.models.resnet.BasicBlock",
    "torchvision.models.resnet.Bottleneck",
    "timm.models.resnet.BasicBlock",
    "timm.models.resnet.Bottleneck",
)


def place_in(unit: Unit, position: str) -> Place:
    """The place in a unit: "after_1x1" (end of the branch), "after_add" (on the sum), or one of INNER.

    Raises:
        RewriteError: the unit has no such place.
    """
    if position in INNER:
        return _inner_place(unit, position)
    rule = RULES[label(type(unit.module))][0 if position == "after_1x1" else 1]
    return replace(rule(unit.module, unit.name), channels=unit.out_channels)


def _inner_place(unit: Unit, position: str) -> Place:
    rules = INNER_RULES.get(label(type(unit.module)))
    if rules is None:
        inside = some(f"{unit.name}.{name}" for name, _ in unit.module.named_children())
        raise RewriteError(
            f"position={position!r}: {unit.name} is a {type(unit.module).__name__}, which has no such place; only the "
            "Bottleneck of torchvision's and timm's ResNets has one. Use 'after_1x1' or 'after_add', or name a module "
            f"with at='GLOB', for example one of {inside}"
        )
    index = INNER.index(position)
    reader: Any = (unit.module.conv2, unit.module.conv3)[index]
    return replace(rules[index](unit.module, unit.name), channels=reader.in_channels)


def place_before(unit: Unit) -> Place:
    """The place between the units: the input of this one."""
    return replace(input_of(unit.name), channels=unit.in_channels)


def find_stages(model: nn.Module, example: Any = None) -> Stages:
    """The stages c1..c6 of a known family, each with its units in order.

    Raises:
        RewriteError: no known unit in the model, or several backbones.
    """
    names = [name for name, module in model.named_modules() if label(type(module)) in RULES]
    names = [name for name in names if not any(name.startswith(other + ".") for other in names)]
    if not names:
        raise RewriteError(
            f"{type(model).__name__} is of no family whose stages are known; say where the block goes with "
            f"at='GLOB', for example one of {some(name for name, _ in model.named_children())}"
        )
    trunks = [name for name, module in model.named_modules() if _is_resnet(module)]
    if len(trunks) > 1:
        raise RewriteError(
            f"the model holds {len(trunks)} ResNets ({some(repr(name) for name in trunks)}); "
            "insert into one of them, or say where with at='GLOB'"
        )
    return _resnet_stages(model, trunks[0]) if trunks else _strided_stages(model, names, example)


def _is_resnet(module: nn.Module) -> bool:
    layers = [getattr(module, f"layer{i}", None) for i in (1, 2, 3, 4)]
    found = [layer for layer in layers if isinstance(layer, nn.Module)]
    return bool(found) and all(any(derives(unit, RESNET_UNITS) for unit in layer.children()) for layer in found)


def _resnet_stages(model: nn.Module, trunk: str) -> Stages:
    """layer1..layer4 are c2..c5 by order, whatever their strides."""
    stages: Stages = {}
    for i in (1, 2, 3, 4):
        name = f"{trunk}.layer{i}" if trunk else f"layer{i}"
        layer = getattr(model.get_submodule(trunk), f"layer{i}", None)
        if layer is not None:
            units = {f"{name}.{k}": unit for k, unit in layer.named_children() if label(type(unit)) in RULES}
            stages[f"c{i + 1}"] = [
                Unit(path, unit, unit.conv1.in_channels, getattr(unit, "conv3", unit.conv2).out_channels)
                for path, unit in units.items()
            ]
    return stages


def _strided_stages(model: nn.Module, names: list[str], example: Any) -> Stages:
    """Elsewhere stage ck holds the units whose output stride is 2^k, seen in one dummy forward."""
    # a detector is probed at its backbone only
    root = "backbone." if example is None and all(name.startswith("backbone.") for name in names) else ""
    inside = {name: name.removeprefix(root) for name in names}
    seen = probe(model.get_submodule(root.rstrip(".")), inside.values(), example)
    stages: Stages = defaultdict(list)
    for name in names:
        calls = seen.seen[inside[name]]
        if not calls.outputs or calls.inputs[0] is None or calls.outputs[0] is None or len(calls.outputs[0]) != 4:
            continue  # a unit that the forward pass does not use
        stride = seen.example[-1] / calls.outputs[0][-1]
        unit = Unit(name, model.get_submodule(name), calls.inputs[0][1], calls.outputs[0][1])
        stages[f"c{round(math.log2(stride))}"].append(unit)
    return dict(sorted(stages.items()))
