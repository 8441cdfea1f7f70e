"""The transforms: torchvision's values, no surprise at odd sizes, errors that name the key."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from gcnet.data.classification.transforms import eval_transform, train_transform
from gcnet.data.images import read_image

PREPROCESSING = {
    "size": [48, 32],
    "resize": 56,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channel_order": "RGB",
}


def changed(**values):
    return {**PREPROCESSING, **values}


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


def reference(image, mode=InterpolationMode.BICUBIC):
    steps = [v2.Resize(56, interpolation=mode), v2.CenterCrop([48, 32]), v2.PILToTensor()]
    end = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(PREPROCESSING["mean"], PREPROCESSING["std"])]
    return v2.Compose([*steps, *end])(image)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_equals_torchvision(noise, interpolation):
    got = eval_transform(changed(interpolation=interpolation))(noise)
    assert (got.shape, got.dtype, type(got)) == ((3, 48, 32), torch.float32, torch.Tensor)
    torch.testing.assert_close(got, reference(noise, InterpolationMode(interpolation)), rtol=1e-5, atol=2e-6)


def test_evaluation_equals_torchvision_on_a_photograph(shared):
    image = read_image(sorted((shared / "data/clothing_small/test/hat").iterdir())[0])
    torch.testing.assert_close(eval_transform(PREPROCESSING)(image), reference(image), rtol=1e-5, atol=2e-6)


def test_bgr_is_rgb_with_the_channels_reversed(noise):
    bgr = changed(channel_order="BGR", mean=PREPROCESSING["mean"][::-1], std=PREPROCESSING["std"][::-1])
    assert torch.equal(eval_transform(bgr)(noise).flip(0), eval_transform(PREPROCESSING)(noise))


def test_training_covers_the_image_at_random_and_follows_the_seed(noise):
    transform = train_transform(PREPROCESSING)
    torch.manual_seed(3)
    first = [transform(noise) for _ in range(4)]
    torch.manual_seed(3)
    again = [transform(noise) for _ in range(4)]
    assert all(image.shape == (3, 48, 32) and image.is_contiguous() for image in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_the_whole_image_unflipped_is_what_remains_without_crop_and_flip():
    image = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    square = changed(size=[64, 64], resize=64, mean=[0, 0, 0], std=[1, 1, 1])
    plain = train_transform(square, flip=False, scale=(1.0, 1.0))
    got = torch.stack([plain(image) for _ in range(20)])
    assert (got.diff(dim=-1) >= 0).all()  # never mirrored
    mirrored = torch.stack([train_transform(square, scale=(1.0, 1.0))(image) for _ in range(20)])
    falling = mirrored[:, 0, 0, 0] > mirrored[:, 0, 0, -1]
    assert 0 < falling.sum() < 20


def test_scale_is_the_share_of_the_area():
    image = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    square = changed(size=[40, 40], resize=40, mean=[0, 0, 0], std=[1, 1, 1])

    def spans(scale):
        transform = train_transform(square, flip=False, scale=scale)
        return [float(np.ptp(transform(image)[0, 0].numpy())) * 255 / 200 for _ in range(20)]

    assert max(spans((0.04, 0.05))) < 0.3
    assert min(spans((0.6, 0.9))) > 0.6


def test_randaugment_changes_more_than_the_crop(noise):
    whole = {"flip": False, "scale": (1.0, 1.0)}
    square = changed(size=[90, 120], resize=120)
    plain = train_transform(square, **whole)(noise)
    images = [train_transform(square, **whole, randaugment=20)(noise) for _ in range(10)]
    assert sum(not torch.allclose(image, plain, atol=0.05) for image in images) >= 5
    assert all(image.shape == (3, 90, 120) for image in images)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3), (33, 4000)])
def test_odd_sizes_give_the_models_size(size):
    image = Image.new("RGB", size, (255, 0, 0))
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]).view(3, 1, 1).expand(3, 48, 32)
    for transform in (eval_transform(PREPROCESSING), train_transform(PREPROCESSING)):
        torch.testing.assert_close(transform(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(14, 500), (500, 14)])
def test_a_narrow_image_keeps_its_centre(size):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    torch.testing.assert_close(eval_transform(PREPROCESSING)(image), reference(image), rtol=1e-5, atol=2e-6)


def test_transforms_pickle_for_worker_processes(noise):
    transform = pickle.loads(pickle.dumps(eval_transform(PREPROCESSING)))
    assert torch.equal(transform(noise), eval_transform(PREPROCESSING)(noise))
    assert pickle.loads(pickle.dumps(train_transform(PREPROCESSING, randaugment=5)))(noise).shape == (3, 48, 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 224}, r"preprocessing\['size'\]=224; it must be \[height, width\]"),
        ({"size": [224, 0]}, r"preprocessing\['size'\]=\[224, 0\]"),
        ({"size": [22.4, 3]}, r"preprocessing\['size'\]=\[22\.4, 3\]"),
        ({"resize": 40}, r"preprocessing\['resize'\]=40; it must be an int of at least 48"),
        ({"resize": None}, r"preprocessing\['resize'\]=None"),
        ({"interpolation": "nearest"}, r"preprocessing\['interpolation'\]='nearest'; allowed: bilinear, bicubic"),
        ({"channel_order": "GBR"}, r"preprocessing\['channel_order'\]='GBR'; allowed: RGB, BGR"),
        ({"mean": 0.5}, r"preprocessing\['mean'\]=0\.5; it must be three numbers"),
        ({"std": [1, 1, "1"]}, r"preprocessing\['std'\]=\[1, 1, '1'\]; it must be three numbers"),
        ({"std": [1, 0, 1]}, r"preprocessing\['std'\]=\[1, 0, 1\]; every entry must be above 0"),
        ({"crop": 0.9}, r"missing keys \[\], unknown keys \['crop'\]; needed are \['size', 'resize'"),
    ],
)
@pytest.mark.parametrize("transform", [train_transform, eval_transform])
def test_a_wrong_record_names_the_key(transform, values, message):
    with pytest.raises(ValueError, match=message):
        transform(changed(**values))


def test_missing_keys_and_other_types_are_named():
    with pytest.raises(ValueError, match=r"missing keys \['resize', 'interpolation', 'std', 'channel_order'\]"):
        eval_transform({"size": [8, 8], "mean": [0, 0, 0]})
    with pytest.raises(TypeError, match="preprocessing=None; it must be a dict with the keys size"):
        eval_transform(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.5, 0.4)}, r"scale=\(0\.5, 0\.4\); it must be \(from, to\)"),
        ({"scale": (0, 1)}, r"scale=\(0, 1\)"),
        ({"scale": (0.5, 1.2)}, r"scale=\(0\.5, 1\.2\)"),
        ({"randaugment": 31}, r"randaugment=31; allowed: None or a magnitude of 0\.\.30"),
        ({"randaugment": True}, "randaugment=True"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train_transform(PREPROCESSING, **options)
