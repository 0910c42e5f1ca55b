"""Any mode, size and orientation to RGB; damaged files named."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageFile

from clarep.data.decode_image import (
    decode_image,
    require_one_size,
    square_resize,
    to_rgb,
    upright_size,
)
from clarep.data.labelled import UnreadableImage
from clarep.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def decode(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return decode_image(encoded(image, kind, **options), "it", alpha_colour="white")


def test_rgb_is_kept():
    assert_array_equal(decode(Image.fromarray(NOISE)), NOISE)


def test_grey_becomes_rgb():
    grey = NOISE[:, :, 0]
    assert_array_equal(decode(Image.fromarray(grey)), grey[:, :, None].repeat(3, axis=2))


def test_black_and_white_becomes_rgb():
    image = Image.fromarray(NOISE[:, :, 0] > 127)
    assert set(np.unique(decode(image))) == {0, 255}


def test_sixteen_bit_grey_is_divided_by_257():
    grey = np.array([[0, 257, 65535], [128, 129, 40000]], np.uint16)
    expected = np.array([[0, 1, 255], [0, 1, 156]])
    assert_array_equal(decode(Image.fromarray(grey))[:, :, 0], expected)


def test_thirty_two_bit_and_float_have_no_range():
    with pytest.raises(UnreadableImage, match="32-bit"):
        decode(Image.fromarray(np.array([[70000]], np.int32)), "TIFF")
    with pytest.raises(UnreadableImage, match="float"):
        decode(Image.fromarray(np.array([[0.5]], np.float32)), "TIFF")


def test_palette_becomes_its_colours():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    assert_array_equal(decode(palette), [[[255, 0, 0], [0, 0, 255]]])


def test_a_transparent_palette_entry_shows_the_ground():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    assert_array_equal(decode(palette, transparency=0), [[[255, 255, 255], [0, 0, 255]]])


def test_cmyk_becomes_rgb():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode(cmyk, "JPEG", quality=100)
    assert red.shape == (8, 8, 3)
    assert (red[:, :, 0] > 245).all()
    assert (red[:, :, 1:] < 10).all()


@pytest.mark.parametrize(("ground", "expected"), [("white", 255), ("black", 0), ("#0a0a0a", 10)])
def test_alpha_is_composed_on_the_stated_colour(ground: str, expected: int):
    image = Image.new("RGBA", (1, 1), (200, 100, 0, 0))
    assert_array_equal(np.array(to_rgb(image, ground)), [[[expected] * 3]])


def test_half_alpha_is_the_mean():
    image = Image.new("RGBA", (1, 1), (200, 100, 0, 128))
    expected = [[[227.4, 177.2, 127.0]]]  # 255 + 128/255 (colour - 255)
    np.testing.assert_allclose(np.array(to_rgb(image, "white")), expected, atol=1)


def test_grey_with_alpha_is_composed_too():
    assert_array_equal(np.array(to_rgb(Image.new("LA", (1, 1), (0, 0)))), [[[255] * 3]])


def test_an_unknown_colour_is_a_users_mistake():
    with pytest.raises(UserError, match="'whit' is no colour"):
        to_rgb(Image.new("LA", (1, 1)), "whit")


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter to be upright
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.fromarray(NOISE), kind, exif=exif)
        assert upright_size(data, "it") == (12, 16)
        assert decode_image(data, "it").shape == (16, 12, 3)
    upright = decode(Image.fromarray(NOISE), exif=exif)
    assert_array_equal(upright, np.rot90(NOISE, -1))


def test_resize_cuts_the_centre():
    image = Image.fromarray(NOISE)
    assert_array_equal(np.array(square_resize(image, 12)), NOISE[:, 2:14])
    tall = Image.fromarray(NOISE.transpose(1, 0, 2))
    assert_array_equal(np.array(square_resize(tall, 12)), NOISE.transpose(1, 0, 2)[2:14])


def test_shrinking_averages_areas():
    small = np.array(square_resize(Image.fromarray(NOISE), 4), np.float64)
    means = NOISE[:, 2:14].reshape(4, 3, 4, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, means, atol=1)


def test_enlarging_is_bicubic():
    square = Image.fromarray(NOISE[:, 2:14])
    large = square.resize((30, 30), Image.Resampling.BICUBIC)
    assert_array_equal(np.array(square_resize(Image.fromarray(NOISE), 30)), np.array(large))


def test_the_first_of_several_frames_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert decode_image(data, "it")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str):
    path = tmp_path / f"cut.{kind.lower()}"
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(large), kind)
    path.write_bytes(whole)
    assert decode_image(path, str(path)).shape == (64, 64, 3)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImage, match="cut") as caught:
        decode_image(path, str(path))
    assert caught.value.source == str(path)
    assert "\n" not in str(caught.value)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "zero bytes"), (b"this is text", "no image")]
)
def test_an_empty_file_and_text_are_named(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "it.png"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(UnreadableImage, match=reason):
            decode_image(source, "it.png")
        with pytest.raises(UnreadableImage, match=reason):
            upright_size(source, "it.png")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UnreadableImage, match="No such file"):
        decode_image(tmp_path / "gone.png", "gone.png")


@pytest.mark.parametrize("factor", [1.5, 4])  # Pillow warns, then raises
def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, factor: float):
    data = encoded(Image.fromarray(NOISE))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(NOISE.size / 3 / factor))
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        decode_image(data, "it")


def test_one_size_is_accepted_and_another_is_named():
    small, wide = encoded(Image.new("L", (4, 4))), encoded(Image.new("L", (6, 4)))
    require_one_size("set", [(small, "a"), (b"", "unreadable"), (small, "b")])
    with pytest.raises(UserError, match=r"a is 4x4, c is 6x4\): give `image_size`"):
        require_one_size("set", [(small, "a"), (small, "b"), (wide, "c")])
