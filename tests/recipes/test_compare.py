"""A comparison of tiny runs: what it writes, what it repeats, and what it survives."""

import base64
import csv
import re
import shutil
from dataclasses import replace

import pytest

from gcnet.analysis.published import AXES, NONE
from gcnet.errors import RunError
from gcnet.recipes import Settings
from gcnet.recipes.comparison import compare
from gcnet.report.paper import paper_table
from gcnet.scenes import source as sources
from tests.recipes.detection import tiny_settings, write_discs

compare_module = __import__("sys").modules["gcnet.recipes.comparison"]
QUICK = {"progress": False, "cost_rounds": 1}


@pytest.fixture(autouse=True)
def _few_scenes(monkeypatch):
    monkeypatch.setattr(sources, "SCENE_COUNTS", {"train": 32, "val": 8, "test": 16})


def scenes(folder, **changes):
    base = Settings(data="cue", task="scenes", model="scenes", epochs=1, batch_size=16, warmup_epochs=0, runs=folder)
    return replace(base, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """none and gc, two seeds each; the tests copy it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SCENE_COUNTS", {"train": 32, "val": 8, "test": 16})
        found = compare(scenes(folder), blocks=("gc", "none"), seeds=2, name="c", **QUICK)
    return folder, found


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished[0] / "c", tmp_path / "c")
    return tmp_path


@pytest.fixture
def trainings(monkeypatch):
    """The runs that are trained, and those whose test part is looked at."""
    seen = {"train": [], "evaluate": []}
    train, evaluate = compare_module.train, compare_module.evaluate

    def counted_train(run, **options):
        if not (run.folder / "summary.json").exists():
            seen["train"].append(run.run.name)
        return train(run, **options)

    def counted_evaluate(folder, **options):
        seen["evaluate"].append((folder.parent.name, options["split"]))
        return evaluate(folder, **options)

    monkeypatch.setattr(compare_module, "train", counted_train)
    monkeypatch.setattr(compare_module, "evaluate", counted_evaluate)
    return seen


def test_rows_hold_figures_of_the_test_part_and_costs(finished):
    _, found = finished
    none, gc = found.rows
    assert (none.label, gc.label, found.split, found.metric) == ("none", "gc", "test", "balanced_accuracy")
    assert set(none.accuracies) == set(gc.accuracies) == {0, 1}
    # two blocks of 64 channels, reduction 2: key 64 + 1, 64 -> 32, norm, 32 -> 64
    assert gc.added_parameters == 2 * (65 + (64 * 32 + 32) + 2 * 32 + (32 * 64 + 64))
    assert gc.added_macs >= 2 * 2 * 64 * 32
    assert gc.cost.training.ratio.value > 0
    assert none.cost.inference.ratio.value == 1


def test_the_same_seed_starts_the_same_model_in_every_variant(finished):
    import torch

    from gcnet.recipes.run.training import prepare

    folder, found = finished
    runs = {row.label: scenes(folder, block=None if row.label == "none" else row.label) for row in found.rows}
    states = {}
    for label, run in runs.items():
        torch.manual_seed(run.run.seed)
        states[label] = prepare(run)[0].state_dict()
    assert all(torch.equal(value, states["gc"][key]) for key, value in states["none"].items())


def test_tables_pictures_and_page_are_written(finished):
    folder, found = finished
    rows = list(csv.DictReader((folder / "c" / "comparison.csv").read_text().splitlines()))
    assert [row["variant"] for row in rows] == ["none", "gc"]
    assert float(rows[1]["difference"]) == found.rows[1].difference.value
    assert len((folder / "c" / "runs.csv").read_text().splitlines()) == 1 + 4
    for name in ("accuracy.png", "time.png"):
        assert (folder / "c" / name).read_bytes().startswith(b"\x89PNG")


def test_the_page_stands_alone(finished):
    page = finished[1].page.read_text(encoding="utf-8")
    pictures = re.findall(r'(?:src|srcset)="([^"]*)"', page)
    assert len(pictures) == 4
    for picture in pictures:
        assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_finished_runs_are_neither_trained_nor_tested_again(copied, finished, trainings):
    found = compare(scenes(copied), blocks=("none", "gc"), seeds=2, name="c", **QUICK)
    assert trainings == {"train": [], "evaluate": []}
    assert [row.accuracies for row in found.rows] == [row.accuracies for row in finished[1].rows]


def test_an_interrupted_comparison_goes_on_with_what_is_missing(copied, finished, trainings):
    shutil.rmtree(copied / "c" / "gc" / "seed1")
    (copied / "c" / "none" / "seed1" / "evaluation.json").unlink()
    found = compare(scenes(copied), blocks=("none", "gc"), seeds=2, name="c", **QUICK)
    assert trainings["train"] == ["c/gc/seed1"]
    assert sorted(trainings["evaluate"]) == [("gc", "test"), ("none", "test")]
    assert [row.accuracies for row in found.rows] == [row.accuracies for row in finished[1].rows]


def test_an_evaluation_on_other_data_is_not_taken_for_the_run_s_own(copied, finished, trainings):
    path = copied / "c" / "gc" / "seed0" / "evaluation.json"
    path.write_text(path.read_text().replace('"data": "cue"', '"data": "mirror"'))
    compare(scenes(copied), blocks=("none", "gc"), seeds=2, name="c", **QUICK)
    assert trainings["evaluate"] == [("gc", "test")]


def test_a_folder_with_other_settings_is_refused_before_training(copied, trainings):
    with pytest.raises(RunError, match=r"seed0 cannot be resumed with other settings \(lr: 0.001 -> 0.5\)"):
        compare(scenes(copied, lr=0.5), blocks=("se", "none", "gc"), seeds=2, name="c", **QUICK)
    assert trainings["train"] == []


def test_a_run_that_fails_does_not_take_the_others_along(copied, monkeypatch):
    shutil.rmtree(copied / "c" / "gc" / "seed0")
    train = compare_module.train

    def broken(run, **options):
        if run.run.name == "c/gc/seed0":
            raise RuntimeError("the loss <b>exploded</b>")
        return train(run, **options)

    monkeypatch.setattr(compare_module, "train", broken)
    found = compare(scenes(copied), blocks=("none", "gc"), seeds=2, name="c", **QUICK)
    assert [(failure.label, failure.seed) for failure in found.failures] == [("gc", 0)]
    assert set(found.row("gc").accuracies) == {1}
    assert found.row("gc").difference.half_width is None
    page = found.page.read_text(encoding="utf-8")
    assert "the loss &lt;b&gt;exploded&lt;/b&gt;" in page
    assert "<b>exploded" not in page
    assert "Not finished, and left out of the figures: gc seed 0." in page


def test_ctrl_c_is_not_taken_for_a_failed_run(tmp_path, monkeypatch):
    def interrupted(run, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_module, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(scenes(tmp_path), blocks=("none",), seeds=1, **QUICK)


def test_when_every_run_fails_the_first_reason_is_said(tmp_path, monkeypatch):
    def broken(run, **options):
        raise RuntimeError("no luck")

    monkeypatch.setattr(compare_module, "train", broken)
    with pytest.raises(RunError, match="all 1 runs failed; the first: RuntimeError: no luck"):
        compare(scenes(tmp_path), blocks=("none",), seeds=1, **QUICK)


def test_a_wrong_option_is_found_before_any_training(tmp_path, trainings):
    with pytest.raises(ValueError, match="axis='colour' is unknown; use one of block, position"):
        compare(scenes(tmp_path, block="gc"), axis="colour", values=["red"], seeds=1, **QUICK)
    with pytest.raises(ValueError, match="reduction='many' is not allowed; give a positive int"):
        compare(scenes(tmp_path), axis="reduction", values=["many"], seeds=1, **QUICK)
    with pytest.raises(ValueError, match="block 'gcc' is unknown"):
        compare(scenes(tmp_path), blocks=("none", "gcc"), seeds=1, **QUICK)
    with pytest.raises(ValueError, match="seeds=0: allowed are whole numbers from 1"):
        compare(scenes(tmp_path), seeds=0, **QUICK)
    assert trainings["train"] == []
    assert not any(tmp_path.iterdir())


def test_an_option_is_an_axis_too(tmp_path):
    found = compare(scenes(tmp_path, block="gc"), axis="reduction", values=[2, 16], seeds=1, name="axis", **QUICK)
    assert [row.label for row in found.rows] == ["none", "reduction=2", "reduction=16"]
    assert found.rows[1].added_parameters > found.rows[2].added_parameters > 0
    assert (tmp_path / "axis" / "reduction-16" / "seed0" / "model.safetensors").exists()


def test_an_ablation_of_the_paper_has_its_figures_beside(tmp_path):
    found = compare(scenes(tmp_path), axis="pool-fusion", values=["average+scale", "average+add"], seeds=1, **QUICK)
    assert [row.label for row in found.rows] == ["none", "average+scale", "average+add"]
    none, scale, add = csv.DictReader((found.folder / "comparison.csv").read_text().splitlines())
    assert (none["paper_coco_mask_rcnn_r50_box_AP"], none["paper_coco_mask_rcnn_r50_box_AP_source"]) == ("37.2", "s")
    assert (scale["paper_coco_mask_rcnn_r50_mask_AP"], scale["paper_parameters"]) == ("34.7", "2507392")
    assert (add["paper_coco_mask_rcnn_r50_box_AP"], add["paper_coco_mask_rcnn_r50_box_AP_source"]) == ("", "")
    page = found.page.read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    assert "paper: Mask R-CNN R50 on COCO, box / mask AP" in text
    assert "38.2 / 34.7 (d) +1.0 / +0.9" in text
    assert "– –" in text  # of average+add no AP is known
    assert "(d) derived from the paper" in text
    assert "ImageNet, top-1" not in text  # scenes are no photographs


def test_a_comparison_that_is_none_of_the_paper_s_does_not_show_the_paper(finished):
    folder, found = finished
    assert found.published == {}
    assert "paper" not in found.page.read_text(encoding="utf-8")
    assert "paper" not in (folder / "c" / "comparison.csv").read_text()


def test_blocks_of_classifiers_have_the_paper_s_imagenet_figures_too(finished):
    published = {"none": NONE, "gc": AXES["block"]["gc+all"].published}
    classified = replace(finished[1], settings=Settings(data="d"), metric="accuracy", axis="block", published=published)
    table = paper_table(classified)
    assert table.columns[4] == "paper: ResNet-50 on ImageNet, top-1"
    assert [row[4] for row in table.rows] == ["76.9 (r)", "77.7 (s)"]
    assert len(paper_table(replace(classified, axis="reduction")).columns) == len(table.columns) - 1


def test_detectors_are_compared_by_their_average_precision(tmp_path):
    data = write_discs(tmp_path / "discs", (("train", 2), ("val", 2)))
    found = compare(
        tiny_settings(data, tmp_path, block=None, stages=None, block_options={}, epochs=1),
        axis="stages",
        values=["c5"],
        seeds=1,
        **QUICK,
    )
    c5 = found.rows[1]
    assert (found.metric, found.split, c5.label) == ("mask_AP", "val", "stages=c5")
    assert 0 <= c5.accuracies[0] <= 1
    # two blocks of 64 channels, reduction 16, in a ResNet-18 an eighth as wide
    assert c5.added_parameters == 2 * (65 + 2 * 64 * 4 + 4 + 64 + 2 * 4)
    assert c5.added_macs > 0
    page = found.page.read_text(encoding="utf-8")
    assert "Mask AP on the validation part" in page
    assert "of backbone and pyramid on one image" in page
    assert "1,586,307 (d)" in page


def test_missing_drawing_packages_are_said_before_training(tmp_path, monkeypatch, trainings):
    from gcnet.report import page

    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'matplotlib and jinja2 .* pip install "gcnet\[report\]"'):
        compare(scenes(tmp_path), seeds=1, **QUICK)
    assert trainings["train"] == []


def test_data_without_a_test_part_are_reported_on_validation_and_the_page_says_so(photos, tmp_path, changed):
    data = tmp_path / "<i>photos"
    for split in ("train", "val"):
        shutil.copytree(photos / split, data / split)
    found = compare(changed(data=str(data), epochs=1), blocks=("none", "gc"), seeds=1, **QUICK)
    assert (found.split, found.metric) == ("val", "accuracy")
    page = found.page.read_text(encoding="utf-8")
    assert "the data have no test part" in page
    assert "&lt;i&gt;photos" in page
    assert "<i>" not in page
    assert found.rows[1].added_parameters > 0
