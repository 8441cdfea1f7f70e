"""load_checkpoint rebuilds simplified models without images."""

import math
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import gcnet


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("form", ["shared", "image"])
def test_a_simplified_model_comes_back(tmp_path, pairwise, form, monkeypatch):
    model = gcnet.create_model("scenes", num_classes=3, block="nl", pairwise=pairwise).eval()
    for block in gcnet.inserted(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
    if form == "image":
        monkeypatch.setattr(sys.modules["gcnet.rewrites.simplification.apply"], "forms", lambda block: ("image",))
    simplified = gcnet.rewrites.simplify(model, [torch.rand(8, 1, 48, 48)], max_error=math.inf).eval()
    assert {block.form for block in simplified.report.blocks} == {form}
    gcnet.save_checkpoint(simplified, tmp_path / "m.safetensors")
    loaded = gcnet.load_checkpoint(tmp_path / "m.safetensors").model
    x = torch.rand(2, 1, 48, 48)
    for a, b in zip(loaded(x), simplified(x), strict=True):
        assert torch.equal(a, b)
    assert loaded.gcnet_rewrites == simplified.gcnet_rewrites
    folded = gcnet.fold(simplified)
    gcnet.save_checkpoint(folded, tmp_path / "f.safetensors")
    assert torch.equal(gcnet.load_checkpoint(tmp_path / "f.safetensors").model(x)[0], folded(x)[0])


@pytest.mark.parametrize(
    ("replaced", "match"),
    [
        ({"spots.7.context": "shared"}, "has no non-local block 'spots.7.context'"),
        ({"trunk.0": "shared"}, "has no non-local block 'trunk.0'"),
        ({"spots.0.context": "mean"}, "cannot take the form 'mean'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, replaced, match):
    model = gcnet.create_model("scenes", num_classes=3, block="nl")
    simplified = gcnet.rewrites.simplify(model, [torch.rand(8, 1, 48, 48)])
    simplified.gcnet_rewrites[-1]["replaced"] = replaced
    gcnet.save_checkpoint(simplified, tmp_path / "m.safetensors")
    with pytest.raises(gcnet.CheckpointError, match=match):
        gcnet.load_checkpoint(tmp_path / "m.safetensors")


def test_tensors_that_do_not_fit_the_recorded_form_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    simplified = gcnet.rewrites.simplify(
        gcnet.create_model("scenes", num_classes=3, block="nl"), [torch.rand(8, 1, 48, 48)]
    )
    gcnet.save_checkpoint(simplified, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {name: tensor for name, tensor in load_file(path).items() if name != "spots.0.context.key.weight"}
    save_file(tensors, path, metadata)
    with pytest.raises(gcnet.CheckpointError, match=r"missing.*spots\.0\.context\.key\.weight"):
        gcnet.load_checkpoint(path)
