"""Polygons and run lengths become the pixels that pycocotools makes of them; broken ones never reach the decoder."""

import numpy as np
import pytest
import torch
from pycocotools import mask as theirs

from gcnet.data.detection.masks import check_segmentation, decode_masks, encode_mask


@pytest.fixture
def pixels():
    rng = np.random.default_rng(0)
    return (rng.random((37, 53)) < 0.4).astype(np.uint8)


def test_compressed_and_plain_run_lengths_give_the_mask_back(pixels):
    compressed = encode_mask(pixels)
    flat = pixels.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0] if flat[0] == 0 else [0, 0], changes, [flat.size]])
    plain = {"size": [37, 53], "counts": np.diff(edges).tolist()}
    for runs in (compressed, plain):
        mask = decode_masks([check_segmentation(runs, 37, 53)], 37, 53)
        assert mask.shape == (1, 37, 53)
        assert mask.dtype == torch.uint8
        np.testing.assert_array_equal(mask[0].numpy(), pixels)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
def test_polygons_are_filled_as_pycocotools_does(pixels):
    polygons = [[3.2, 4.1, 30.7, 6.0, 20.5, 30.2], [40, 10, 50, 10, 50, 20, 40, 20]]
    expected = theirs.decode(theirs.merge(theirs.frPyObjects(polygons, 37, 53)))
    mask = decode_masks([check_segmentation(polygons, 37, 53)], 37, 53)[0]
    np.testing.assert_array_equal(mask.numpy(), expected)
    assert expected.sum() > 300


def test_large_and_long_run_lengths_pass_the_check():
    wide = np.zeros((500, 3000), np.uint8)
    wide[100:400, 50:2900] = 1
    np.testing.assert_array_equal(decode_masks([check_segmentation(encode_mask(wide), 500, 3000)], 500, 3000)[0], wide)


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ("text", "neither polygons nor run lengths"),
        ([[1, 2, 3, 4]], "no polygon of at least three corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "finite"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ({"size": [4, 5], "counts": [20]}, "of size"),
        ({"size": [4, 4], "counts": [4, 1]}, "do not add up"),
        ({"size": [4, 4], "counts": [-4, 20]}, "do not add up"),
        ({"size": [4, 4], "counts": "\n"}, "no compressed run lengths"),
        ({"size": [4, 4], "counts": "Po"}, "break off"),
        ({"size": [4, 4], "counts": "ooooooooooo7"}, "do not add up"),
        ({"size": [4, 4], "counts": None}, "neither text nor whole numbers"),
    ],
)
def test_broken_masks_are_refused_in_words(segmentation, said):
    with pytest.raises(ValueError, match=said):
        check_segmentation(segmentation, 4, 4)
