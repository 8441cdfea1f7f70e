"""The cost table counts the models that it names: parameters of mmdetection's own, sums over parts."""

import json
from pathlib import Path

import pytest

import cost_table
from gcnet.analysis.cost import count_parameters

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "cost_table.json"
# What mmdetection calls the detectors of the table, without, with r16, with r4.
CASCADE = "cascade-mask-rcnn_x101-32x4d-syncbn"
CONFIGS = {
    "Mask R-CNN, R50": [f"mask-rcnn_r50-{name}" for name in ("syncbn", "syncbn-gcb-r16-c3-c5", "syncbn-gcb-r4-c3-c5")],
    "Mask R-CNN, R101": [
        f"mask-rcnn_r101-{name}" for name in ("syncbn", "syncbn-gcb-r16-c3-c5", "syncbn-gcb-r4-c3-c5")
    ],
    "Mask R-CNN, X101 32x4d": [
        f"mask-rcnn_x101-32x4d-{name}" for name in ("syncbn", "syncbn-gcb-r16-c3-c5", "syncbn-gcb-r4-c3-c5")
    ],
    "Cascade Mask R-CNN, X101 32x4d": [f"{CASCADE}{name}" for name in ("", "-r16-gcb-c3-c5", "-r4-gcb-c3-c5")],
    "Cascade Mask R-CNN, X101 32x4d, DCN in c3 to c5": [
        f"{CASCADE}-dconv-c3-c5{name}" for name in ("", "-r16-gcb-c3-c5", "-r4-gcb-c3-c5")
    ],
}


@pytest.fixture(scope="module")
def counts(shared):
    rows = json.loads((shared / "fixtures/full/param_counts.json").read_text())
    return {row["config"].removesuffix("_fpn_1x_coco"): row["params"] for row in rows}


def test_the_detectors_have_the_parameters_of_mmdetections(counts):
    assert [row for row, *_ in cost_table.DETECTORS] == list(CONFIGS)
    for row, name, options in cost_table.DETECTORS:
        model = cost_table.detector(name, block="gc", reduction=16, **options)
        assert count_parameters(model) == counts[CONFIGS[row][1]], row


def test_the_filed_table_has_the_parameters_of_mmdetections(counts):
    filed = {row["detector"]: row for row in json.loads(RESULTS.read_text())["rows"] if "detector" in row}
    assert filed.keys() == CONFIGS.keys()
    for row, configs in CONFIGS.items():
        assert list(filed[row]["params"].values()) == [counts[config] for config in configs], row


def test_the_filed_table_adds_up():
    rows = json.loads(RESULTS.read_text())["rows"]
    parts = [row for row in rows if "macs_by_part" in row]
    assert len(parts) == 8
    for row in parts:
        assert sum(row["macs_by_part"].values()) == row["macs"]
        assert list(row["macs_by_part"])[-4:] == ["fpn", "rpn", "box head", "mask head"]
    backbone = {row["blocks"]: row["added_macs"] for row in rows if str(row.get("setting")).startswith("Backbone")}
    for row in parts:
        assert row["macs"] - parts[0]["macs"] == backbone[row["blocks"]]
