"""Views against a naive loop over images, and AugMix's operations against Pillow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.special import rel_entr, softmax

from clarep.distill.distill_config import DistillConfig
from clarep.distill.methods import augment as ops
from clarep.distill.methods.augment import jensen_shannon
from clarep.distill.trainer.views import check_views, cut_out, draw_views, to_student_range
from clarep.errors import UserError

CONFIG = DistillConfig(crop_padding=3, flip=True)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(0, 256, (40, 3, 8, 10), generator=seeded(), dtype=torch.uint8)


def all_crops(image, padding):
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    height, width = image.shape[1:]
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            yield (top, left), padded[:, top : top + height, left : left + width]


def test_every_view_is_a_crop_or_its_mirror_image_and_they_differ(images):
    views = draw_views(images, CONFIG, seeded(1)).numpy()
    drawn = set()
    for image, view in zip(images.numpy(), views, strict=True):
        found = [(at, False) for at, crop in all_crops(image, 3) if (crop == view).all()]
        found += [(at, True) for at, crop in all_crops(image, 3) if (crop[..., ::-1] == view).all()]
        assert len(found) == 1
        drawn.add(found[0])
    assert len(drawn) > 25  # of 98
    assert {flipped for _, flipped in drawn} == {True, False}


def test_views_are_a_function_of_the_generator(images):
    views = [draw_views(images, CONFIG, seeded(seed)) for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


def test_without_options_a_view_is_the_image(images):
    plain = replace(CONFIG, crop_padding=0, flip=False)
    assert torch.equal(draw_views(images, plain, seeded()), images)


def test_flip_alone_mirrors_about_half(images):
    views = draw_views(images, replace(CONFIG, crop_padding=0), seeded())
    mirrored = (views == images.flip(3)).flatten(1).all(1)
    assert ((views == images).flatten(1).all(1) ^ mirrored).all()
    assert 10 < int(mirrored.sum()) < 30


def test_cutout_is_a_grey_square_cut_at_the_borders(images):
    out = cut_out(images.clamp(max=127), 4, seeded())  # 127: no pixel was grey before
    areas = set()
    for image, cut in zip(images.clamp(max=127), out, strict=True):
        grey = (cut == 128).all(0)
        rows, columns = grey.any(1), grey.any(0)
        assert torch.equal(grey, rows[:, None] & columns[None, :])
        assert rows.sum() <= 4 and columns.sum() <= 4 and grey.any()
        assert torch.equal(cut[:, ~grey], image[:, ~grey])
        areas.add(int(grey.sum()))
    assert 16 in areas and len(areas) > 1


def test_student_range():
    mapped = to_student_range(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8))
    assert torch.allclose(mapped.flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("change", [{"crop_padding": 8}, {"cutout": 8}])
def test_images_too_small(change):
    with pytest.raises(UserError, match="is not below the image's side 8"):
        check_views(replace(CONFIG, **change), (3, 8, 10))


def pillow(image, operation, *arguments):
    """Apply one of Pillow's operations to a float image (C, H, W) in [0, 1]."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    out = np.asarray(operation(Image.fromarray(pixels), *arguments))
    return torch.from_numpy(out.copy()).permute(2, 0, 1).float() / 255


@pytest.fixture
def floats():
    """Smooth images, with values that do not fill the range and one channel of a single value."""
    ramp = torch.linspace(0.2, 0.7, 32)
    base = ramp[None, None, :, None] * ramp[None, None, None, :].sqrt()
    noise = 0.2 * torch.rand(4, 3, 32, 32, generator=seeded())
    images = ((base + noise) * 255).round() / 255
    images[0, 1] = 100 / 255
    return images


def test_equalise_is_pillows(floats):
    out = ops.equalise(floats, torch.ones(4))
    for image, equalised in zip(floats, out, strict=True):
        assert torch.allclose(equalised, pillow(image, ImageOps.equalize), atol=1e-6)


def test_auto_contrast_is_pillows_up_to_rounding(floats):
    out = ops.auto_contrast(floats, torch.ones(4))
    for image, stretched in zip(floats, out, strict=True):
        assert (stretched - pillow(image, ImageOps.autocontrast)).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(("level", "bits"), [(0.1, 4), (0.3, 3), (0.6, 2), (0.8, 1)])
def test_posterise_is_pillows(floats, level, bits):
    out = ops.posterise(floats, torch.full((4,), level))
    for image, coarse in zip(floats, out, strict=True):
        assert torch.allclose(coarse, pillow(image, ImageOps.posterize, bits), atol=1e-6)


def test_solarise_is_pillows(floats):
    out = ops.solarise(floats, torch.full((4,), 0.6))
    for image, solar in zip(floats, out, strict=True):
        assert torch.allclose(solar, pillow(image, ImageOps.solarize, 102), atol=1e-6)


@pytest.mark.parametrize(("which", "axis"), [(7, 3), (8, 2)])
def test_translation_by_whole_pixels(floats, which, axis):
    level = torch.full((4,), 4 * 3 / 32)  # a third of the side is the largest
    out = ops.apply_operations(floats, torch.full((4,), which), level)
    moved = torch.zeros_like(floats)
    size = floats.shape[axis] - 4
    moved.narrow(axis, 0, size).copy_(floats.narrow(axis, 4, size))
    assert torch.allclose(out, moved, atol=1e-4)


def test_rotation_is_scipys(floats):
    from scipy.ndimage import affine_transform

    out = ops.apply_operations(floats, torch.full((4,), 4), torch.full((4,), 1.0))  # 30 degrees
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    matrix = np.array([[c, s], [-s, c]])  # (row, column) of the output -> of the input
    centre = np.array([15.5, 15.5])
    for image, turned in zip(floats.numpy(), out.numpy(), strict=True):
        for channel, got in zip(image, turned, strict=True):
            wanted = affine_transform(channel, matrix, centre - matrix @ centre, order=1)
            assert np.abs(wanted - got)[8:24, 8:24].max() < 1e-4


@pytest.mark.parametrize("which", [5, 6])
def test_shear_leaves_the_middle_line(floats, which):
    x = torch.linspace(-1, 1, 33)[None, None, None, :].expand(2, 3, 33, 33)
    x = (x if which == 5 else x.transpose(2, 3)).contiguous()
    out = ops.apply_operations(x, torch.full((2,), which), torch.full((2,), 0.5))
    line = out[:, :, 16] if which == 5 else out[:, :, :, 16]
    want = x[:, :, 16] if which == 5 else x[:, :, :, 16]
    assert torch.allclose(line, want, atol=1e-5)
    assert not torch.allclose(out, x, atol=1e-2)


def test_each_image_gets_its_own_operation(floats):
    which = torch.tensor([0, 3, 7, 3])
    levels = torch.tensor([0.5, 0.6, 0.375, -0.6])
    out = ops.apply_operations(floats, which, levels)
    for i in range(4):
        alone = ops.apply_operations(floats[i : i + 1], which[i : i + 1], levels[i : i + 1])
        assert torch.equal(out[i : i + 1], alone)
    assert torch.equal(out[3], ops.solarise(floats[3:], torch.tensor([0.6]))[0])


def test_augmix_stays_in_range_and_follows_the_generator(floats):
    views = [ops.augmix(floats, 10.0, seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])
    assert all(((view >= -1e-6) & (view <= 1 + 1e-6)).all() for view in views)
    assert all((view - floats).abs().mean() > 1e-3 for view in views)


def test_jensen_shannon_is_scipys():
    logits = torch.randn(3, 6, 5, generator=seeded(), dtype=torch.float64)
    p = softmax(logits.numpy(), axis=2)
    wanted = rel_entr(p, p.mean(0)).sum(2).mean()
    assert float(jensen_shannon(logits)) == pytest.approx(wanted, rel=1e-10)
    assert float(jensen_shannon(logits[:1].expand(3, -1, -1))) == pytest.approx(0, abs=1e-12)
