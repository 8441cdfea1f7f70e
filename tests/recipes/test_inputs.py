"""What a command is given: a model, images, a device, a place to write; the same answers for every command."""

import pytest
import torch
import torchvision

import gcnet
from gcnet.errors import RunError, SettingsError, UsageError
from gcnet.recipes import profile
from gcnet.recipes.inputs import checkpoint_to_write, device_of, file_to_write, find_images, model_of, stored_model
from gcnet.surgery import record
from gcnet.tasks.parts import BlockSettings


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A file of torch.save with nothing but torchvision's tensors."""
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), path)
    return path


def test_a_model_is_a_file_that_load_checkpoint_opens_a_run_or_a_name(plain, tmp_path):
    assert gcnet.load_checkpoint(plain).architecture["name"] == "resnet18"
    gcnet.save_checkpoint(gcnet.create_model("timm/test_resnet", num_classes=2), tmp_path / "model.safetensors")
    for source, classes in ((plain, 3), (tmp_path, 2), ("timm/test_resnet", 1000), ("scenes", 6)):
        assert record.architecture(model_of(source))["num_classes"] == classes
    put_in = BlockSettings(name="gc", stages=("c5",), options={"reduction": 4})
    assert gcnet.inserted(model_of("timm/test_resnet", block=put_in))
    model = torch.nn.Identity()
    assert stored_model(model) is model


def test_profile_opens_a_plain_file_of_tensors(plain):
    costs = profile(plain, input_size=(3, 32, 32), rounds=0)
    assert costs.params == sum(parameter.numel() for parameter in stored_model(plain).parameters())


@pytest.mark.parametrize(
    ("source", "options", "kind", "said"),
    [
        ("PLAIN", {"weights": "imagenet"}, SettingsError, "has its own; leave it out"),
        ("PLAIN", {"block": BlockSettings(name="gc")}, UsageError, "says itself which blocks it has"),
        ("resnet18", {"block": BlockSettings(stages=("c4",))}, UsageError, "name the block that this says where"),
        ("EMPTY", {}, RunError, r"holds no finished run \(there is no file model.safetensors\)"),
        ("gone.bin", {}, FileNotFoundError, "there is no file gone.bin"),
        ("gone", {}, ValueError, "is no model that gcnet or torchvision knows"),
    ],
)
def test_what_is_no_model_is_said_in_words(plain, tmp_path, source, options, kind, said):
    place = {"PLAIN": plain, "EMPTY": tmp_path}.get(source, source)
    with pytest.raises(kind, match=said):
        model_of(place, **options)


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(RunError, match=f"finish it by `gcnet train --resume {tmp_path}`"):
        stored_model(tmp_path)


def test_images_are_files_and_what_is_in_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.png", "deep/b.JPG", "deep/c.txt", ".a.png", "deep/._b.JPG"):
        (tmp_path / name).touch()
    found = [tmp_path / "a.png", tmp_path / "deep" / "b.JPG"]
    assert find_images(tmp_path) == find_images([tmp_path, found[0]]) == found
    assert find_images(str(tmp_path / "gone.png")) == [tmp_path / "gone.png"]  # whoever opens it says so


def test_a_device_that_is_not_there_is_refused():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="'abacus' is not there; use cpu"):
        device_of("abacus")


def test_where_a_file_cannot_be_written_is_said_before_the_work(tmp_path):
    assert file_to_write(str(tmp_path / "m.onnx")) == tmp_path / "m.onnx"
    with pytest.raises(SettingsError, match="is a folder"):
        file_to_write(tmp_path)
    with pytest.raises(SettingsError, match="does not exist; make it first"):
        checkpoint_to_write(tmp_path / "no" / "m.safetensors", "source")
    with pytest.raises(SettingsError, match=r"a checkpoint is a \.safetensors file \(`gcnet export` writes others\)"):
        checkpoint_to_write(tmp_path / "m.pth", "source")
    with pytest.raises(SettingsError, match="is the file to be converted; give another name"):
        checkpoint_to_write(tmp_path / "deep" / ".." / "m.safetensors", tmp_path / "m.safetensors")
