"""From an encoded image, whatever its mode and size, to uint8 RGB."""

import io
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageFile, UnidentifiedImageError

from clarep.data.labelled import UnreadableImage
from clarep.engine.artefacts import open_regular
from clarep.errors import UserError

_TURNS = {  # orientation -> what makes the image upright; from 5 on width and height swap
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RUNS_PROGRAMS = frozenset(("EPS",))  # Ghostscript, on whatever starts with %!PS
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read: all of its own but those that run a program."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _RUNS_PROGRAMS))


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

    16-bit grey is divided by 257, 12-bit grey of a TIFF by 4095 / 255. Raises UserError for a
    colour that Pillow does not know, and ValueError for float, signed or 32-bit grey, whose
    range the file does not tell.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_to_rgb(image, alpha_colour)
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*colour(alpha_colour), 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image, alpha_colour: str) -> Image.Image:
    grey = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    bits = int(tags.get(ExifTags.Base.BitsPerSample, (16,))[0])
    is_unsigned = tags.get(ExifTags.Base.SampleFormat, (1,))[0] == 1
    top = 2**bits - 1
    if grey.dtype.kind == "f":
        raise ValueError("float pixels have no stated range; save it with 8 or 16 bits")
    if bits > 16 or not is_unsigned or grey.min() < 0 or grey.max() > top:
        raise ValueError("signed or 32-bit pixels have no stated range; save it with 8 or 16 bits")
    is_inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # Pillow does 8 bits
    levels = np.rint((top - grey.astype(np.float64) if is_inverted else grey) * (255 / top))
    rgb = np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)
    rgb[grey == image.info.get("transparency", -1)] = colour(alpha_colour)
    return Image.fromarray(rgb)


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
    encoded: Path | bytes, source: str, image_size: int | None = None, alpha_colour: str = "white"
) -> NDArray[np.uint8]:
    """Decode a file or its bytes to upright RGB, uint8 (H, W, 3).

    Args:
        encoded: a file or its bytes, in any of `image_formats`; of several frames the first
            counts.
        source: what an error calls it.
        image_size: side that `square_resize` brings it to; None keeps its size.
        alpha_colour: what transparency is composed on.

    Raises:
        UnreadableImage: if it is empty, truncated, no image, or a decompression bomb.
    """
    with _opened(encoded, source) as image:
        _mend_transparency(image)
        image.load()  # decodes all of it: a truncated file fails here
        rgb = to_rgb(image, alpha_colour)
        if (turn := _TURNS.get(_orientation(image))) is not None:
            rgb = rgb.transpose(turn)
        return np.array(rgb if image_size is None else square_resize(rgb, image_size))


def upright_size(encoded: Path | bytes, source: str) -> tuple[int, int]:
    """Return width and height of what `decode_image` gives.

    JPEG, WebP and most PNG files are not decoded for it: their headers tell.
    Raises UnreadableImage like `decode_image`.
    """
    with _opened(encoded, source) as image:
        if image.format not in ("JPEG", "WEBP", "PNG") or _has_late_chunks(image):
            image.load()
        return image.size[::-1] if _orientation(image) >= 5 else image.size


def _orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, that an image's EXIF or XMP data leave to be applied.

    Pillow itself turns a TIFF when it loads it. Its own getexif of PNG decodes the image.
    """
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return int(found) if found in _TURNS else 1


def _has_late_chunks(image: ImageFile.ImageFile) -> bool:
    """Say whether a PNG has chunks behind its pixels, where its orientation may stand."""
    stream = image.fp
    if image.format != "PNG" or stream is None:
        return False
    place, kinds = stream.tell(), [b""]
    stream.seek(8)
    while kinds[-1] != b"IEND" and len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        kinds.append(kind)
        stream.seek(length + 4, 1)  # a checksum follows
    stream.seek(place)
    return kinds[-2:] != [b"IDAT", b"IEND"]


def _mend_transparency(image: ImageFile.ImageFile) -> None:
    """Scale a PNG's transparent value as Pillow scales its pixels, which it forgets.

    Raises ValueError for 16-bit colour: Pillow keeps 8 of the bits that are to be compared.
    """
    value = image.info.get("transparency")
    raw_mode = str(image.tile[0][3]) if image.tile and image.format == "PNG" else ""
    if isinstance(value, tuple) and raw_mode == "RGB;16B":
        raise ValueError("16-bit colour with one transparent colour; save it with 8 bits or alpha")
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(raw_mode)
    if isinstance(value, int) and scale:
        image.info["transparency"] = min(value * scale, 255)  # newer Pillow scales one bit itself


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
                f"is {size[0]}x{size[1]}): give `image_size` to crop and resize them all"
            )


@contextmanager
def _opened(encoded: Path | bytes, source: str) -> Iterator[ImageFile.ImageFile]:
    """Open an image; whatever Pillow raises within the block becomes UnreadableImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _stream(encoded) as stream, Image.open(stream, formats=image_formats()) as image:
                yield image
    except UserError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes
        raise UnreadableImage(source, _reason(encoded, error)) from error


def _stream(encoded: Path | bytes) -> io.BytesIO | io.BufferedReader:
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else open_regular(encoded)


def _reason(encoded: Path | bytes, error: Exception) -> str:
    if not encoded or (
        isinstance(encoded, Path) and encoded.is_file() and not encoded.stat().st_size
    ):
        return "it is empty (zero bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a format that Pillow reads"
    if isinstance(error, _BOMBS):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
