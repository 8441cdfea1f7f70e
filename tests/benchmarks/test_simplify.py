"""The benchmark of simplify at a tiny size, with models that are not trained."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import gcnet
import simplify
from gcnet.data.source import Source
from gcnet.scenes.source import collate_scenes


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(simplify, "IMAGES", 8)
    monkeypatch.setattr(simplify, "SIZES", ((24, 24), (36, 48)))
    cells = torch.arange(16).reshape(4, 4).expand(8, 4, 4) % 2
    data = TensorDataset(torch.rand(8, 1, 48, 48), cells, cells, torch.arange(8))
    return Source({"train": data, "test": data}, {}, ("a", "b"), "", collate_scenes, files=False)


def test_a_row_has_every_way_and_replaces_what_needs_no_query(source, tmp_path, monkeypatch):
    model = gcnet.create_model("scenes", num_classes=2, block="nl").eval()
    for block in gcnet.inserted(model).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
    nn.init.zeros_(model.get_submodule("spots.0.context.theta").weight)
    monkeypatch.setitem(simplify.WAYS, "50 %, refined", {"max_error": 0.5, "refine_steps": 2})
    settings = simplify.settings_of("digits", "cue", "embedded_gaussian", 0, tmp_path)
    row = simplify.compare(model, source, settings, rounds=1, seconds=0)
    assert list(row["ways"]) == list(simplify.WAYS)
    assert "spots.0.context" in row["ways"]["2 %"]["replaced"]
    assert row["ways"]["2 %"]["changed"] <= 0.02
    assert len(row["ways"]["forced"]["replaced"]) == 2
    assert row["ways"]["2 %"]["accuracy"] == pytest.approx(row["before"], abs=0.05)
    header, _, line = simplify.table([{"case": "tiny", **row}]).split("\n\n")[0].splitlines()
    assert header.count("|") == line.count("|")


def test_the_rows_are_the_demos_tasks_in_every_form(tmp_path):
    cases = simplify.cases_of([0, 1], tmp_path, 1.0)
    assert len(cases) == 2 * 2 * len(simplify.FORMS) * 2
    assert "fashion mirror disentangled 1" in cases
    settings = cases["fashion mirror dot_product 1"].args[0]
    assert (settings.data.path, settings.run.seed, settings.block.name) == ("mirror/fashion", 1, "nl")
    assert settings.block.options == {"pairwise": "dot_product"}
    assert settings.folder == Path(tmp_path) / "simplify/fashion/mirror/dot_product/seed1"
