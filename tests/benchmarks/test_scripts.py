"""Each script's parity check and table at tiny sizes; times are not looked at."""

import fnmatch
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet

import accelerated_models
import block_alone
import context_tax
import detector_tax
import gcnet
import training_step

ROOT = Path(__file__).parents[2]
# Not claims, or not in the quarter of an hour of `make bench`.
APART = {
    "measure",
    "rows",
    "peers",
    "lockstep",
    "experiments",
    "compile_insert",
    "detector_tax",
    "gpu_suite",
    "nonlocal_forms",
    "batch_statistics",
    "nuclei",
    "routes",
    "simplify",
    "query_dependence",
    "query_dependence_figure",
    "query_dependence_report",
    "thresholds",
    "start_up",
    "against_before",
}


def tiny() -> resnet.ResNet:
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 5, width_per_group=16)


def lines_of(markdown: str) -> list[list[str]]:
    """Cells of each line of the table, without the header; as many as the header has."""
    lines = [line.strip("|").split("|") for line in markdown.split("\n\n")[0].splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    return [[cell.strip() for cell in line] for line in lines[2:]]


def spoil(model: nn.Module) -> None:
    """One number that a comparison of outputs must notice."""
    with torch.no_grad():
        next(p for p in reversed(list(model.parameters())) if p.ndim > 1).mul_(1.5)


def test_context_tax_compares_seven_equal_networks():
    models = context_tax.networks(tiny, "channels_last")
    x = torch.randn(1, 3, 32, 32)
    row = context_tax.measure(models, x, goal=0.02, rounds=2, seconds=60)
    lines = lines_of(context_tax.table([{"case": "tiny", **row}]))
    assert [line[1] for line in lines] == list(models)
    assert len(models) == 7
    assert [line[5] != "" for line in lines] == ["ours" in name for name in models]
    for name, model in models.items():
        if name.startswith(("gc", "se")):
            spoil(model)
            with pytest.raises(AssertionError, match="relative difference"):
                context_tax.check(models, x)
            break


def tiny_detector() -> nn.Module:
    widths = {"base_channels": 16, "fpn_channels": 16, "fc_channels": 16, "mask_channels": 16}
    return gcnet.create_model("maskrcnn_resnet50_fpn", num_classes=2, **widths)


def test_detector_tax_compares_four_equal_detectors(monkeypatch):
    monkeypatch.setattr(detector_tax, "BOXES", 20)
    monkeypatch.setattr(detector_tax, "MASKS", 5)
    row = detector_tax.measure(tiny_detector, "channels_last", (64, 96), rounds=2, seconds=60)
    lines = lines_of(detector_tax.table([{"case": "tiny", **row}]))
    assert [line[1] for line in lines] == [*detector_tax.BASES, detector_tax.OURS, detector_tax.MMCV]
    assert [line[5] != "" for line in lines] == [False, False, True, False]


@pytest.mark.parametrize("head", ["backbone.fpn.layer_blocks.1.0", "rpn.head.bbox_pred", "roi_heads.mask_predictor"])
def test_detector_tax_runs_the_detectors_own_parts_and_notices_other_outputs(head):
    models, unfolded = detector_tax.networks(tiny_detector, "NCHW")
    x, size = torch.randn(1, 3, 64, 96), (64, 96)
    ours = unfolded["gc"]
    expected = ours.trace(x, [size])
    boxes = expected["proposals"][0]["boxes"]
    state = x
    with torch.no_grad():
        for part in detector_tax.parts(ours, boxes, size):
            state = part(state)
    wanted = [*expected["fpn"], *expected["rpn"]["cls_score"], *expected["rpn"]["bbox_pred"]]
    wanted += [expected["logits"], expected["deltas"]]
    assert len(state[1]) == len(wanted) + 1  # and the masks
    assert state[1][-1].shape[0] == min(len(boxes), detector_tax.MASKS)
    for found, value in zip(state[1], wanted, strict=False):
        torch.testing.assert_close(found, value)
    spoil(models[detector_tax.OURS].get_submodule(head))
    split = partial(detector_tax.parts, boxes=detector_tax.fixed_boxes(size), size=size)
    with torch.no_grad(), pytest.raises(AssertionError, match=r"gc: ours.*relative difference"):
        detector_tax.check(models, unfolded, split, x)


def test_block_alone_compares_equal_blocks_with_a_copy():
    rows = [
        {"case": name, **block_alone.measure((2, 32, 5, 7), name, rounds=2, seconds=60)} for name in block_alone.FORMATS
    ]
    lines = lines_of(block_alone.table(rows))
    assert [line[1] for line in lines] == ["ours", "mmcv", "timm", "copy"] * 2
    models = block_alone.blocks(32, "NCHW")
    spoil(models["ours"])
    with pytest.raises(AssertionError, match="relative difference"):
        block_alone.check(models, torch.randn(2, 32, 5, 7))


def test_block_alone_counts_the_cells_that_reach_the_goal():
    def cell(low, median, high):
        return {"ours_times_faster": {"mmcv": {"low": low, "median": median, "high": high}}}

    text = block_alone.verdict([cell(1.8, 1.9, 2.0), cell(2.1, 2.2, 2.3), cell(0.7, 0.8, 0.9)], "mmcv")
    assert "of 3 cells" in text
    assert "in 2 (1 by the median alone; goal 7)" in text
    assert "slower in 1 (1; goal 0), least 0.80 times" in text


@pytest.mark.parametrize("norms", training_step.NORMS)
def test_training_step_compares_equal_gradients(norms):
    row = training_step.measure(tiny, norms, "channels_last", (2, 3, 32, 32), rounds=2, seconds=60)
    lines = lines_of(training_step.table([{"case": norms, **row}]))
    assert [line[1] for line in lines] == ["none", "ours", "mmcv"]
    assert lines[1][4].startswith("less than 0.5 of mmcv's" if norms == "batch statistics" else "<= 3")


def test_training_step_notices_other_gradients():
    models = training_step.networks(tiny, "eval", "NCHW")
    models["mmcv"].layer2[0].bn3[1].channel_add_conv[0].register_full_backward_hook(lambda m, i, o: (i[0] * 2,))
    with pytest.raises(AssertionError, match="relative difference"):
        training_step.check(
            {name: model.double() for name, model in models.items()}, torch.randn(2, 3, 32, 32).double()
        )


def test_training_step_freezes_what_it_says():
    def norms(kind):
        return [
            m for m in training_step.networks(tiny, kind, "NCHW")["ours"].modules() if "BatchNorm" in type(m).__name__
        ]

    assert all(norm.training for norm in norms("batch statistics"))
    assert not any(norm.training for norm in norms("eval"))
    assert {type(norm).__name__ for norm in norms("FrozenBatchNorm2d")} == {"FrozenBatchNorm2d"}


def test_accelerated_models_compares_three_equal_forms():
    models = accelerated_models.networks("seresnet18", "NCHW")
    x = torch.randn(1, 3, 32, 32)
    row = accelerated_models.measure(models, x, rounds=2, seconds=60)
    lines = lines_of(accelerated_models.table([{"case": "tiny", **row}]))
    assert [line[1] for line in lines] == list(models)
    assert [line[3] != "" for line in lines] == [True, True, False]
    spoil(models[accelerated_models.OURS])
    with pytest.raises(AssertionError, match="relative difference"):
        accelerated_models.measure(models, x, rounds=1, seconds=0)


@pytest.mark.parametrize(
    ("script", "default", "known"),
    [
        (context_tax, 6, 10),
        (block_alone, 10, 10),
        (training_step, 4, 6),
        (accelerated_models, 12, 12),
        (detector_tax, 2, 2),
    ],
)
def test_the_default_rows_of_each_script(script, default, known, monkeypatch):
    taken = []
    monkeypatch.setattr(script, "take", lambda name, about, cases, table, only: taken.append((cases, only)))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    script.main()
    ((cases, only),) = taken
    assert len(cases) == known
    assert len(fnmatch.filter(cases, only)) == default


def test_spinning_threads_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.raises(SystemExit):
        block_alone.main()
    assert "set OMP_WAIT_POLICY=PASSIVE" in capsys.readouterr().err


def test_make_bench_and_the_readme_name_every_script():
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    listed = re.search(r"^BENCHMARKS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert set(listed[1].replace("\\\n", " ").split()) == scripts - APART
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    assert {name for name in scripts if f"`{name}.py`" not in readme} == set()
