"""Commands that train nothing run where nothing of the extras is installed, Lightning first of all."""

import json
import subprocess
import sys

import torch
from torch import nn

import gcnet
from gcnet.surgery import record

PROGRAM = """
import json, os, sys
for name in (
    *("lightning", "pytorch_lightning", "torchmetrics", "faster_coco_eval"),
    *("matplotlib", "jinja2", "mlxtend", "onnx", "onnxscript", "onnxruntime"),
):
    sys.modules[name] = None  # which makes its import fail
from typer.testing import CliRunner
from gcnet.cli import app
said = {}
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, arguments)
    said[arguments[0]] = [result.exit_code, result.output, repr(result.exception)]
print(json.dumps(said))
"""


def test_they_run_and_those_that_train_say_what_to_install(photos, tmp_path):
    torch.manual_seed(0)
    model = gcnet.create_model("timm/test_resnet", num_classes=2, block="nl", stages=["c5"])
    for block in gcnet.inserted(model).values():
        nn.init.normal_(block.out.weight, std=0.3)
    record.set_preprocessing(model, record.preprocessing(model) | {"size": [32, 32], "resize": 32})
    record.set_classes(model, ["blue", "red"])
    weights, image = tmp_path / "m.safetensors", str(photos / "test" / "red" / "0.png")
    gcnet.save_checkpoint(model, weights)
    commands = [
        ["export", weights, tmp_path / "m.pt2", "--static", "--no-fold"],
        ["fold", weights, tmp_path / "f.safetensors"],
        ["convert", weights, tmp_path / "c.safetensors"],
        ["predict", image, "--weights", weights, "--out", tmp_path / "out", "--show-attention"],
        ["analyze", weights, image],
        ["profile", weights, "--rounds", "0"],
        ["simplify", weights, tmp_path / "s.safetensors", "--data", photos, "--max-error", "0"],
        ["blocks"],
        ["evaluate", weights, "--data", photos],
        ["train", "--data", photos, "--model", "timm/test_resnet", "--runs", tmp_path],
    ]
    arguments = json.dumps([[str(part) for part in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {name: code for name, (code, _, _) in said.items()} == {
        **dict.fromkeys([command[0] for command in commands[:-2]], 0),
        **dict.fromkeys(("evaluate", "train"), 1),
    }, said
    for name in ("evaluate", "train"):
        assert "is not installed: pip install 'gcnet[train]'" in said[name][1]
