"""Saliency against closed forms and differences; shares of students whose look is known."""

import numpy as np
import pytest
import torch
from torch import nn

from clarep.data.foregrounds import Separated
from clarep.data.labelled import LabelledImages
from clarep.robustness.focus import (
    energy_share,
    focus_measures,
    input_gradient,
    integrated_gradients,
    saliency_maps,
)
from clarep.robustness.tested_student import under_test
from clarep.students.student import Student, StudentInfo

SIDE = 6


class Looks(Student):
    """Two classes, told apart by the brightness of the pixels where `weight` is not zero."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.info = StudentInfo("looks", ("dark", "bright"), (3, SIDE, SIDE))
        self.weight = nn.Parameter(weight)

    def features(self, x):
        return (x * self.weight).sum(dim=(1, 2, 3))[:, None]

    def forward(self, x):
        return torch.cat([1 - self.features(x), self.features(x)], dim=1)

    def both(self, x):
        return self.features(x), self(x)


@pytest.fixture
def centre() -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2:4, 2:4] = True
    return mask


@pytest.fixture
def parts(centre: torch.Tensor) -> Separated:
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 256, size=(7, SIDE, SIDE, 3)).astype(np.uint8)
    sources = [str(i) for i in range(7)]
    data = LabelledImages(
        "noise", np.arange(7) % 2, ("dark", "bright"), sources, lambda i: pixels[i]
    )
    return Separated(
        variants={"original": data},
        paired=True,
        usable=np.arange(7),
        masks=lambda indices: centre.expand(len(indices), SIDE, SIDE),
        backdrops=None,
        donors=np.arange(0),
        scene=lambda i: 0,
    )


def small_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIDE**2, 3)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(("where", "share"), [("centre", 1.0), ("border", 0.0), ("both", 4 / 36)])
def test_shares_of_students_whose_look_is_known(parts, centre, where: str, share: float) -> None:
    weights = {
        "centre": centre.float(),
        "border": (~centre).float(),
        "both": torch.ones(SIDE, SIDE),
    }
    with under_test(Looks(weights[where])) as subject:
        measurements, arrays, _ = focus_measures(subject, parts, np.arange(7))
    values = {measurement.key: measurement.value for measurement in measurements}
    assert values["focus/input_gradient"] == pytest.approx(share, abs=1e-6)
    assert values["focus/area"] == pytest.approx(4 / 36)
    assert arrays["focus/input_gradient"].shape == (7,)
    if where != "both":  # there, an integrated gradient also goes with the pixels' brightness
        assert values["focus/integrated_gradients"] == pytest.approx(share, abs=1e-6)


def test_the_gradient_against_differences() -> None:
    net, x = small_net().requires_grad_(False), torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    labels = torch.tensor([2, 0])
    found = input_gradient(net, x, labels)
    step = 1e-6
    for image, channel, row, column in [(0, 0, 0, 0), (0, 2, 3, 5), (1, 1, 4, 2)]:
        up, down = x.clone(), x.clone()
        up[image, channel, row, column] += step
        down[image, channel, row, column] -= step
        rise = (net(up) - net(down))[image, labels[image]] / (2 * step)
        assert float(found[image, channel, row, column]) == pytest.approx(float(rise), rel=1e-5)


def test_integrated_gradients_are_complete_and_better_with_more_steps() -> None:
    net, x = small_net(), torch.rand(4, 3, SIDE, SIDE, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        rise = (net(x) - net(torch.zeros_like(x))).gather(1, labels[:, None])[:, 0]
    errors = {
        steps: (integrated_gradients(net, x, labels, steps).sum(dim=(1, 2, 3)) - rise).abs().max()
        for steps in (4, 32)
    }
    assert errors[32] < 1e-4
    assert errors[32] < 0.1 * errors[4]  # the midpoint rule's error falls with the steps' square


def test_integrated_gradients_of_a_linear_model_are_weight_times_pixel() -> None:
    weight = torch.randn(SIDE, SIDE)
    x = torch.rand(1, 3, SIDE, SIDE)
    found = integrated_gradients(Looks(weight), x, torch.tensor([1]), steps=3)
    torch.testing.assert_close(found, weight * x)


def test_energy_shares_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    saliency = torch.randn(3, 2, 4, 5, generator=generator)
    masks = torch.rand(3, 4, 5, generator=generator) < 0.4
    found = energy_share(saliency, masks)
    for image in range(3):
        inside = total = 0.0
        for row in range(4):
            for column in range(5):
                energy = float((saliency[image, :, row, column] ** 2).sum())
                total += energy
                inside += energy * bool(masks[image, row, column])
        assert float(found[image]) == pytest.approx(inside / total, rel=1e-5)


def test_saliency_that_is_zero_prefers_nothing(centre: torch.Tensor) -> None:
    found = energy_share(torch.zeros(1, 3, SIDE, SIDE), centre[None])
    assert float(found[0]) == pytest.approx(4 / 36)


def test_tiny_gradients_keep_their_share(centre: torch.Tensor) -> None:
    saliency = torch.full((1, 3, SIDE, SIDE), 1e-30) * centre
    assert float(energy_share(saliency, centre[None])[0]) == 1


def test_maps_are_as_long_as_the_gradient(centre: torch.Tensor) -> None:
    images = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    with under_test(Looks(2 * centre.float())) as subject:
        maps = saliency_maps(subject, images)
    torch.testing.assert_close(maps[1], 2 * 3**0.5 * centre.float())
