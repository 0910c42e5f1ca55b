"""The suite's attacks: radii that build on one another, worst cases, doubts, medians."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.data.labelled import LabelledImages
from clarep.robustness.attacks.attack_config import AttackConfig
from clarep.robustness.attacks.standard import Standard
from clarep.robustness.attacks.threat import Threat
from clarep.robustness.evaluation import Evaluation, mean_of
from clarep.robustness.measures import measure_of
from clarep.robustness.suite.aggregates import doubted, worst_cases
from clarep.robustness.suite.attack_parts import _median, key_of
from clarep.robustness.suite.suite import SuiteRun, robustness_suite
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.robustness.suite.suite_inputs import BACKWARD
from clarep.students.student import Student, StudentInfo

SIDE = 4
LEVELS = np.linspace(0.15, 0.85, 40)  # mean grey of the images; the classes meet at 0.5

CONFIG = SuiteConfig(
    groups=("attacks",),
    attack_images=40,
    attack=AttackConfig(
        eps_255=(20.0, 40.0, 80.0),
        eps_l2=(1.0,),
        attacks=("pgd", "apgd-ce"),
        pgd_steps=5,
        apgd_steps=5,
        cw=False,
        check_images=10,
    ),
)


class Grey(Student):
    """Says dark or bright by the mean grey: an image falls where eps exceeds |mean - 0.5|."""

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self.info = StudentInfo("grey", ("dark", "bright"), (3, SIDE, SIDE))
        self.scale = torch.nn.Parameter(torch.tensor(20.0))
        self.steps = steps  # of grey that it can tell apart; 0 for all

    def features(self, x):
        x = (x * self.steps).round() / self.steps if self.steps else x
        return x.mean(dim=(1, 2, 3))[:, None]

    def forward(self, x):
        margin = self.scale * (self.features(x) - 0.5)
        return torch.cat([-margin, margin], dim=1)

    def both(self, x):
        return self.features(x), self(x)


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    def read(i: int) -> np.ndarray:
        return np.full((SIDE, SIDE, 3), round(255 * LEVELS[i]), np.uint8)

    labels = (LEVELS > 0.5).astype(np.int64)
    return LabelledImages("greys", labels, ("dark", "bright"), [str(i) for i in range(40)], read)


@pytest.fixture(scope="module")
def found(data: LabelledImages) -> Evaluation:
    attack = dataclasses.replace(CONFIG.attack, cw=True, cw_searches=3)
    return robustness_suite(Grey(), data, dataclasses.replace(CONFIG, attack=attack))


def test_accuracy_falls_where_the_distance_to_the_border_says(found, data) -> None:
    greys = np.array([data.read(i)[0, 0, 0] for i in range(40)])
    for eps in (20, 40, 80):
        expected = (np.abs(greys - 127.5) > eps).mean()
        for name in ("pgd", "apgd-ce", "worst"):
            one = found[f"attack/{name}-linf/eps_255={eps}"]
            assert one.value == pytest.approx(expected)
            assert one.untrustworthy == ""
    distances = np.sort(np.abs(greys / 255 - 0.5)) * (3 * SIDE**2) ** 0.5
    assert found["attack/pgd-l2/eps_l2=1"].value == pytest.approx((distances > 1).mean())
    assert found["attack/cw-l2/median_l2"].value == pytest.approx(distances[19], rel=0.02)


def test_images_are_in_the_order_of_their_index(found, data) -> None:
    index = found.arrays["attack/index"].numpy()
    assert sorted(index) == list(range(40))
    assert (index[:10] < 20).any()  # what is checked is of both classes
    assert (index[:10] >= 20).any()
    right = found.arrays["attack/pgd-linf/eps_255=40"].bool().numpy()
    greys = np.array([data.read(int(i))[0, 0, 0] for i in index])
    assert (right == (np.abs(greys - 127.5) > 40)).all()


def test_what_masks_its_gradient_is_not_trusted(data) -> None:
    # not asked before: else attacks would be left out
    found = SuiteRun(Grey(steps=4), data, CONFIG, untrained=True).evaluation()
    for key in ("attack/pgd-linf/eps_255=40", "attack/worst-l2/eps_l2=1"):
        assert "gradient is exactly zero" in found[key].untrustworthy


class Ridge(Grey):
    """Falls to the left of its peak alone; gradients from a start on the right lead nowhere."""

    def forward(self, x):
        way = self.features(x) - 0.4985  # half a thousandth beside images of 127
        margin = self.scale / 20 * (1 - 40 * (-way).relu() - 5 * way.relu())
        return torch.cat([-margin, margin], dim=1)


@pytest.fixture(scope="module")
def greys() -> LabelledImages:
    one = np.full((SIDE, SIDE, 3), 127, np.uint8)
    labels = np.ones(60, np.int64)
    names = [str(i) for i in range(60)]
    return LabelledImages("one grey", labels, ("dark", "bright"), names, lambda i: one)


def test_where_restarts_help_the_stronger_attack_is_run_on_all_images(greys, tmp_path) -> None:
    attack = dataclasses.replace(
        CONFIG.attack,
        eps_255=(0.0, 10.0),
        eps_l2=(),
        attacks=("pgd",),
        pgd_restarts=2,
        check_images=40,
    )
    config = dataclasses.replace(CONFIG, attack=attack, attack_images=60)
    weak = dataclasses.replace(config, attack=dataclasses.replace(attack, check_images=0))
    before = robustness_suite(Ridge(), greys, weak)
    found = robustness_suite(Ridge(), greys, config, folder=tmp_path)
    again = robustness_suite(Ridge(), greys, config, folder=tmp_path)
    assert again.measurements == found.measurements
    for key in ("attack/pgd-linf/eps_255=10", "attack/worst-linf/eps_255=10"):
        one = found[key]
        assert before[key].value - one.value > 0.1
        assert one.value < 0.1
        assert one.value == found.arrays[key].mean()
        assert (found.arrays[key] <= before.arrays[key]).all()
        assert one.untrustworthy == before[key].note == ""
        assert "of 40 images" in one.note
        assert "all 60" in one.note
    assert found["attack/clean"].note == ""
    keys = [one.key for one in found.measurements]
    assert keys == [one.key for one in before.measurements]


def test_what_even_the_stronger_attack_leaves_open_is_not_trusted(greys) -> None:
    """One start of three fools hardly more than half; three of them leave a tenth."""
    attack = dataclasses.replace(
        CONFIG.attack, eps_255=(20.0,), eps_l2=(), attacks=("pgd",), check_images=60
    )
    config = dataclasses.replace(CONFIG, attack=attack, attack_images=60)
    found = robustness_suite(Lopsided(), greys, config)["attack/pgd-linf/eps_255=20"]
    assert "too weak" in found.untrustworthy
    assert "of 60 images" in found.note


def test_an_attack_that_fails_at_any_radius_for_want_of_steps_is_run_with_more(data) -> None:
    """One step from a far start ends at a wall, where dark and bright have changed places."""
    attack = dataclasses.replace(
        CONFIG.attack, eps_255=(20.0,), eps_l2=(), attacks=("pgd",), pgd_steps=1, check_images=40
    )
    config = dataclasses.replace(CONFIG, attack=attack)
    found = robustness_suite(Waves(), data, config)["attack/pgd-linf/eps_255=20"]
    assert "eps_255=127.5" in found.note
    assert found.untrustworthy == ""


class Waves(Grey):
    """Dark and bright in turn: who steps too far is right again."""

    def forward(self, x):
        margin = self.scale * torch.sin(2 * torch.pi * 1.5 * (self.features(x) - 0.5))
        return torch.cat([-margin, margin], dim=1)


class Lopsided(Ridge):
    """Falls from few starts: those whose mean is far to the left."""

    def forward(self, x):
        way = self.features(x) - 0.492
        margin = self.scale / 20 * (1 - 40 * (-way).relu() - 5 * way.relu())
        return torch.cat([-margin, margin], dim=1)


def test_stopped_between_radii_it_goes_on_to_the_same_bytes(data, tmp_path: Path) -> None:
    robustness_suite(Grey(), data, CONFIG, folder=tmp_path / "whole")
    steps = SuiteRun(Grey(), data, CONFIG, folder=tmp_path / "cut").steps()
    for _ in range(3):
        next(steps)
    steps.close()
    robustness_suite(Grey(), data, CONFIG, folder=tmp_path / "cut")
    both = [(tmp_path / name / "arrays.safetensors").read_bytes() for name in ("whole", "cut")]
    assert both[0] == both[1]


def test_autoattack_goes_on_after_a_kill_batch_by_batch(data, tmp_path, monkeypatch) -> None:
    seeds = []

    def fake(model, x, y, threat, *, seed, batch_size):
        seeds.append(seed)
        if len(seeds) == 2:
            raise KeyboardInterrupt
        reasons = ["doubtful"] if seed == 1 else []
        return Standard(x, (x.mean(dim=(1, 2, 3)) > 0.5) == (y > 0), reasons)

    monkeypatch.setattr("clarep.robustness.suite.attack_parts.auto_attack", fake)
    attack = AttackConfig(
        eps_255=(20.0,), eps_l2=(), attacks=("pgd",), pgd_steps=2, cw=False, check_images=0,
        autoattack_eps_255=(20.0,), batch_size=15,
    )  # fmt: skip
    config = dataclasses.replace(CONFIG, attack=attack)
    with pytest.raises(KeyboardInterrupt):
        robustness_suite(Grey(), data, config, folder=tmp_path)
    found = robustness_suite(Grey(), data, config, folder=tmp_path)
    assert seeds == [0, 1, 1, 2]  # the first batch was not attacked again
    one = found["attack/autoattack-linf/eps_255=20"]
    assert (one.value, one.images, one.untrustworthy) == (1, 40, "doubtful")
    assert found.arrays[one.key].tolist() == [1] * 40
    assert not any(key.startswith(f"{one.key}/") for key in found.arrays)


def test_a_reference_enters_the_checks_alone(data, tmp_path: Path) -> None:
    robustness_suite(Grey(), data, CONFIG, folder=tmp_path)
    run = SuiteRun(Grey(), data, CONFIG, folder=tmp_path, reference=Grey())
    start = next(run.steps())
    checks = [part for part in run.parts if part.name.startswith("attacks/masking-")]
    assert len(checks) == 2
    assert start.total - start.done == sum(map(run._expected, checks)) > 0


def test_the_attacked_images_have_a_clean_accuracy_of_their_own(data) -> None:
    attack = dataclasses.replace(CONFIG.attack, eps_255=(0.0, 20.0), check_images=0)
    config = dataclasses.replace(CONFIG, groups=("clean", "attacks"), attack=attack)
    config = dataclasses.replace(config, attack_images=10)
    found = robustness_suite(Grey(), data, config)
    assert found["clean/accuracy"].images == 40
    one = found["attack/clean"]
    assert one.images == 10
    assert one.interval[0] <= one.value <= one.interval[1]
    at_zero = found.arrays["attack/pgd-linf/eps_255=0"]
    assert torch.equal(found.arrays["attack/clean"], at_zero)
    index = found.arrays["attack/index"]
    clean = found.arrays["clean/accuracy"][torch.argsort(found.arrays["index"])]
    assert torch.equal(found.arrays["attack/clean"], clean[index])
    assert measure_of("attack/clean").shown != "compared"


def test_progress_skips_what_broken_images_spare_and_counts_what_is_done(data) -> None:
    """Few images withstand 80/255: later parts must not be counted as if all did."""
    run = SuiteRun(Grey(), data, CONFIG)
    steps = list(run.steps())
    assert steps[0].done == 40  # which are right as they are is asked before all else
    assert steps[0].new == 0
    assert len({step.total for step in steps}) == 1
    assert steps[-1].done == steps[-1].total
    for before, after in itertools.pairwise(steps):
        assert after.done - before.done == after.new
        assert 0 <= after.skipped <= after.new
    worked = 40 + sum(step.new - step.skipped for step in steps)
    passes = sum(run.evaluation().config["cost"]["forward_passes"].values())
    assert passes <= worked <= BACKWARD * passes
    assert worked < steps[-1].total
    rung = next(part for part in run.parts if part.name == "attacks/linf-eps_255=80")
    right = run._measured["attacks/linf-eps_255=40"].arrays["attack/pgd-linf/eps_255=40"]
    assert run._expected(rung) == BACKWARD * (5 + 5) * int(right.sum()) < rung.cost({})


def test_the_worst_case_counts_autoattack_and_smaller_radii(data) -> None:
    attack = dataclasses.replace(CONFIG.attack, autoattack_eps_255=(40.0,))
    run = SuiteRun(Grey(), data, dataclasses.replace(CONFIG, attack=attack))
    small, middle, large = (Threat.of_eps_255(eps) for eps in (20.0, 40.0, 80.0))
    arrays = {
        key_of("worst", small): torch.tensor([1.0, 1.0, 1.0, 0.0]),
        key_of("worst", middle): torch.tensor([1.0, 1.0, 0.0, 0.0]),
        key_of("autoattack", middle): torch.tensor([1.0, 0.0, 0.0, 0.0]),
        key_of("worst", large): torch.tensor([0.0, 1.0, 0.0, 1.0]),
    }
    worst = worst_cases(run._inputs, arrays)
    assert worst[key_of("worst", small)].tolist() == [1, 1, 1, 0]
    assert worst[key_of("worst", middle)].tolist() == [1, 0, 0, 0]
    assert worst[key_of("worst", large)].tolist() == [0, 0, 0, 0]


def test_doubts_go_to_every_attack_of_their_norm() -> None:
    ones = torch.ones(3)
    given = [
        mean_of("clean/accuracy", ones),
        mean_of("attack/pgd-linf/eps_255=1", ones),
        mean_of("attack/autoattack-linf/eps_255=1", ones, "it says so"),
        mean_of("attack/cw-l2/median_l2", ones),
    ]
    doubts = [("attack/*-linf/*", "weak"), ("attack/*-l2/*", ""), ("attack/*-linf/*", "weak")]
    reasons = {one.key: one.untrustworthy for one in doubted(given, doubts)}
    assert reasons == {
        "clean/accuracy": "",
        "attack/pgd-linf/eps_255=1": "weak",
        "attack/autoattack-linf/eps_255=1": "it says so; weak",
        "attack/cw-l2/median_l2": "",
    }


def test_a_median_bears_images_that_nothing_fools() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, torch.inf])
    found = _median("attack/cw-l2/median_l2", values)
    assert found.value == 2
    assert found.interval == (0.0, torch.inf)
    many = _median("x", torch.linspace(0, 1, 1001))
    assert many.value == pytest.approx(0.5)
    half = 1.96 * 0.5 / 1001**0.5  # of the median of a uniform variable
    assert many.interval == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)
