import numpy as np
import pytest
import torch

from clarep.clarid.clarid import Clarid
from clarep.clarid.class_directions import class_directions, pixels_of_centre, pixels_of_class
from clarep.clarid.directions import project_out
from clarep.errors import UserError
from mixture import MixtureTeacher

LABELS = torch.tensor([0, 1, 2, 0])
SIGMA = 0.6


def latents(teacher, labels=LABELS):
    return teacher.sample(labels, seed=1, sigma=SIGMA)


def found(teacher, x, labels=LABELS):
    return class_directions(teacher, x, labels, SIGMA)


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
    spared = found(teacher, x)
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


@pytest.mark.parametrize(("kind", "points"), [("contrast", 15), ("mask", 1)])
@pytest.mark.parametrize(("classes", "tried"), [(3, 3), (10, 10), (14, 10)])
def test_its_cost_is_told_and_of_many_classes_a_few_are_tried(kind, points, classes, tried):
    teacher = MixtureTeacher(classes=classes)
    labels = torch.tensor([0, classes - 1])
    clarid = Clarid(teacher, sigma=SIGMA, kind=kind, k=2)
    teacher.denoised = 0
    clarid.directions(latents(teacher, labels), labels)
    assert clarid.ledger.denoiser_evaluations == 2 * points * tried
    assert teacher.denoised >= 2 * points * tried  # the mixture's features count too


class InOneCorner(MixtureTeacher):
    """Its classes differ in the upper left 4 by 4 of 8 by 8 pixels alone."""

    def __init__(self):
        super().__init__(shape=(1, 8, 8), separation=3.0)
        corner = torch.zeros(8, 8, dtype=torch.float64)
        corner[:4, :4] = 1
        self.means = self.means * corner.flatten()
        self.covariances = torch.eye(64).double().expand_as(self.covariances) * 0.01
        self.values = torch.full_like(self.values, 0.01)
        self.vectors = torch.eye(64).double().expand_as(self.vectors)


def test_mask_is_where_the_classes_differ_and_nothing_there_is_taken():
    teacher = InOneCorner()
    x = latents(teacher)
    pixels = pixels_of_class(teacher, x, LABELS, SIGMA)
    assert pixels.shape == (4, 1, 8, 8)
    assert pixels[:, :, :4, :4].all() and not pixels[:, :, 6:].any()
    assert 0.35 < float(pixels.double().mean()) < 0.6
    V = Clarid(teacher, sigma=SIGMA, kind="mask", k=4).directions(x, LABELS).V
    assert not (V.reshape(4, 8, 8, 4)[:, :4, :4]).abs().max() > 1e-6


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (7, 12)])
def test_centre_is_a_disc_in_the_middle_of_masks_area(height, width):
    disc = pixels_of_centre(height, width)[0, 0]
    distinct = torch.rand(1, 1, height, width)
    cut = distinct.quantile(0.6)
    assert int(disc.sum()) == int((distinct >= cut).sum())
    away = {
        (y, x): (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2
        for y in range(height)
        for x in range(width)
    }
    inside = max(away[at] for at in away if disc[at])
    assert all(disc[at] or away[at] >= inside for at in away)


def test_centre_takes_nothing_in_the_middle_and_asks_no_denoiser():
    teacher = InOneCorner()
    x = latents(teacher)
    clarid = Clarid(teacher, sigma=SIGMA, kind="centre", k=4)
    V = clarid.directions(x, LABELS).V.reshape(4, 64, 4)
    disc = pixels_of_centre(8, 8).flatten()
    assert V[:, disc].abs().max() < 1e-6 < V[:, ~disc].abs().max()
    assert clarid.ledger.denoiser_evaluations == 0
    one = MixtureTeacher(classes=1)
    assert Clarid(one, sigma=SIGMA, kind="centre", k="energy:0.5", guidance=1.0)  # as any control


def test_no_batch_changes_an_images_and_noise_stays_inside_the_teachers_range():
    teacher = MixtureTeacher(classes=14)
    labels = torch.tensor([0, 13, 5, 5])
    x = latents(teacher, labels)
    together = found(teacher, x, labels)
    for i in range(4):
        alone = found(teacher, x[i : i + 1], labels[i : i + 1])[0]
        cosines = torch.linalg.svdvals(together[i].T @ alone)
        assert float(cosines.min()) > 1 - 1e-6
    assert torch.isfinite(class_directions(teacher, x, labels, teacher.sigma_max)).all()


def test_of_two_classes_in_single_precision_rounding_is_no_direction():
    teacher = MixtureTeacher(shape=(3, 16, 16), classes=2)
    exact = teacher.denoise
    teacher.denoise = lambda x, sigma, cond: exact(x, sigma, cond).float()
    labels = torch.tensor([0, 1])
    spared = found(teacher, latents(teacher, labels).float(), labels).double()
    assert spared.shape[2] == 30  # two columns a point, of which one is new
    gram = spared.mT @ spared
    rank = gram.diagonal(dim1=1, dim2=2).round()
    assert (rank.sum(1) <= 15).all()
    torch.testing.assert_close(gram, torch.diag_embed(rank), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["contrast", "mask"])
def test_what_it_does_not_fit_is_refused(kind):
    one = MixtureTeacher(classes=1)
    with pytest.raises(UserError, match="one class"):
        Clarid(one, sigma=SIGMA, kind=kind, k=2, guidance=1.0)
    with pytest.raises(UserError, match="whole Jacobian"):
        Clarid(MixtureTeacher(), sigma=SIGMA, kind=kind, k="energy:0.5")


def test_inverted_under_no_class_the_label_changes_no_latent():
    teacher = MixtureTeacher()
    data = teacher.data([0, 1, 2, 0])
    images = data.images(np.arange(4))
    null = Clarid(teacher, sigma=SIGMA, kind="none", inversion_label="null", steps=40)
    one, trip = null.invert(images, [0, 1, 2, 0])
    other, _ = null.invert(images, [1, 2, 0, 1])
    assert torch.equal(one, other) and float(trip.min()) > 25
    under_class, _ = Clarid(teacher, sigma=SIGMA, kind="none", steps=40).invert(
        images, [1, 2, 0, 1]
    )
    assert not torch.allclose(under_class, one, atol=1e-3)
