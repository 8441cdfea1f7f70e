"""read_image: every kind of image file, good or bad, is an upright 8-bit RGB image or an ImageError."""

import contextlib
import io
import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gcnet.data.images import FORMATS, MAX_PIXELS, read_image, to_rgb
from gcnet.errors import ImageError


def gradient(height=24, width=32):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 10, columns * 7, (rows + columns) * 4], axis=-1).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, rows=b"", *, depth=8):
    """An RGB PNG by hand; without rows it claims a size and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def written(folder, data, name="image.bin"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP"])
def test_an_rgb_file_comes_back_as_it_was(tmp_path, kind):
    image = Image.fromarray(gradient())
    got = read_image(written(tmp_path, encoded(image, kind)))
    assert (got.mode, got.size) == ("RGB", (32, 24))
    tolerance = {"JPEG": 12, "WEBP": 16, "GIF": 20}.get(kind, 0)
    assert np.abs(np.asarray(got).astype(int) - gradient()).mean() <= tolerance


def test_a_real_photograph_is_read(shared):
    path = sorted((shared / "data/clothing_small/test/t-shirt").iterdir())[0]
    got = read_image(str(path))
    assert got.mode == "RGB"
    assert min(got.size) == 128
    assert np.asarray(got).std() > 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_instead_of_clipped(tmp_path, kind):
    values = np.array([[0, 128, 129, 257, 12_345, 65_535]], dtype=np.uint16)
    got = np.asarray(read_image(written(tmp_path, encoded(Image.fromarray(values), kind))))
    assert got[0, :, 0].tolist() == [0, 0, 1, 1, 48, 255]
    assert (got == got[..., :1]).all()


def test_16_bit_colour_is_scaled(tmp_path):
    pixels = b"\0" + np.array([[65_535, 32_896, 0]], dtype=">u2").tobytes()
    got = read_image(written(tmp_path, png(1, 1, pixels, depth=16)))
    assert got.getpixel((0, 0)) == (255, 128, 0)


def test_floats_are_taken_as_zero_to_one(tmp_path):
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    got = read_image(written(tmp_path, encoded(Image.fromarray(values), "TIFF")))
    assert np.asarray(got)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 70_000]], dtype=np.int32), "32-bit values from 0 to 70000"),
        (np.array([[0, 2.5]], dtype=np.float32), r"float values from 0 to 2\.5; they must lie in 0\.\.1"),
        (np.array([[0, np.nan]], dtype=np.float32), "float values from nan to nan"),
    ],
)
def test_values_without_an_agreed_white_are_refused(tmp_path, values, message):
    path = written(tmp_path, encoded(Image.fromarray(values), "TIFF"))
    with pytest.raises(ImageError, match=message):
        read_image(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(tmp_path, mode):
    image = Image.new(mode, (2, 1), (0, 0, 0, 255) if mode == "RGBA" else (0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    got = read_image(written(tmp_path, encoded(image, "PNG")))
    assert [got.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_half_transparent_black_is_mid_grey(tmp_path):
    got = read_image(written(tmp_path, encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG")))
    assert got.getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_palette_keeps_its_colours_and_its_transparent_entry_is_white(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 30, 40, 0, 0, 255])
    image.putpixel((1, 0), 1)
    got = read_image(written(tmp_path, encoded(image, "PNG", transparency=transparency)))
    assert [got.getpixel((x, 0)) for x in (0, 1)] == [(200, 30, 40), (255, 255, 255)]


def test_grey_with_one_transparent_value_is_white_there(tmp_path):
    image = Image.fromarray(np.array([[7, 90]], dtype=np.uint8))
    got = read_image(written(tmp_path, encoded(image, "PNG", transparency=7)))
    assert [got.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (90, 90, 90)]


def test_one_bit_images_are_black_and_white(tmp_path):
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    got = read_image(written(tmp_path, encoded(image, "PNG")))
    assert [got.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_red_is_red(tmp_path, kind):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = read_image(written(tmp_path, encoded(image, kind))).getpixel((8, 8))
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(gradient())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> the transposition that makes the stored image
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    got = read_image(written(tmp_path, encoded(stored, "PNG", exif=exif)))
    np.testing.assert_array_equal(np.asarray(got), gradient())
    assert got.getexif().get(0x0112) in (None, 1)


def test_broken_exif_does_not_cost_the_image(tmp_path):
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert read_image(written(tmp_path, data)).size == (32, 24)


def test_a_1x1_image_is_an_image(tmp_path):
    got = read_image(written(tmp_path, encoded(Image.new("L", (1, 1), 9), "PNG")))
    assert (got.size, got.getpixel((0, 0))) == ((1, 1), (9, 9, 9))


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(written(tmp_path, data)).getpixel((0, 0)) == (255, 0, 0)


def test_a_huge_image_is_refused_by_its_header_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("decoded"))
    path = written(tmp_path, png(20_000, 20_000))
    with pytest.raises(ImageError, match=r"is too large: the limit is 178,956,970 pixels .*400000000"):
        read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some programs do
    with pytest.raises(ImageError, match=r"is too large: the limit is 178,956,970 pixels \(20000 x 20000\)"):
        read_image(path)


def test_a_size_where_pillow_only_warns_reads_on_silently(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow warns above, and refuses above twice this
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(written(tmp_path, encoded(Image.fromarray(gradient()), "PNG"))).size == (32, 24)
    assert MAX_PIXELS < 2**28


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_an_error(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    path = written(tmp_path, data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"cannot be decoded|its first bytes are broken"):
        read_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, world", "is not an image, or its first bytes are broken"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 40, "cannot be decoded|first bytes are broken"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC photograph"),
        (b"<html><body>404</body></html>", "web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    ],
)
def test_a_file_that_is_no_image_says_why(tmp_path, data, message):
    path = written(tmp_path, data, "broken.jpg")
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert caught.value.path == path
    assert str(caught.value).startswith(str(path))


def test_missing_files_folders_and_pipes_are_errors(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is not a regular file"):
        read_image(tmp_path / "pipe.jpg")


def test_an_unreadable_file_is_an_error(tmp_path, monkeypatch):
    path = written(tmp_path, b"data")

    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(path)


def test_an_image_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "is empty")))
    assert (error.path, error.reason, str(error)) == (Path("a.jpg"), "is empty", "a.jpg: is empty")


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "LA", "PA", "RGBX", "RGBa", "La", "I", "I;16"]
ARRAYS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7), st.just(3)))


@settings(max_examples=50, deadline=None)
@given(ARRAYS, st.sampled_from(MODES))
def test_every_mode_becomes_rgb_of_the_same_size(array, mode):
    image = Image.fromarray(array)
    if mode == "I;16":
        image = image.convert("I").convert(mode)
    else:
        image = {"PA": image.convert("P"), "La": image.convert("LA"), "RGBa": image.convert("RGBA")}.get(
            mode, image
        ).convert(mode)
    assert image.mode == mode
    got = to_rgb(image)
    assert (got.mode, got.size) == ("RGB", image.size)
    if mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        np.testing.assert_array_equal(np.asarray(got), array)
    if mode in ("L", "LA", "La"):
        np.testing.assert_array_equal(np.asarray(got)[..., 0], np.asarray(Image.fromarray(array).convert("L")))


SEEDS = {kind: encoded(Image.fromarray(gradient()), kind) for kind in FORMATS if kind not in ("MPO", "AVIF")}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_give_an_image_or_an_image_error_and_nothing_else(tmp_path_factory, kind, changes):
    data = bytearray(SEEDS[kind])
    for place, value in changes:
        data[place % len(data)] = value
    path = written(tmp_path_factory.getbasetemp(), bytes(data), "damaged.bin")
    with contextlib.suppress(ImageError):
        assert read_image(path).mode == "RGB"
