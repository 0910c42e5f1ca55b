"""From an encoded image, whatever its mode and size, to uint8 RGB."""

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

from clarep.data.labelled import UnreadableImage
from clarep.errors import UserError

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def square_resize(image: Image.Image, image_size: int) -> Image.Image:
    """Resize by the one rule of clarep: centre crop, then `image_size` a side.

    The largest centred square is cut (an odd pixel goes to the right or below). It is shrunk
    with Pillow's BOX filter, where each source pixel counts by the area it covers, or
    enlarged with BICUBIC. A square that has the size already is returned as it is.
    """
    side = min(image.size)
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    if side == image_size:
        return square
    shrinks = side > image_size
    rule = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return square.resize((image_size, image_size), rule)


def to_rgb(image: Image.Image, alpha_colour: str = "white") -> Image.Image:
    """Convert any mode to RGB; what is transparent is composed on `alpha_colour`.

    16-bit grey is divided by 257. Raises UserError for a colour that Pillow does not know, and
    ValueError for float or 32-bit grey, whose range the file does not tell.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*colour(alpha_colour), 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _grey_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("float pixels have no stated range; save it with 8 or 16 bits")
    grey = np.asarray(image).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("32-bit pixels have no stated range; save it with 8 or 16 bits")
    return np.rint(grey / 257).astype(np.uint8)


def colour(name: str) -> tuple[int, int, int]:
    """Return red, green and blue in [0, 255] of a colour's name or #rrggbb.

    Raises UserError if Pillow does not know it.
    """
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise UserError(
            f"'{name}' is no colour: give a name such as white or black, or #rrggbb"
        ) from error
    return red, green, blue


def decode_image(
    encoded: Path | bytes,
    source: str,
    image_size: int | None = None,
    alpha_colour: str = "white",
) -> NDArray[np.uint8]:
    """Decode a file or its bytes to upright RGB, uint8 (H, W, 3).

    Args:
        encoded: a file or its bytes, in any format that Pillow reads; of several frames the
            first counts.
        source: what an error calls it.
        image_size: side that `square_resize` brings it to; None keeps its size.
        alpha_colour: what transparency is composed on.

    Raises:
        UnreadableImage: if it is empty, truncated, no image, or a decompression bomb.
    """
    with _opened(encoded, source) as image:
        image.load()  # decodes all of it: a truncated file fails here
        rgb = to_rgb(ImageOps.exif_transpose(image), alpha_colour)
        return np.array(rgb if image_size is None else square_resize(rgb, image_size))


def upright_size(encoded: Path | bytes, source: str) -> tuple[int, int]:
    """Return width and height as its header tells, after the EXIF orientation.

    Raises UnreadableImage like `decode_image`.
    """
    with _opened(encoded, source) as image:
        # Pillow decodes a whole PNG in search of EXIF data that is not in its header.
        has_exif = image.format != "PNG" or "exif" in image.info
        orientation = image.getexif().get(ExifTags.Base.Orientation) if has_exif else None
        sideways = orientation in _SIDEWAYS
        return (image.height, image.width) if sideways else (image.width, image.height)


def require_one_size(name: str, encoded: Iterable[tuple[Path | bytes, str]]) -> None:
    """Raise UserError unless all images (each with its source) have one size.

    Unreadable images are passed over: they are named when they are read.
    """
    seen: tuple[tuple[int, int], str] | None = None
    for image, source in encoded:
        try:
            size = upright_size(image, source)
        except UnreadableImage:
            continue
        if seen is None:
            seen = size, source
        elif size != seen[0]:
            (width, height), first = seen
            raise UserError(
                f"{name} holds images of several sizes ({first} is {width}x{height}, {source} "
                f"is {size[0]}x{size[1]}): give --image-size to crop and resize them all"
            )


@contextmanager
def _opened(encoded: Path | bytes, source: str) -> Iterator[Image.Image]:
    """Open an image; whatever Pillow raises within the block becomes UnreadableImage."""
    stream = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream) as image:
                yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        raise UnreadableImage(source, _reason(encoded, error)) from error


def _reason(encoded: Path | bytes, error: Exception) -> str:
    if isinstance(encoded, bytes):
        is_empty = not encoded
    else:
        is_empty = encoded.is_file() and encoded.stat().st_size == 0
    if is_empty:
        return "it is empty (zero bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a format that Pillow reads"
    if isinstance(error, _BOMBS):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
