"""One image file in, one 8-bit RGB image out, or an `ImageError` that says what is wrong with this file."""

from __future__ import annotations

import contextlib
import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gcnet.errors import DataWarning, GcnetError, ImageError

# Formats whose decoders are safe on files of unknown origin; EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".avif"}
    | {".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# Pixels by the header, checked before anything is decoded: 12,000 x 15,000. Pillow itself refuses from 178,956,971 on.
MAX_PIXELS = 178_956_970
# Bytes of memory that reading may take: this, and ten times the size of the file. A picture of one colour packs a
# thousandfold, a photograph hardly tenfold.
MEMORY = 300_000_000

_HINTS = (  # (offset, bytes at that offset, what the file is)
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the image; run `git lfs pull`"),
    (4, b"ftyphei", "a HEIC photograph; convert it to JPEG or PNG"),
    (4, b"ftypmif1", "a HEIF photograph; convert it to JPEG or PNG"),
    (0, b"%PDF", "a PDF document; convert it to JPEG or PNG"),
    (0, b"<!DOCTYPE", "a web page; the download of the image failed"),
    (0, b"<html", "a web page; the download of the image failed"),
    (0, b"<svg", "an SVG drawing; convert it to PNG"),
    (0, b"<?xml", "an XML or SVG file; convert it to PNG"),
)


def read_image(path: str | Path, *, upright: bool = True) -> Image.Image:
    """Read an image file as 8-bit RGB, upright, on white where it is transparent; of an animation the first frame.

    16-bit values are scaled (0..65535 -> 0..255, rounded), floats are taken as 0..1, CMYK, palette, grey and 1-bit
    images are converted, the EXIF orientation is applied. Colour profiles are not. A 16-bit file in which no value
    exceeds 4095 holds 12 bits, as microscopes and X-ray write them (255: 8 bits); it is scaled by these.

    Args:
        path: a file in one of `FORMATS`, of at most `MAX_PIXELS` pixels by its header, that is read in at most `MEMORY`
            bytes and ten times its size.
        upright: apply the EXIF orientation; False gives the pixels as they are stored.

    Raises:
        ImageError: the file is missing, unreadable, empty, truncated, broken, too large or not an image.

    Warns:
        DataWarning: 12 or 8 bits in a file of 16.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(path, "is a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError(path, "is not a regular file")
        if status.st_size == 0:
            raise ImageError(path, "is empty (0 bytes)")
        with path.open("rb") as file, warnings.catch_warnings():
            # Pillow warns where it goes on (odd EXIF, sizes above half the limit); where it stops, it raises.
            warnings.simplefilter("ignore")
            image, bits = _decode(file, MEMORY + 10 * status.st_size, upright)
        if bits < 16:
            warnings.warn(
                f"16-bit files in which no value exceeds {2**bits - 1} are taken as {bits}-bit: white is {2**bits - 1}",
                DataWarning,
                stacklevel=2,
            )
        return image
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(path, "does not exist") from error
    except PermissionError as error:
        raise ImageError(path, "permission denied") from error
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"is too large: the limit is {MAX_PIXELS:,} pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise ImageError(path, _foreign(path)) from error
    except Exception as error:  # decoders raise nearly anything on broken bytes: OSError, SyntaxError, struct.error ...
        raise ImageError(path, f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _decode(file: IO[bytes], memory: int, upright: bool) -> tuple[Image.Image, int]:
    """The picture as RGB, and the bits that its values use (16 unless a 16-bit file holds fewer)."""
    Image.init()
    image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height}")
    needed = pixels * _bytes_per_pixel(image)
    if needed > memory:
        raise Image.DecompressionBombError(
            f"{image.width} x {image.height} in so small a file would take {needed / 1e6:,.0f} MB of memory to read"
        )
    image.load()
    if upright:
        with contextlib.suppress(Exception):  # broken EXIF: the pixels are sound, only the note on how they lie is not
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        bits = _bits(values)
        return _from_16_bit(values, bits).convert("RGB"), bits
    return to_rgb(image), 16


def _bytes_per_pixel(image: Image.Image) -> int:
    """At the most, while it is read: the picture as it is stored, and what it is converted to."""
    if image.mode in ("RGB", "L", "1", "P", "YCbCr") and "transparency" not in image.info:
        return 6
    return 15 if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info else 12


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to 8-bit RGB: values scaled instead of clipped, transparency on white.

    Example:
        >>> from PIL import Image
        >>> to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), 16).convert("RGB")
    if image.mode == "F":
        return _from_float(image).convert("RGB")
    if image.mode == "La":  # premultiplied grey, which Pillow converts to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _bits(values: np.ndarray) -> int:
    highest = int(values.max())
    return next((bits for bits in (8, 12) if 0 < highest < 2**bits), 16)


def _from_16_bit(values: np.ndarray, bits: int) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        low, high = int(values.min()), int(values.max())
        raise GcnetError(f"32-bit values from {low} to {high} have no agreed white; store 8 or 16 bits per channel")
    white = 2**bits - 1
    return Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))


def _from_float(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):  # also true for NaN
        raise GcnetError(f"float values from {values.min():g} to {values.max():g}; they must lie in 0..1")
    return Image.fromarray(np.round(values * 255).astype(np.uint8))


def _foreign(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    for offset, mark, meaning in _HINTS:
        if head[offset:].startswith(mark):
            return f"is {meaning}"
    return f"is not an image, or its first bytes are broken (readable: {', '.join(FORMATS)})"
