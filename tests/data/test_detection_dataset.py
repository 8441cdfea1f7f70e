"""Images and targets: sizes, mirrored boxes and masks, what is dropped, what cannot be read; batches by shape."""

import numpy as np
import pytest
import torch
from PIL import Image

from gcnet.data import DetectionDataset, collate_detection, detection_eval_transform, detection_train_transform
from gcnet.data.detection.annotations import Annotated, Instance
from gcnet.data.detection.grouping import GroupedBatches, orientations
from gcnet.data.detection.masks import encode_mask


@pytest.fixture
def images(tmp_path):
    """A 60x40 image with a bright rectangle, its box and mask, a crowd, and a box that is a sliver."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 5:25] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    runs = encode_mask(pixels[..., 0] > 0)
    objects = (
        Instance(1, (5.0, 10.0, 25.0, 30.0), 2, 400.0, False, runs),
        Instance(2, (0.0, 0.0, 61.0, 40.0), 0, 2400.0, True, runs),
        Instance(3, (59.8, 0.0, 60.4, 40.0), 1, 8.0, False, runs),
    )
    return (Annotated(tmp_path / "a.png", 7, 40, 60, objects), Annotated(tmp_path / "gone.png", 8, 40, 60, ()))


def test_an_item_has_the_image_and_sound_boxes_labels_and_masks(images):
    item = DetectionDataset(images, detection_eval_transform(), masks=True)[0]
    assert item.image.shape == (3, 40, 60)
    assert item.image.dtype == torch.float32
    assert item.image.max() == 1
    target = item.target
    assert target["boxes"].tolist() == [[5, 10, 25, 30], [0, 0, 60, 40]]  # clipped; the sliver is gone
    assert (target["labels"].tolist(), target["iscrowd"].tolist(), target["area"].tolist()) == (
        [2, 0],
        [0, 1],
        [400, 2400],
    )
    assert (target["image_id"], item.dropped) == (7, 1)
    assert target["masks"].shape == (2, 40, 60)
    assert type(target["boxes"]) is torch.Tensor
    assert torch.equal(target["masks"][0].bool(), item.image[0] > 0.5)


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_and_masks_follow_the_image_through_resizing_and_mirroring(images, flip):
    torch.manual_seed(3)
    dataset = DetectionDataset(images, detection_train_transform(sizes=[80], max_size=200, flip=flip), masks=True)
    sides = set()
    for _ in range(8):
        item = dataset[0]
        assert item.image.shape == (3, 80, 120)
        x1, y1, x2, y2 = item.target["boxes"][0].round().int().tolist()
        assert (y1, y2) == (20, 60)
        inside = item.image[0, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2]
        assert inside.min() > 0.9
        assert (item.target["masks"][0].bool() == (item.image[0] > 0.5)).float().mean() > 0.97
        sides.add(x1)
    assert sides == ({10, 70} if flip else {10})


def test_multi_scale_stays_below_the_largest_size_and_draws_all_sizes(images):
    dataset = DetectionDataset(images, detection_train_transform(sizes=[20, 30, 40], max_size=45, photometric=True))
    shapes = {tuple(dataset[0].image.shape[1:]) for _ in range(30)}
    assert shapes == {(20, 30), (30, 45)}  # 40 would have a long side of 60
    assert "masks" not in dataset[0].target


def test_an_unreadable_image_or_one_of_another_size_is_skipped_and_named(images):
    dataset = DetectionDataset([*images, images[0]._replace(width=40, height=60)], detection_eval_transform())
    batch = collate_detection([dataset[i] for i in range(3)])
    assert (len(batch.images), batch.indices.tolist(), batch.dropped) == (1, [0], 1)
    assert [index for index, _ in batch.errors] == [1, 2]
    assert batch.errors[0][1] == "does not exist"
    assert batch.errors[1][1] == "is 60 x 40, its annotations are for 40 x 60 (turned by its EXIF orientation?)"
    assert next(iter(dataset.skipped.values())) == "does not exist"


def test_an_image_without_objects_has_empty_tensors(images):
    item = DetectionDataset([images[0]._replace(instances=())], detection_eval_transform(), masks=True)[0]
    assert item.target["boxes"].shape == (0, 4)
    assert item.target["masks"].shape == (0, 40, 60)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": [], "max_size": 9}, r"sizes=\[\]; they must be whole numbers"),
        ({"sizes": [20, 0], "max_size": 9}, r"sizes=\[20, 0\]"),
        ({"sizes": [20], "max_size": 9}, "max_size=9; it must be a whole number of at least 20"),
    ],
)
def test_wrong_sizes_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        detection_train_transform(**options)


@pytest.mark.parametrize(("count", "size"), [(23, 4), (16, 4), (7, 1), (3, 4)])
def test_batches_are_of_one_orientation_and_hold_every_image_but_the_last_few(images, count, size):
    shaped = [images[0]._replace(height=40 if i % 3 else 90) for i in range(count)]
    groups = orientations(shaped)
    assert groups[:3] == [1, 0, 0]
    order = torch.randperm(count).tolist()
    batches = list(GroupedBatches(order, groups, size))
    assert len(batches) == len(GroupedBatches(order, groups, size)) == max(1, count // size)
    seen = [index for batch in batches for index in batch]
    assert len(set(seen)) == len(seen) == (count if count < size else count - count % size)
    mixed = [batch for batch in batches if len({groups[index] for index in batch}) > 1]
    assert len(mixed) <= 1


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size=0; it must be at least 1"):
        GroupedBatches([1], [0, 0], 0)
