"""gcnet profile."""

import json

import pytest

import gcnet
from tests.models.detection.small import small

SMALL = ("timm/test_resnet", "--rounds", "0", "--input", "3,32,32")


def test_a_model_by_name_with_blocks(gcnet_command, tmp_path):
    path = tmp_path / "costs.json"
    result = gcnet_command(
        *("profile", *SMALL), "--block", "gc", "--stages", "c4,c5", "--reduction", "4", "--json", path
    )
    assert result.exit_code == 0, result.stderr
    for word in (
        "ResNet, 1x3x32x32, float32, cpu",
        "without blocks",
        "stem",
        "c5",
        "GlobalContext",
        f"written: {path}",
    ):
        assert word in result.stdout
    assert "…" not in result.stdout
    data = json.loads(path.read_text())
    assert {block["name"].split(".")[0] for block in data["blocks"]} == {"layer3", "layer4"}
    assert data["params"] > data["without"]["params"]


def test_batch_place_and_options_reach_the_model(gcnet_command, tmp_path):
    path = tmp_path / "costs.json"
    arguments = ("--batch", "2", "--block", "nl", "--stages", "c4", "--where", "0", "--option", "pairwise=dot_product")
    result = gcnet_command("profile", *SMALL, *arguments, "--position", "after_add", "--channels-last", "--json", path)
    assert result.exit_code == 0, result.stderr
    data = json.loads(path.read_text())
    assert data["input_size"] == [2, 3, 32, 32]
    assert [(block["name"], block["kind"]) for block in data["blocks"]] == [
        ("layer3.0.act3.context_before", "NonLocal")
    ]
    at = gcnet_command("profile", *SMALL, "--block", "gc", "--at", "layer1.0", "--json", path)
    assert at.exit_code == 0, at.stderr
    assert [block["name"] for block in json.loads(path.read_text())["blocks"]] == ["layer1.0.context"]


@pytest.mark.parametrize("where", ["--where=-1", "--where=0", "--where=last", "--where=-1,0"])
def test_units_are_counted_from_the_end_too(gcnet_command, tmp_path, where):
    arguments = ("--block", "gc", "--stages", "c4", where, "--json", tmp_path / "costs.json")
    result = gcnet_command("profile", *SMALL, *arguments)
    assert result.exit_code == 0, result.stderr
    blocks = json.loads((tmp_path / "costs.json").read_text())["blocks"]
    assert [block["name"].split(".")[:2] for block in blocks] == [["layer3", "0"]]


def test_the_input_of_the_model_is_the_default_and_a_model_without_blocks_has_one_row(gcnet_command):
    result = gcnet_command("profile", "scenes", "--rounds", "1")
    assert result.exit_code == 0, result.stderr
    assert "SceneNet, 1x1x48x48" in result.stdout
    assert "median of 1 rounds" in result.stdout
    assert "with blocks" not in result.stdout


def test_a_run_and_its_file_of_weights(gcnet_command, run_folder):
    for path in (run_folder, run_folder / "model.safetensors"):
        result = gcnet_command("profile", path, "--rounds", "0")
        assert result.exit_code == 0, result.stderr
        assert "layer4.0.drop_path.context_before" in result.stdout
        assert "1x3x32x32" in result.stdout  # the size the run was trained with


def test_a_detector_by_name_with_blocks(gcnet_command, tmp_path):
    path = tmp_path / "costs.json"
    arguments = ("--block", "gc", "--reduction", "4", "--rounds", "0", "--json", path)
    result = gcnet_command("profile", "retinanet_timm/test_resnet_fpn", *arguments, "--input", "3,64,96")
    assert result.exit_code == 0, result.stderr
    for word in ("OneStage, 1x3x64x96", "without blocks", "c5", "fpn", "head"):
        assert word in result.stdout
    data = json.loads(path.read_text())
    assert data["params"] - data["without"]["params"] == sum(block["params"] for block in data["blocks"]) > 0


def test_a_file_with_a_detector_is_profiled_at_its_own_shorter_side(gcnet_command, tmp_path):
    model = gcnet.insert(small("maskrcnn"), "gc", stages=("c4",), reduction=4)
    gcnet.save_checkpoint(model, tmp_path / "small.safetensors")
    result = gcnet_command("profile", tmp_path / "small.safetensors", "--rounds", "1")
    assert result.exit_code == 0, result.stderr
    for word in ("TwoStage, 1x3x64x102, 30 boxes per image", "with blocks", "rpn", "box head", "mask head", "median"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet5",), "is no model that gcnet or torchvision knows"),
        (("timm/test_resnet", "--input", "5,32,32", "--rounds", "0"), "does not take input_size=(1, 5, 32, 32)"),
        (("timm/test_resnet", "--input", "3,4,32,32"), "is no shape of this model's input"),
        (("timm/test_resnet", "--block", "gc", "--stages", "c9"), "the model has no stage 'c9'"),
        (("missing.safetensors",), "there is no file missing.safetensors"),
        (("EMPTY",), "there is no file"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_1(gcnet_command, tmp_path, arguments, said):
    result = gcnet_command("profile", *(tmp_path if text == "EMPTY" else text for text in arguments))
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument"),
        (("resnet18", "--input", "large"), "'large' is no list of whole numbers"),
        (("resnet18", "--input", "32,32"), "'32,32' is not channels, height and width"),
        (("resnet18", "--reduction", "4"), "name the block"),
        (("resnet18", "--stages", "c4"), "name the block"),
        (("resnet18", "--device", "abacus"), "'abacus' is not there"),
        (("resnet18", "--batch", "0"), "--batch"),
    ],
)
def test_wrong_usage_is_exit_code_2(gcnet_command, arguments, said):
    result = gcnet_command("profile", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_checkpoint_brings_its_own_blocks(gcnet_command, run_folder):
    result = gcnet_command("profile", run_folder, "--block", "gc")
    assert result.exit_code == 2
    assert "says itself which blocks it has" in result.stderr
