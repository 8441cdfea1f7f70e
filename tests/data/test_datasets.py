"""ImageDataset and collate: bad files are skipped and counted, the cache changes nothing but the speed."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from gcnet.data.classification import datasets
from gcnet.data.classification.datasets import Batch, ImageDataset, Item, collate, reduce_to
from gcnet.data.classification.folders import Sample, load_classification
from gcnet.data.classification.transforms import eval_transform, train_transform

PREPROCESSING = {
    "size": [64, 64],
    "resize": 64,
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "channel_order": "RGB",
}
TO_TENSOR = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


@pytest.fixture
def samples(tmp_path):
    """Eight grey images of 6 x 4 pixels with the values 0, 10, ..., 70; number 3 is truncated, number 5 empty."""
    found = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (6, 4), (10 * number,) * 3).save(path)
        found.append(Sample(path, number % 2))
    found[3].path.write_bytes(found[3].path.read_bytes()[:45])
    found[5].path.write_bytes(b"")
    return found


def count_reads(monkeypatch):
    seen = []
    read = datasets.read_image
    monkeypatch.setattr(datasets, "read_image", lambda path: seen.append(path) or read(path))
    return seen


def test_an_item_is_the_transformed_image_with_label_and_index(samples):
    item = ImageDataset(samples, TO_TENSOR)[7]
    assert isinstance(item, Item)
    assert (item.label, item.index, item.error) == (1, 7, None)
    torch.testing.assert_close(item.image, torch.full((3, 4, 6), 70 / 255))
    assert ImageDataset(samples, TO_TENSOR)[-1].index == 7
    with pytest.raises(IndexError):
        ImageDataset(samples, TO_TENSOR)[8]


def test_a_bad_image_is_an_item_without_image_and_recorded(samples, monkeypatch):
    dataset = ImageDataset(samples, TO_TENSOR)
    item = dataset[5]
    assert (item.image, item.label, item.index, item.error) == (None, 1, 5, "is empty (0 bytes)")
    assert dataset.skipped == {str(samples[5].path): "is empty (0 bytes)"}
    reads = count_reads(monkeypatch)
    assert dataset[5] == item
    assert reads == []  # it is not tried again


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_skips_bad_images_and_the_main_process_counts_them(samples, workers):
    dataset = ImageDataset(samples, TO_TENSOR)
    loader = DataLoader(dataset, batch_size=3, collate_fn=collate, num_workers=workers)
    labels, indices = [], []
    for batch in loader:
        assert isinstance(batch, Batch)
        assert len(batch.images) == len(batch.labels) == len(batch.indices)
        for image, index in zip(batch.images, batch.indices, strict=True):
            assert image.mean().item() == pytest.approx(index.item() * 10 / 255)
        dataset.record(batch.errors)
        labels += batch.labels.tolist()
        indices += batch.indices.tolist()
    assert indices == [0, 1, 2, 4, 6, 7]
    assert labels == [0, 1, 0, 0, 0, 1]
    assert set(dataset.skipped) == {str(samples[3].path), str(samples[5].path)}
    assert "cannot be decoded" in dataset.skipped[str(samples[3].path)]


def test_a_batch_of_bad_images_only_has_no_rows(samples):
    dataset = ImageDataset([samples[3], samples[5]], TO_TENSOR)
    batch = collate([dataset[0], dataset[1]])
    assert (len(batch.images), batch.labels.tolist(), batch.indices.tolist()) == (0, [], [])
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert [index for index, _ in batch.errors] == [0, 1]


def test_a_fault_of_the_transform_is_not_taken_for_a_bad_image(samples):
    def broken(image):
        raise ValueError("no such transform")

    with pytest.raises(ValueError, match="no such transform"):
        ImageDataset(samples, broken)[0]


def test_the_cache_reads_every_file_once_and_gives_the_same_images(samples, monkeypatch):
    plain = ImageDataset(samples, TO_TENSOR)
    cached = ImageDataset(samples, TO_TENSOR, cache=True)
    reads = count_reads(monkeypatch)
    for _ in range(3):
        for index in range(len(samples)):
            cached[index]
    assert sorted(reads) == sorted(sample.path for sample in samples)
    for index in (0, 1, 7):
        assert torch.equal(cached[index].image, plain[index].image)
    assert set(cached.skipped) == {str(samples[3].path), str(samples[5].path)}


def test_fill_reads_everything_before_workers_start(samples):
    dataset = ImageDataset(samples, TO_TENSOR, cache=True)
    assert dataset.fill() == 6
    assert len(dataset.skipped) == 2
    for sample in samples:
        sample.path.unlink()
    loader = DataLoader(dataset, batch_size=4, collate_fn=collate, num_workers=2)
    assert sum(len(batch.images) for batch in loader) == 6
    with pytest.raises(ValueError, match="cache=False; only a dataset with cache=True can be filled"):
        ImageDataset(samples, TO_TENSOR).fill()


def test_large_images_are_cached_reduced(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (90, 60), "red").save(path)
    dataset = ImageDataset([Sample(path, 0)], TO_TENSOR, cache=True, cache_side=20)
    assert dataset[0].image.shape == (3, 20, 30)
    assert dataset[0].image.shape == (3, 20, 30)  # from the cache as from the file


@pytest.mark.parametrize(
    ("size", "expected"), [((90, 60), (30, 20)), ((7, 500), (7, 500)), ((20, 21), (20, 21)), ((999, 21), (951, 20))]
)
def test_reducing_keeps_the_aspect_and_small_images(size, expected):
    assert reduce_to(Image.new("RGB", size), 20).size == expected


def test_the_cache_stops_at_its_limit_of_memory(samples, monkeypatch):
    dataset = ImageDataset(samples, TO_TENSOR, cache=True, cache_bytes=2 * 6 * 4 * 3 + 1)
    assert dataset.fill() == 2
    reads = count_reads(monkeypatch)
    assert [int(dataset[index].image.mean() * 255 + 0.5) for index in (0, 1, 2, 4)] == [0, 10, 20, 40]
    assert reads == [samples[2].path, samples[4].path]


def test_workers_share_the_limit_of_memory(samples, monkeypatch):
    monkeypatch.setattr(datasets, "get_worker_info", lambda: SimpleNamespace(num_workers=3))
    dataset = ImageDataset(samples, TO_TENSOR, cache=True, cache_bytes=6 * 6 * 4 * 3)
    assert dataset.fill() == 2


@pytest.mark.parametrize("option", ["cache_side", "cache_bytes"])
def test_a_wrong_limit_of_the_cache_is_an_error(samples, option):
    with pytest.raises(ValueError, match=rf"{option}=-1; it must be at least"):
        ImageDataset(samples, TO_TENSOR, cache=True, **{option: -1})


def test_real_photographs_load_in_batches(shared):
    data = load_classification(shared / "data/clothing_small")
    part = data.train[::150]
    cached = ImageDataset(part, eval_transform(PREPROCESSING), cache=True)
    cached.fill()
    batch = next(iter(DataLoader(cached, batch_size=len(part), collate_fn=collate)))
    plain = collate([ImageDataset(part, eval_transform(PREPROCESSING))[index] for index in range(len(part))])
    assert batch.images.shape == (len(part), 3, 64, 64)
    assert torch.equal(batch.images, plain.images)
    assert batch.errors == []
    assert len(batch.labels.unique()) == 10


def test_the_cache_is_never_written_to(samples):
    dataset = ImageDataset(samples, train_transform(PREPROCESSING, randaugment=30), cache=True)
    dataset.fill()
    before = {index: pixels.copy() for index, pixels in dataset._kept.items()}
    for _ in range(5):
        for index in range(len(dataset)):
            item = dataset[index]
            if item.image is not None:
                item.image.zero_()
    assert all(np.array_equal(before[index], pixels) for index, pixels in dataset._kept.items())
