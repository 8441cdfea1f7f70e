"""Classes of other libraries are known by module and name: the names must be right, and asking must import nothing."""

import importlib
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.models import resnet
from torchvision.ops import FrozenBatchNorm2d

from gcnet.blocks import GlobalContext
from gcnet.surgery import families, foreign, labels, narrow

KNOWN = {*families.RULES, *families.INNER_RULES, *families.RESNET_UNITS, *foreign.CONVERTERS}
KNOWN |= {*foreign.layers.ACTIVATIONS, *foreign.layers.GATES, foreign.layers.TIMM_NORM}
KNOWN |= {labels.FROZEN_NORM, labels.FROZEN_NORM_ACT, labels.DEFORMABLE}


@pytest.mark.parametrize("known", sorted(known for known in KNOWN if not known.startswith("mmcv.")))
def test_a_label_is_that_of_the_class_it_names(known):
    module, name = known.rsplit(".", 1)
    assert labels.label(getattr(importlib.import_module(module), name)) == known


def test_a_subclass_derives_from_a_label_and_is_not_named_by_it():
    class Unit(resnet.BasicBlock):
        pass

    unit = Unit(4, 4)
    assert labels.derives(unit, families.RESNET_UNITS)
    assert labels.label(type(unit)) not in families.RULES


def test_the_question_for_a_frozen_norm_can_be_compiled():
    conv, norm, block = nn.Conv2d(2, 4, 1), FrozenBatchNorm2d(4), GlobalContext(4, reduction=2)

    @torch.compile(fullgraph=True, backend="eager")
    def asked(x):
        return x + narrow.applies(conv, norm, block)

    assert asked(torch.zeros(1)).item() == 1


@pytest.mark.parametrize("module", ["rewrites.table", "models.create", "checkpoints.load"])
def test_importing_a_room_loads_no_library_of_models(module):
    code = (
        f"import sys, gcnet.{module}; print([m for m in ('torchvision', 'timm', 'torch._dynamo') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
