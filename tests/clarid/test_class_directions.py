import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.clarid.class_directions import class_directions, evaluations
from clarep.clarid.directions import project_out
from mixture import MixtureTeacher

LABELS = torch.tensor([0, 1, 2, 0])
SIGMA = 0.6


def latents(teacher, labels=LABELS):
    return teacher.sample(labels, seed=1, sigma=SIGMA)


def found(teacher, x, labels=LABELS, seed=0):
    return class_directions(teacher, x, labels, SIGMA, torch.Generator().manual_seed(seed))


def test_they_hold_the_gradient_of_the_closed_form_posterior():
    teacher = MixtureTeacher()
    x = latents(teacher).requires_grad_()
    own = teacher.log_posterior(x, SIGMA).gather(1, LABELS[:, None]).sum()
    gradient = torch.autograd.grad(own, x)[0].flatten(1)[:, :, None]
    spared = found(teacher, x.detach())
    assert spared.shape == (4, 48, 6)
    torch.testing.assert_close(spared.mT @ spared, torch.eye(6).double().expand(4, -1, -1))
    held = (spared.mT @ gradient).norm(dim=1) / gradient.norm(dim=1)
    assert (held > 0.98).all()  # six directions at random hold a third
    shuffled = held.new_tensor([float((spared[i].T @ gradient[i - 1]).norm()) for i in range(4)])
    assert (shuffled / gradient.roll(1, 0).norm(dim=1)[:, 0] < held[:, 0]).all()


def test_contrast_is_the_dense_svd_of_the_jacobian_across_them():
    teacher, k = MixtureTeacher(), 3
    clarid = Clarid(teacher, sigma=SIGMA, kind="contrast", k=k, tolerance=1e-6, measure="angle")
    x = latents(teacher)
    V = clarid.directions(x, LABELS, seed=5).V
    spared = found(teacher, x, seed=5)
    assert float((spared.mT @ V).abs().max()) < 1e-6
    across = torch.eye(48).double() - spared @ spared.mT
    _, _, rows = np.linalg.svd((teacher.jacobian(x, SIGMA, LABELS) @ across).numpy())
    cosines = torch.linalg.svdvals(torch.from_numpy(rows)[:, :k] @ V)
    assert float(cosines.min()) > 1 - 1e-6


def test_it_keeps_class_evidence_that_top_takes():
    teacher = MixtureTeacher()
    labels = torch.arange(3).repeat(20)
    x = latents(teacher, labels)

    def nats(kind):
        clarid = Clarid(teacher, sigma=SIGMA, kind=kind, k=8, branch="null")
        left = project_out(x, clarid.directions(x, labels).V)
        return float(teacher.nats(left, SIGMA, labels).mean())

    before = float(teacher.nats(x, SIGMA, labels).mean())
    assert nats("top") < 0.8 * before < 0.9 * before < nats("contrast")


def test_a_teacher_that_tells_no_classes_apart_has_none_and_contrast_is_top():
    teacher = MixtureTeacher()
    teacher.log_weights = teacher.log_weights[-1:].expand(4, -1)
    x = latents(teacher)
    assert not found(teacher, x).any()
    ours, top = (
        Clarid(teacher, sigma=SIGMA, kind=kind, k=3, tolerance=1e-6).directions(x, LABELS).V
        for kind in ("contrast", "top")
    )
    assert float(torch.linalg.svdvals(ours.mT @ top).min()) > 1 - 1e-4


@pytest.mark.parametrize(("classes", "tried"), [(3, 3), (10, 10), (14, 10)])
def test_its_cost_is_told_and_of_many_classes_a_few_are_tried(classes, tried):
    teacher = MixtureTeacher(classes=classes)
    labels = torch.tensor([0, classes - 1])
    clarid = Clarid(teacher, sigma=SIGMA, kind="contrast", k=2)
    teacher.denoised = 0
    clarid.directions(latents(teacher, labels), labels)
    assert teacher.denoised == 2 * 15 * tried == 2 * evaluations(classes)
    assert clarid.ledger.denoiser_evaluations == teacher.denoised


def test_the_same_seed_gives_the_same_and_noise_stays_inside_the_teachers_range():
    teacher = MixtureTeacher()
    x = latents(teacher)
    assert torch.equal(found(teacher, x, seed=3), found(teacher, x, seed=3))
    assert not torch.equal(found(teacher, x, seed=3), found(teacher, x, seed=4))
    high = class_directions(teacher, x, LABELS, teacher.sigma_max, torch.Generator().manual_seed(0))
    assert torch.isfinite(high).all()
