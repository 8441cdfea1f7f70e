"""The table of tasks: every address leads somewhere, and a model is known by its record or by what it is."""

import subprocess
import sys

import pytest
import torchvision

import gcnet
from gcnet.tasks import TASKS, Entry, TaskSpec
from gcnet.tasks.table import spec, spec_of
from tests.recipes.detection import TINY


@pytest.mark.parametrize("name", TASKS)
def test_every_address_leads_to_a_task_of_that_name(name):
    assert isinstance(spec(name), TaskSpec)
    assert spec(name).name == name


def test_entry_is_the_old_name_of_a_task():
    assert Entry is TaskSpec


@pytest.mark.parametrize(
    ("task", "name", "options"),
    [
        ("classify", "resnet18", {}),
        ("classify", "timm/test_resnet", {}),
        ("detect", "retinanet_resnet18_fpn", {"base_channels": 8, "fpn_channels": 32}),
        ("instances", "maskrcnn_resnet18_fpn", TINY),
        ("scenes", "scenes", {}),
    ],
)
def test_a_model_is_known_by_its_record_and_by_what_it_is(task, name, options):
    model = gcnet.create_model(name, num_classes=2, **options)
    assert spec_of(model).name == task
    model.gcnet_architecture = {key: value for key, value in model.gcnet_architecture.items() if key != "task"}
    assert spec_of(model).name == task


def test_a_model_of_others_is_known_by_what_it_is():
    assert spec_of(torchvision.models.squeezenet1_0()).name == "classify"
    backbones = {"weights": None, "weights_backbone": None, "num_classes": 2}
    assert spec_of(torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(**backbones)).name == "detect"
    assert spec_of(torchvision.models.detection.ssdlite320_mobilenet_v3_large(**backbones)).name == "detect"


def test_settings_and_all_tasks_are_known_without_torch():
    code = (
        "import sys; from gcnet.tasks.settings import all_fields; all_fields()\n"
        "print([name for name in ('torch', 'lightning', 'torchmetrics', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
