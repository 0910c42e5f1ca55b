"""Class evidence beside the closed form of Gaussian classes, whatever the batch."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clarep.audit.targets import check_targets, evidence_targets
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher

SHAPE = (3, 5, 5)
SPREAD = 0.3
SIGMA = 0.5
SHRINK = SPREAD**2 / (SPREAD**2 + SIGMA**2)


@dataclass(frozen=True)
class Gaussians:
    """Classes of one spread about means of their own; the last mean is that of no class."""

    means: torch.Tensor

    def denoise(self, x, sigma, labels):
        mean = self.means[labels]
        assert len({float(s) for s in sigma}) == 1
        return mean + (x - mean) * (SPREAD**2 / (SPREAD**2 + sigma**2))[:, None, None, None]

    def teacher(self, **settings):
        names = [f"class {i}" for i in range(len(self.means) - 1)]
        given = {"class_names": names, "latent_shape": SHAPE, "sigma_min": 0.01, "sigma_max": 80.0}
        given |= {"taps": {"x": (3, 1)}, "fingerprint": "gaussians"}
        return Teacher.from_callable(self.denoise, lambda x, *_: x, **given | settings)


@pytest.fixture
def gaussians():
    generator = torch.Generator().manual_seed(0)
    return Gaussians(torch.rand(4, *SHAPE, generator=generator) - 0.5)


@pytest.fixture
def images():
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def evidence(teacher, images, index=range(7), **settings):
    given = {"sigma": SIGMA, "draws": 2, "seed": 0, "batch_size": 3}
    given["index"] = np.array(index)
    return evidence_targets(teacher, images, **given | settings)


def test_differences_of_classes_are_the_closed_form(gaussians, images):
    """D(x_s | c) - D(x_s | c2) = (1 - a) (m_c - m_c2), a = s^2 / (s^2 + sigma^2)."""
    found = evidence(gaussians.teacher(), images).float()
    assert found.shape == (7, 4, *SHAPE)
    for c in range(4):  # the last is no class
        wanted = (1 - SHRINK) * (gaussians.means[0] - gaussians.means[c])
        assert torch.allclose(found[:, 0] - found[:, c], wanted.expand(7, *SHAPE), atol=2e-3)


def test_it_is_the_mean_over_draws(gaussians, images):
    """E D(x + sigma n | c) - x = (1 - a) (m_c - x); the noise of many draws goes."""
    wanted = (1 - SHRINK) * (gaussians.means[None] - images[:, None])
    error = (evidence(gaussians.teacher(), images, draws=4000).float() - wanted).abs()
    few = (evidence(gaussians.teacher(), images, draws=1).float() - wanted).std()
    assert few == pytest.approx(SHRINK * SIGMA, rel=0.1)
    assert error.max() < 6 * SHRINK * SIGMA / 4000**0.5 + 1e-3


def test_noise_follows_the_image_alone(gaussians, images):
    teacher = gaussians.teacher()
    whole = evidence(teacher, images)
    order = torch.tensor([4, 0, 6])
    some = evidence(teacher, images[order], order.tolist(), batch_size=2)
    assert torch.equal(some, whole[order])
    assert torch.equal(evidence(teacher, images, batch_size=100), whole)
    other = evidence(teacher, images, seed=1)
    assert not torch.equal(other[0], whole[0])
    same = images[:1].expand(7, *SHAPE)  # of one image under seven indices
    assert len(evidence(teacher, same).flatten(1).unique(dim=0)) == 7


def test_more_draws_begin_with_those_of_fewer(images):
    seen = []

    def denoise(x, *_):
        seen.append(x.clone())
        return x

    teacher = Gaussians(torch.zeros(3, *SHAPE)).teacher()
    teacher._denoise = denoise
    evidence(teacher, images[:1], [9], draws=2)
    evidence(teacher, images[:1], [9], draws=3)
    assert len(seen) == 6 + 9 and not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[6]) and torch.equal(seen[1], seen[7])
    assert torch.equal(seen[0], seen[2])  # of all classes the same


def test_no_class_is_left_out_where_the_teacher_knows_none(gaussians, images):
    found = evidence(gaussians.teacher(has_null=False), images)
    assert torch.equal(found, evidence(gaussians.teacher(), images)[:, :3])


def test_what_gives_no_evidence_is_refused(gaussians, images):
    check_targets(gaussians.teacher(), 7, 4, SIGMA)
    doubled = {"image_shape": (3, 10, 10), "encode": lambda x: x[..., ::2, ::2]}
    latent = gaussians.teacher(**doubled, decode=lambda x: x.repeat(1, 1, 2, 2))
    with pytest.raises(UserError, match="Jacobian of its decoder: give a teacher of pixels"):
        check_targets(latent, 7, 4, SIGMA)
    with pytest.raises(
        UserError, match=r"takes 55\.9 GiB.*lower `target_share`, or give a few `target_rivals`"
    ):
        check_targets(gaussians.teacher(), 10**8, 4, SIGMA)
    with pytest.raises(UserError, match="sigma 90 is outside"):
        check_targets(gaussians.teacher(), 7, 4, 90.0)
    broken = Gaussians(gaussians.means.index_fill(0, torch.tensor(1), torch.nan)).teacher()
    with pytest.raises(UserError, match="are not finite"):
        evidence(broken, images)
