"""Grey of any depth: what its levels mean stands in the file, or it is refused."""

import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from clarep.data.decode_image import decode_image
from clarep.data.labelled import UnreadableImage


def png(depth: int, colour_type: int, row: bytes, transparent: bytes) -> bytes:
    """A PNG of one row and four pixels with a tRNS chunk, made byte by byte."""
    header = struct.pack(">IIBBBBB", 4, 1, depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [*parts, (b"IEND", b"")]
    )


def tiff(row: bytes, width: int, bits: int, white_is_zero: bool = False, sample: int = 1) -> bytes:
    """A grey TIFF of one row, made byte by byte. sample: 1 unsigned, 2 signed, 3 float."""
    photometric = 0 if white_is_zero else 1
    fields = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1}
    fields |= {273: 8, 279: len(row), 339: sample}
    start = 8 + len(row)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, fields[tag]) for tag in sorted(fields))
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + row
        + struct.pack("<H", len(fields))
        + entries
        + struct.pack("<I", 0)
    )


def twelve_bits(*levels: int) -> bytes:
    """Pack pairs of levels in three bytes, as TIFF packs 12 bits."""
    pairs = zip(levels[::2], levels[1::2], strict=True)
    return b"".join((a << 12 | b).to_bytes(3, "big") for a, b in pairs)


@pytest.mark.parametrize(
    ("depth", "row", "value", "levels"),
    [
        (1, bytes([0b01010000]), 1, [0, -1, 0, -1]),
        (2, bytes([0b00011011]), 2, [0, 85, -1, 255]),
        (4, bytes([0x01, 0x2F]), 2, [0, 17, -1, 255]),
        (8, bytes([0, 1, 2, 255]), 2, [0, 1, -1, 255]),
        (16, struct.pack(">4H", 0, 1000, 1001, 65535), 1000, [0, -1, 4, 255]),
        (16, struct.pack(">4H", 0, 1000, 1001, 65535), 0, [-1, 4, 4, 255]),
    ],
)
def test_the_transparent_value_of_grey_shows_the_ground(
    depth: int, row: bytes, value: int, levels: list[int]
):
    encoded = png(depth, 0, row, struct.pack(">H", value))
    ground = [10, 20, 30]
    expected = [ground if level < 0 else [level] * 3 for level in levels]
    assert_array_equal(decode_image(encoded, "it", alpha_colour="#0a141e")[0], expected)


def test_sixteen_bit_colour_with_a_transparent_value_is_refused():
    row = struct.pack(">12H", *[1000, 2000, 3000] * 4)
    with pytest.raises(UnreadableImage, match=r"16-bit colour.*save it with 8 bits or alpha"):
        decode_image(png(16, 2, row, struct.pack(">3H", 1000, 2000, 3000)), "it")


LEVELS = (0, 257 * 10, 257 * 200, 65535)


@pytest.mark.parametrize(
    ("encoded", "levels"),
    [
        (tiff(struct.pack("<4H", *LEVELS), 4, 16), [0, 10, 200, 255]),
        (tiff(struct.pack("<4H", *LEVELS), 4, 16, white_is_zero=True), [255, 245, 55, 0]),
        (tiff(bytes([0, 10, 200, 255]), 4, 8, white_is_zero=True), [255, 245, 55, 0]),
        (tiff(bytes([0b01010000]), 4, 1, white_is_zero=True), [255, 0, 255, 0]),
        (tiff(twelve_bits(0, 160, 2048, 4095), 4, 12), [0, 10, 128, 255]),
    ],
)
def test_grey_tiffs_mean_what_they_say(encoded: bytes, levels: list[int]):
    assert_array_equal(decode_image(encoded, "it")[0], np.repeat(np.array(levels)[:, None], 3, 1))


@pytest.mark.parametrize(
    "encoded",
    [
        tiff(struct.pack("<4h", 0, 1, 200, 32767), 4, 16, sample=2),  # might be of [-2^15, 2^15)
        tiff(struct.pack("<4i", 0, 1, 200, 255), 4, 32, sample=2),  # or of [0, 255]
        tiff(struct.pack("<4I", 0, 1, 200, 65535), 4, 32),
        tiff(struct.pack("<4f", 0, 0.5, 1, 1), 4, 32, sample=3),
    ],
)
def test_levels_without_a_stated_range_are_refused_whatever_they_are(encoded: bytes):
    with pytest.raises(UnreadableImage, match=r"no stated range|no image of a format"):
        decode_image(encoded, "it")
