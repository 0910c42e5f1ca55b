"""Object masks against a planted truth, closed forms, and evidence that says nothing."""

import numpy as np
import pytest
import torch

from clarep.audit import object_masks, segmenter
from clarep.audit.audit import MASKS, Audit
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_run import audit_steps
from clarep.audit.object_masks import NothingLearnt, evidence_maps, largest, learn_masks
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.teachers.teacher import Teacher

SIDE, CLASSES = 16, 4
OBJECT = torch.linspace(0.3, 0.9, CLASSES)  # values of a class's object, above 0
SCENE = -OBJECT  # and of its cue around it


def planted(images: int, doubted: int = 0) -> tuple[LabelledImages, torch.Tensor]:
    """Squares of a class's value at any place; the first few of each class on another's scene."""
    rng = np.random.default_rng(0)
    labels = np.arange(images) % CLASSES
    pixels = np.zeros((images, SIDE, SIDE, 3))
    masks = np.zeros((images, SIDE, SIDE), bool)
    for i, label in enumerate(labels):
        scene = (label + 1 + i // CLASSES % 3) % CLASSES if i < doubted * CLASSES else label
        top, left = rng.integers(1, SIDE - 10, 2)
        masks[i, top : top + 9, left : left + 9] = True
        pixels[i] = float(SCENE[scene])
        pixels[i][masks[i]] = float(OBJECT[label])
    pixels += 0.02 * rng.normal(size=pixels.shape)
    read = ((pixels + 1) * 127.5).clip(0, 255).astype(np.uint8).__getitem__
    names = tuple(f"class {i}" for i in range(CLASSES))
    sources = [f"image {i}" for i in range(images)]
    return LabelledImages("planted", labels, names, sources, read), torch.from_numpy(masks)


def knowing() -> Teacher:
    """It knows the values of each class's objects and scenes, and no place."""

    def denoise(x, sigma, labels):
        label = labels.clamp_max(CLASSES - 1)
        own = OBJECT[label][:, None, None, None], SCENE[label][:, None, None, None]
        mean = torch.where(x.mean(1, keepdim=True) > 0, *own)
        return mean + 0.2 * (x - mean)

    return Teacher.from_callable(
        denoise,
        lambda x, *_: x,
        latent_shape=(3, SIDE, SIDE),
        class_names=[f"class {i}" for i in range(CLASSES)],
        sigma_min=0.01,
        sigma_max=80.0,
        taps={"x": (3, 1)},
        fingerprint="planted",
    )


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(segmenter, "_STEPS", 40)
    monkeypatch.setattr(segmenter, "_WIDTH", 12)


def iou(found: torch.Tensor, true: torch.Tensor) -> float:
    both, any_ = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return float((both / any_).mean())


def evidence_of(data, rows, rivals) -> torch.Tensor:
    latents, own = to_unit_range(data.images(rows)), torch.from_numpy(data.labels[rows])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, *latents.shape, generator=generator)
    settings = {"sigma": 0.25, "noise": noise.__getitem__, "draws": 4}
    return evidence_maps(knowing(), latents, own, rivals, **settings)


def test_maps_are_the_closed_form(teacher, data):
    """With a = s^2 / (s^2 + sigma^2), D(x + sigma n | c) - x = (1 - a) (m_c - x) + a sigma n."""
    latents, own = to_unit_range(data.images(range(6))), torch.from_numpy(data.labels[:6])
    rivals, sigma, a = (own + 1) % 4, 0.25, 0.01 / (0.01 + 0.25**2)
    noise = torch.randn(3, *latents.shape, generator=torch.Generator().manual_seed(0))
    settings = {"sigma": sigma, "noise": noise.__getitem__, "draws": 3}
    found = evidence_maps(teacher, latents, own, rivals, batch_size=4, **settings)
    means = teacher.denoise(torch.zeros(4, 3, 4, 4), 1e6 * torch.ones(4), torch.arange(4))
    for i in range(6):
        gap, m, r = 0.0, means[own[i]], means[rivals[i]]
        for n in noise[:, i]:
            own_error, rival_error = (
                ((1 - a) * (c - latents[i]) + a * sigma * n).square().sum(0) for c in (m, r)
            )
            gap = gap + (rival_error - own_error) / 3
        assert torch.allclose(found[i], gap, atol=1e-5)
    assert sum(teacher.seen) == 6 * 2 * 3 + 4


def test_masks_of_all_are_learnt_from_a_few():
    data, true = planted(96, doubted=8)
    doubted = torch.arange(96) < 32
    rivals = torch.from_numpy((np.arange(32) + 1 + np.arange(32) // CLASSES % 3) % CLASSES)
    evidence = evidence_of(data, np.arange(32), rivals)
    settings = {"area": 81 / SIDE**2, "seed": 3}
    before = torch.get_rng_state()
    learnt = learn_masks(data, np.arange(96), doubted, evidence, **settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert learnt.images == 32 and learnt.gain_interval[0] > 0
    assert learnt.held_out_loss < 0.8 * learnt.constant_loss
    assert (learnt.masks.flatten(1).sum(1) == 81).all()
    assert iou(learnt.masks[32:], true[32:]) > 0.8  # that nobody doubts
    centre = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    centre[:, 3:12, 3:12] = True
    assert iou(centre.expand_as(true), true) < 0.65
    untold = learn_masks(data, np.arange(96), doubted, evidence, area=0.0, seed=3)
    assert iou(untold.masks, true) > 0.9


def test_maps_of_latents_and_of_large_images_lie_where_the_object_is(monkeypatch):
    """As of a latent model of a quarter of the side, and of images that are worked on smaller."""
    data, true = planted(64, doubted=16)
    rivals = torch.from_numpy((np.arange(64) + 1 + np.arange(64) // CLASSES % 3) % CLASSES)
    evidence = evidence_of(data, np.arange(64), rivals)
    coarse = torch.nn.functional.avg_pool2d(evidence[:, None], 2)[:, 0]
    everything = torch.ones(64, dtype=torch.bool)
    settings = {"area": 81 / SIDE**2, "seed": 0}
    learnt = learn_masks(data, np.arange(64), everything, coarse, **settings)
    assert iou(learnt.masks, true) > 0.6
    monkeypatch.setattr(object_masks, "SIDE", 8)
    learnt = learn_masks(data, np.arange(64), everything, evidence, **settings)
    assert learnt.masks.shape == true.shape and iou(learnt.masks, true) > 0.6


@pytest.mark.parametrize("seed", range(2))
def test_evidence_that_says_nothing_teaches_nothing(seed):
    data, _ = planted(40, doubted=10)
    evidence = torch.randn(40, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) - 0.3
    everything = torch.ones(40, dtype=torch.bool)
    with pytest.raises(NothingLearnt, match="does not say where"):
        learn_masks(data, np.arange(40), everything, evidence, area=0.4, seed=seed)
    with pytest.raises(NothingLearnt, match="there are 7 here and 8 are needed"):
        few = torch.arange(40) < 7
        learn_masks(data, np.arange(40), few, evidence[:7], area=0.4, seed=seed)


def test_the_largest_are_the_asked_share_ties_and_all():
    logits = torch.tensor([[[3.0, 1.0], [2.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert largest(logits, 0.5).flatten(1).sum(1).tolist() == [2, 2]
    assert largest(logits, 0.5)[0].tolist() == [[True, False], [True, False]]
    assert largest(logits, 0.01).flatten(1).sum(1).tolist() == [1, 1]
    assert largest(logits, 0.0)[0].tolist() == [[True, True], [True, False]]
    assert not largest(logits, 0.0)[1].any()


def ask(teacher, data, folder, **settings) -> Audit:
    for _ in audit_steps(teacher, data, folder, AuditConfig(target_share=0.0, **settings)):
        pass
    return Audit.load(folder)


def test_an_audit_holds_them(tmp_path, monkeypatch):
    data, true = planted(96, doubted=3)
    settings = {"mask_draws": 3, "mask_area": 81 / SIDE**2, "doubted_share": 0.125}
    found = ask(knowing(), data, tmp_path / "a", **settings)
    assert torch.nonzero(found.doubted())[:, 0].tolist() == list(range(12))
    assert found.masks.shape == true.shape and iou(found.masks, true) > 0.6
    assert found.manifest["masks"]["images"] == 12
    assert found.manifest["cost"]["denoiser_evaluations"] == 96 * 4 * 2 + 12 * 2 * 3
    monkeypatch.setattr(object_masks, "_PART", 7)
    steps = audit_steps(
        knowing(), data, tmp_path / "b", AuditConfig(target_share=0.0, batch_size=5, **settings)
    )
    for step in steps:  # stopped behind the last denoising, before the masks are learnt
        if step.done == step.total:
            break
    steps.close()
    again = ask(knowing(), data, tmp_path / "b", **settings)
    assert torch.equal(again.masks, found.masks)
    told = ({**one.manifest["masks"], "seconds": 0} for one in (again, found))
    assert len({str(one) for one in told}) == 1


def test_an_audit_goes_without_masks_that_cannot_be_learnt(teacher, data, tmp_path, capsys):
    found = ask(teacher, data, tmp_path)
    assert found.masks is None and not (tmp_path / MASKS).exists()
    assert "there are 4 here" in found.manifest["masks"]["refused"]
    assert "no object masks could be learnt" in capsys.readouterr().err
    teacher.seen.clear()
    assert ask(teacher, data, tmp_path).sha256 == found.sha256 and teacher.seen == []
