"""What the robustness suite measures: its options and their checks."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from clarep.data.sets.official_corruptions import SEVERITIES
from clarep.engine.bounds import Within, check_bounds
from clarep.engine.extras import require_extra
from clarep.errors import UserError, check_type, unknown_name
from clarep.robustness.attacks.attack_config import AttackConfig, check_attacks
from clarep.robustness.corruptions.by_name import COMMON, CORRUPTIONS
from clarep.robustness.measures import MEASURE_GROUPS

GROUPS = tuple(name for name in MEASURE_GROUPS if name != "beyond")  # it needs a path

QUICK_ATTACKS = AttackConfig(
    eps_255=(0.25, 0.5, 1.0, 2.0, 4.0),
    eps_l2=(0.1, 0.25, 0.5),
    attacks=("pgd", "apgd-ce"),
    cw=False,  # its steps would take longer than all else together
)
"""What is attacked with unless asked otherwise: a minute for a small student on two cores."""


@dataclass(frozen=True)
class SuiteConfig:
    """What is measured, and on how many images. Images are chosen evenly from the classes."""

    groups: tuple[str, ...] = GROUPS
    """Which of clean, calibration, backgrounds, focus, attacks, corruptions, ood."""
    images: Annotated[int, Within(1)] = 1_000
    """Images of the clean, calibration, background and ood figures."""
    attack_images: Annotated[int, Within(1)] = 500
    """Images that are attacked."""
    corruption_images: Annotated[int, Within(1)] = 200
    """Images that are corrupted."""
    focus_images: Annotated[int, Within(1)] = 200
    """Images whose saliency is taken."""
    corruptions: tuple[str, ...] = COMMON
    """Which corruptions; the mean and mCE are over these."""
    severities: tuple[int, ...] = (1, 3, 5)
    """Severities of the corruptions, 1 to 5; the mean is over these."""
    flip_backdrops: Annotated[int, Within(1)] = 20
    """Adversarial backgrounds that each foreground is pasted on."""
    attack: Annotated[AttackConfig, tyro.conf.arg(name="")] = QUICK_ATTACKS
    """The attacks."""

    @property
    def seed(self) -> int:
        """Seed of everything random: the attacks' starts, the images, corruptions, backgrounds."""
        return self.attack.seed


def check_suite(config: SuiteConfig) -> None:
    """Raise UserError for a setting that is out of range, or whose extra is not installed."""
    check_type("config", config, SuiteConfig, "a SuiteConfig")
    check_bounds(config)
    for kind, given, valid in (
        ("group", config.groups, GROUPS),
        ("corruption", config.corruptions, CORRUPTIONS),
        ("severity", config.severities, SEVERITIES),
    ):
        if not given:
            raise UserError(f"no {kind} is given: name some of {', '.join(map(str, valid))}")
        for name in given:
            if name not in valid:
                raise unknown_name(kind, str(name), map(str, valid))
        if len(set(given)) < len(given):
            listed = " ".join(map(str, given))
            raise UserError(f"a {kind} is given twice in {listed}: name each once")
    check_attacks(config.attack)
    if "attacks" in config.groups and any(config.attack.autoattack_eps_255):
        require_extra("pyautoattack", "attacks")  # now: AutoAttack comes after all other attacks
