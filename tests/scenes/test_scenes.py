"""The labels of a scene are recomputed from its cells, and the cells' pictures are looked up in the digits."""

import pytest
import torch

from gcnet.scenes.draw import MIRRORED_ROWS, TASKS, make_scenes
from gcnet.scenes.items import load_items


def _tiles(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, 48, 48) -> (N, 4, 4, 12, 12)."""
    return images[:, 0].unfold(1, 12, 12).unfold(2, 12, 12)


def test_cue_labels_are_equality_with_the_corner():
    scenes = make_scenes("cue", 50, seed=0)
    expected = (scenes.cells == scenes.cells[:, :1, :1]).long()
    expected[:, 0, 0] = -1
    assert torch.equal(scenes.labels, expected)


def test_mirror_labels_are_equality_with_the_mirrored_column():
    scenes = make_scenes("mirror", 50, seed=0)
    for column in range(4):
        partner = scenes.cells[:, :, 3 - column]
        assert torch.equal(scenes.labels[:, :, column], (scenes.cells[:, :, column] == partner).long())


@pytest.mark.parametrize("mirrored", [1, 2, 3])
def test_the_dial_judges_the_lowest_rows_by_their_partner_and_the_others_by_the_cue(mirrored):
    scenes = make_scenes(f"dial-{mirrored}", 50, seed=0)
    expected = (scenes.cells == scenes.cells[:, :1, :1]).long()
    expected[:, 4 - mirrored :] = (scenes.cells == scenes.cells.flip(2))[:, 4 - mirrored :].long()
    expected[:, 0, 0] = -1
    assert torch.equal(scenes.labels, expected)


def test_twice_marks_the_classes_that_appear_again():
    scenes = make_scenes("twice", 50, seed=0)
    flat = scenes.cells.flatten(1)
    counts = (flat[:, :, None] == flat[:, None, :]).sum(2)
    assert torch.equal(scenes.labels.flatten(1), (counts >= 2).long())
    assert (scenes.labels.flatten(1).sum(1) == 8).all()


@pytest.mark.parametrize("task", TASKS)
def test_half_of_the_cells_are_marked_in_every_class_and_part_and_all_classes_occur_equally(task):
    scenes = make_scenes(task, 2000, seed=1)
    classes = 10 if task == "twice" else 6
    assert len(scenes.names) == classes
    for part in (
        scenes.labels[:, : 4 - MIRRORED_ROWS.get(task, 0)],
        scenes.labels[:, 4 - MIRRORED_ROWS.get(task, 0) :],
    ):
        counted = part[part >= 0].float()
        assert len(counted) == 0 or abs(counted.mean().item() - 0.5) < 0.02
    for number in range(classes):
        own = scenes.labels[(scenes.cells == number) & (scenes.labels >= 0)].float()
        assert abs(own.mean().item() - 0.5) < 0.04, "its class alone tells whether a cell is marked"
    shares = torch.bincount(scenes.cells.flatten(), minlength=classes) / scenes.cells.numel()
    torch.testing.assert_close(shares, torch.full((classes,), 1 / classes), atol=0.01, rtol=0)


def test_cue_and_mirror_are_the_scenes_that_published_figures_were_measured_on():
    known = {task: make_scenes(task, 8, seed=2, split="test").fingerprint()[:16] for task in ("cue", "mirror")}
    assert known == {"cue": "b95d32fa6dd8a5a3", "mirror": "6c78f090fbc460e3"}


@pytest.mark.parametrize(
    ("task", "split"), [("cue", "train"), ("cue", "test"), ("dial-3", "test"), ("mirror", "test"), ("twice", "train")]
)
def test_every_cell_shows_a_digit_of_its_class_from_its_split(task, split):
    scenes = make_scenes(task, 4, seed=3, split=split)
    source = load_items("digits", split)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(source.images)[:, None].float() / 255, size=(12, 12), mode="area"
    )
    tiles = _tiles(scenes.images).clone()
    if task not in ("mirror", "twice"):
        tiles[:, 0, 0] = 1 - tiles[:, 0, 0]  # the cue is inverted
    distance = torch.cdist(tiles.reshape(-1, 144), small.reshape(-1, 144), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.min(dim=1)
    assert nearest.values.max() < 1e-5
    assert torch.equal(torch.from_numpy(source.labels)[nearest.indices], scenes.cells.flatten())


def test_training_and_test_digits_are_4000_and_1000_different_ones():
    train, test = load_items("digits", "train"), load_items("digits", "test")
    assert (len(train.labels), len(test.labels)) == (4000, 1000)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


@pytest.mark.parametrize("task", ["mirror", "dial-2", "twice"])
def test_the_seed_decides_the_scenes(task):
    first, again, other = (make_scenes(task, 5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()


def test_no_scenes_are_a_valid_count():
    scenes = make_scenes("cue", 0, seed=0)
    assert scenes.images.shape == (0, 1, 48, 48)
    assert scenes.labels.shape == scenes.cells.shape == (0, 4, 4)


def test_wrong_arguments_are_named():
    with pytest.raises(
        ValueError, match="task='ring' is unknown; use one of cue, mirror, dial-1, dial-2, dial-3, twice"
    ):
        make_scenes("ring", 1, seed=0)
    with pytest.raises(ValueError, match="count=-1 is negative"):
        make_scenes("cue", -1, seed=0)
    with pytest.raises(ValueError, match="items='cats' is unknown; use 'digits' or 'fashion'"):
        make_scenes("cue", 1, seed=0, items="cats")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split='val' is unknown"):
        make_scenes("cue", 1, seed=0, split="val")  # type: ignore[arg-type]
