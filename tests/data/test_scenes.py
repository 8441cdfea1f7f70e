"""The labels of a scene are recomputed from its cells, and the cells' pictures are looked up in the digits."""

import pytest
import torch

from gcnet.data.items import load_items
from gcnet.data.scenes import make_scenes


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


@pytest.mark.parametrize("task", ["cue", "mirror"])
def test_half_of_the_cells_are_marked_and_all_classes_occur_equally(task):
    scenes = make_scenes(task, 2000, seed=1)
    counted = scenes.labels[scenes.labels >= 0]
    assert abs(counted.float().mean().item() - 0.5) < 0.02
    shares = torch.bincount(scenes.cells.flatten(), minlength=6) / scenes.cells.numel()
    torch.testing.assert_close(shares, torch.full((6,), 1 / 6), atol=0.01, rtol=0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_cell_shows_a_digit_of_its_class_from_its_split(split):
    scenes = make_scenes("cue", 4, seed=3, split=split)
    source = load_items("digits", split)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(source.images)[:, None].float() / 255, size=(12, 12), mode="area"
    )
    tiles = _tiles(scenes.images).clone()
    tiles[:, 0, 0] = 1 - tiles[:, 0, 0]  # the cue is inverted
    distance = torch.cdist(tiles.reshape(-1, 144), small.reshape(-1, 144), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distance.min(dim=1)
    assert nearest.values.max() < 1e-5
    assert torch.equal(torch.from_numpy(source.labels)[nearest.indices], scenes.cells.flatten())


def test_training_and_test_digits_are_4000_and_1000_different_ones():
    train, test = load_items("digits", "train"), load_items("digits", "test")
    assert (len(train.labels), len(test.labels)) == (4000, 1000)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_the_seed_decides_the_scenes():
    first, again, other = (make_scenes("mirror", 5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()


def test_no_scenes_are_a_valid_count():
    scenes = make_scenes("cue", 0, seed=0)
    assert scenes.images.shape == (0, 1, 48, 48)
    assert scenes.labels.shape == scenes.cells.shape == (0, 4, 4)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="task='ring' is unknown; use one of cue, mirror"):
        make_scenes("ring", 1, seed=0)
    with pytest.raises(ValueError, match="count=-1 is negative"):
        make_scenes("cue", -1, seed=0)
    with pytest.raises(ValueError, match="items='cats' is unknown; use 'digits' or 'fashion'"):
        make_scenes("cue", 1, seed=0, items="cats")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split='val' is unknown"):
        make_scenes("cue", 1, seed=0, split="val")  # type: ignore[arg-type]
