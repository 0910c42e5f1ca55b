"""Every orientation in every format and carrier: header and pixels agree, and turns are right."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from clarep.data.decode_image import decode_image, upright_size

# Four flat quarters: they survive lossy formats, and tell all eight orientations apart.
STORED = np.zeros((32, 48, 3), np.uint8)
STORED[:16, :24], STORED[:16, 24:], STORED[16:, :24] = [250, 0, 0], [0, 250, 0], [0, 0, 250]
# What the EXIF standard says of each: where row 0 and column 0 of the stored pixels lie.
UPRIGHT = {
    1: STORED,
    2: STORED[:, ::-1],
    3: STORED[::-1, ::-1],
    4: STORED[::-1],
    5: STORED.transpose(1, 0, 2),
    6: np.rot90(STORED, -1),
    7: np.rot90(STORED, 2).transpose(1, 0, 2),
    8: np.rot90(STORED, 1),
}


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def save(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(STORED).save(stream, kind, **options)
    return stream.getvalue()


def png_with(kind: bytes, content: bytes, late: bool) -> bytes:
    """A PNG with one more chunk, before or behind its pixels."""
    plain = save("PNG")
    place = plain.index(b"IEND" if late else b"IDAT") - 4
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    chunk = struct.pack(">I", len(content)) + kind + content + checksum
    return plain[:place] + chunk + plain[place:]


def exif_profile(orientation: int) -> bytes:
    """ImageMagick's tEXt: EXIF bytes in hexadecimal."""
    data = exif(orientation).tobytes()
    return b"Raw profile type exif\0" + f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()


def itxt(orientation: int) -> bytes:
    return b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)


def png_text(orientation: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp(orientation).decode())
    return save("PNG", pnginfo=info)


WRITERS = {
    "jpeg exif": lambda o: save("JPEG", exif=exif(o), quality=95),
    "jpeg xmp": lambda o: save("JPEG", xmp=xmp(o), quality=95),
    "webp exif": lambda o: save("WEBP", exif=exif(o).tobytes(), lossless=True),
    "webp xmp": lambda o: save("WEBP", xmp=xmp(o), lossless=True),
    "tiff": lambda o: save("TIFF", tiffinfo={274: o}),
    "tiff deflate": lambda o: save("TIFF", tiffinfo={274: o}, compression="tiff_deflate"),
    "tiff xmp": lambda o: save("TIFF", tiffinfo={700: xmp(o)}),
    "png eXIf": lambda o: save("PNG", exif=exif(o)),
    "png late eXIf": lambda o: png_with(b"eXIf", exif(o).tobytes()[6:], late=True),
    "png XMP": png_text,
    "png late XMP": lambda o: png_with(b"iTXt", itxt(o), late=True),
    "png raw profile": lambda o: png_with(b"tEXt", exif_profile(o), late=False),
    "png late raw profile": lambda o: png_with(b"tEXt", exif_profile(o), late=True),
    "mpo": lambda o: save("MPO", exif=exif(o), quality=95),
    "gif": lambda o: save("GIF"),
}
if ".avif" in Image.registered_extensions():  # Pillow 11.3
    WRITERS["avif"] = lambda o: save("AVIF", exif=exif(o), quality=100)
CARRIERS = [case for case in itertools.product(WRITERS, UPRIGHT)]


@pytest.mark.parametrize(("carrier", "orientation"), CARRIERS)
def test_header_and_pixels_are_upright(carrier: str, orientation: int):
    encoded = WRITERS[carrier](orientation)
    pixels = decode_image(encoded, "it")
    assert upright_size(encoded, "it") == (pixels.shape[1], pixels.shape[0])
    wanted = UPRIGHT[1 if carrier == "gif" else orientation]
    assert pixels.shape == wanted.shape
    difference = np.abs(pixels.astype(int) - wanted)
    assert np.median(difference) <= 4 and (difference > 60).mean() < 0.05  # lossy at the edges


@pytest.mark.parametrize("orientation", [0, 9, 255])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_an_orientation_that_is_none_turns_nothing(kind: str, orientation: int):
    given = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif(orientation)}
    encoded = save(kind, **given)
    assert upright_size(encoded, "it") == (48, 32)
    assert decode_image(encoded, "it").shape == STORED.shape
