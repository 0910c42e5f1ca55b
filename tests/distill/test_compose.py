"""Backgrounds are exchanged as a loop would, before views, among training images alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.distill.distill_config import settled
from clarep.distill.methods import METHODS, Ingredients
from clarep.distill.methods.compose import filled
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.train_images import TrainImages
from clarep.distill.trainer.views import draw_lines, draw_views, take_lines
from clarep.errors import UserError
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student

COMPOSED = ["compose", "compose-centre", "compose-true", "evidence-compose", "adv-compose"]


@pytest.fixture(scope="module")
def moving(audit, masked):
    """An audit whose masks differ from image to image."""
    return replace(audit, masks=masked.masks(np.arange(120)))


@pytest.fixture
def make(masked, moving, quick, tmp_path):
    """Make a method on the images 10 to 109."""

    def of(name, audit=moving, memory_mb=100.0, data=masked, **options):
        config = replace(quick, **options)
        kind, given_options = settled(name, config)
        images = TrainImages.of(data, np.arange(10, 110), memory_mb, 0)
        cpu = torch.device("cpu")
        given = Ingredients(config, given_options, images, tmp_path, cpu, audit=audit)
        return kind(build_student(StudentInfo("resnet8", data.class_names, (3, 16, 16))), given)

    return of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(image, mask):
    """Fill what is masked by the mean of what is not, in the 5 x 5 around, the border repeated."""
    out = image.clone()
    for y, x in torch.nonzero(mask).tolist():
        rows = [min(max(y + d, 0), 15) for d in range(-2, 3)]
        columns = [min(max(x + d, 0), 15) for d in range(-2, 3)]
        around = [image[:, r, c].float() for r in rows for c in columns if not mask[r, c]]
        if around:
            out[:, y, x] = torch.stack(around).mean(0).round().to(torch.uint8)
        else:
            out[:, y, x] = 0
    return out


def test_what_is_filled_is_the_mean_of_what_is_around(data, masked):
    images, masks = data.images(range(6)), masked.masks(np.arange(6))
    found = filled(images, masks)
    assert torch.equal(
        found[~masks[:, None].expand_as(found)], images[~masks[:, None].expand_as(images)]
    )
    for i in range(6):
        wanted = by_hand(images[i], masks[i])
        near = wanted.float() > 0
        assert near.float().mean() > 0.9
        assert (found[i].float() - wanted.float())[
            near
        ].abs().max() <= 1  # .5 is rounded either way


def test_deep_inside_it_is_filled_from_farther():
    image = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 3:61, 3:61] = True
    image[:, :, 3:61, 3:61] = 7
    assert (filled(image, mask) == 200).all()


@pytest.mark.parametrize("memory_mb", [100.0, 0.0])
@pytest.mark.parametrize("name", ["compose", "evidence-compose", "adv-compose"])
def test_composed_as_by_a_loop(make, masked, moving, name, memory_mb):
    method = make(name, memory_mb=memory_mb, compose_share=0.6)
    positions = np.arange(7, 67)
    images = method.images.images(positions)
    found = method.prepare(images, positions, seeded())
    generator = seeded()
    replaced = torch.rand(60, generator=generator) < 0.6
    donors = torch.randint(100, (60,), generator=generator)
    assert 25 < replaced.sum() < 47 and len(donors.unique()) > 35
    for i, position in enumerate(positions):
        wanted = images[i]
        if replaced[i]:
            j = 10 + int(donors[i])
            background = filled(masked.images([j]), moving.masks[j : j + 1])[0]
            wanted = torch.where(moving.masks[10 + position], images[i], background)
        assert torch.equal(found[i], wanted)
    again, other = (method.prepare(images, positions, seeded(seed)) for seed in (0, 1))
    assert torch.equal(again, found) and not torch.equal(other, found)


@pytest.mark.parametrize("name", COMPOSED)
def test_none_is_replaced_with_a_share_of_0_and_each_with_1(make, name):
    positions = np.arange(40)
    for share, least, most in ((0.0, 0, 0), (1.0, 38, 40)):  # some may be their own donor
        method = make(name, compose_share=share)
        images = method.images.images(positions)
        found = method.prepare(images, positions, seeded())
        assert least <= int((found != images).flatten(1).any(1).sum()) <= most


def test_views_move_object_and_background_alike(make, quick, moving):
    """Composed, then cropped and mirrored: the parts, cropped and mirrored, composed."""
    method, positions = make("compose", compose_share=1.0), np.arange(30)
    images = method.images.images(positions)
    composed = method.prepare(images, positions, seeded())
    drawn = (
        torch.rand(30, generator=(generator := seeded())),
        torch.randint(100, (30,), generator=generator),
    )
    backgrounds = filled(method.images.images(drawn[1].numpy()), moving.masks[10 + drawn[1]])
    lines = draw_lines(images, quick, seeded(5))
    views = draw_views(composed, replace(quick, cutout=0), seeded(5))
    masks = take_lines(moving.masks[10:40][:, None], *lines)
    parts = take_lines(images, *lines), take_lines(backgrounds, *lines)
    assert torch.equal(views, torch.where(masks, *parts))
    assert not torch.equal(masks, moving.masks[10:40][:, None])


class Watched(METHODS["compose"]):
    """Keeps what it is shown."""

    name = "watched"

    def terms(self, batch):
        self.seen = [*getattr(self, "seen", []), batch.images]
        return super().terms(batch)


def test_no_image_to_validate_on_is_a_donor(masked, moving, quick, tmp_path):
    """Of images whose own grey is their number, those that are held out are never seen."""
    pixels = np.arange(120, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2)
    shown = replace(masked, read=pixels.repeat(3, 3).__getitem__)
    config = {"data_sha256": shown.sha256(np.arange(120)), "audit": {}}
    audit = replace(moving, manifest=moving.manifest | {"config": config})
    options = METHODS["compose"].Config(compose_share=1.0)
    training = replace(quick, cutout=0)
    run = StudentRun(shown, tmp_path, method=Watched, options=options, config=training, audit=audit)
    list(run.records())
    seen = (torch.cat(run._state.method.seen) * 255).round().long()
    kept = set(run.images.index.tolist())
    assert len(kept) < 120 and set(seen.unique().tolist()) == kept
    assert len(seen) == 2 * len(kept)
    both = [len(image.unique()) for image in seen]  # an object's grey and a background's
    assert max(both) == 2 and np.mean(both) > 1.9


def test_masks_that_take_nothing_or_all_change_nothing(make, moving):
    masks = moving.masks.clone()
    masks[10:40], masks[40:70] = False, True
    method = make("compose", replace(moving, masks=masks), compose_share=1.0)
    positions = np.arange(100)
    images = method.images.images(positions)
    found = method.prepare(images, positions, seeded())
    changed = (found != images).flatten(1).any(1)
    assert not changed[:60].any() and changed[60:].sum() > 35  # but those that met themselves
    donors = method._donors
    assert donors.min() == 60
    with pytest.raises(UserError, match="none of its training images"):
        make("compose", replace(moving, masks=torch.ones_like(masks)))


def test_images_that_were_not_audited_stay(make, moving):
    rows = torch.arange(30, 50).flip(0)
    named = {name: getattr(moving, name)[rows] for name in ("index", "labels", "tried", "masks")}
    some = replace(moving, **named, errors=moving.errors[:, :, rows])
    method = make("compose", some, compose_share=1.0)
    positions = np.arange(100)
    images = method.images.images(positions)
    found = method.prepare(images, positions, seeded())
    changed = set(torch.nonzero((found != images).flatten(1).any(1))[:, 0].tolist())
    assert changed <= set(range(20, 40)) and len(changed) > 15
    assert torch.equal(method._masks[20:40], moving.masks[30:50])
    named = {name: getattr(moving, name)[:10] for name in named}
    others = replace(moving, **named, errors=moving.errors[:, :, :10])
    for name in ("compose", "compose-centre"):
        with pytest.raises(UserError, match="none of its training images"):
            make(name, others)


def test_the_controls_masks(make, moving, masked):
    centre, true = make("compose-centre")._masks, make("compose-true", audit=None)._masks
    assert torch.equal(true, masked.masks(np.arange(10, 110)))
    assert (centre == centre[0]).all()
    mean = moving.masks[10:110].float().mean(0)
    assert int(centre[0].sum()) == round(float(mean.sum()))
    assert mean[centre[0]].min() >= mean[~centre[0]].max()


def test_without_masks_it_is_refused(make, data, audit, moving, masked):
    refused = audit.manifest | {"masks": {"refused": "too few doubted"}}
    for name in ("compose", "compose-centre", "evidence-compose", "adv-compose"):
        with pytest.raises(UserError, match=r"no object masks, .*not asked for"):
            make(name, replace(audit, masks=None))
        with pytest.raises(UserError, match=r"no object masks, .*too few doubted"):
            make(name, replace(audit, masks=None, manifest=refused))
    with pytest.raises(UserError, match=r"does not know where its objects are"):
        make("compose-true", data=data)
    whole = replace(masked, mask=lambda i: np.arange(256).reshape(16, 16) >= 128 * (i < 10))
    with pytest.raises(UserError, match="mask of none of the training images"):
        make("compose-true", data=whole)


def test_doubted_images_take_a_share_of_the_draws(make, audit):
    method = make("doubted", audit, doubted_draws=0.45)
    doubted = torch.zeros(100, dtype=torch.bool)
    for label in range(3):
        members = [i for i in range(100) if int(audit.labels[i + 10]) == label]
        order = sorted(members, key=lambda i: -float(audit.doubts[i + 10]))
        doubted[order[:3]] = True  # a tenth of 33 or 34
    assert float(method.weights[doubted].sum()) == pytest.approx(0.45)
    assert method.weights[doubted].unique().numel() == 1
    assert method.weights[~doubted].unique().numel() == 1
    assert float(method.weights.sum()) == pytest.approx(1)
