"""Which attacks are run and how strong they are."""

import math
from dataclasses import dataclass
from typing import Annotated

from clarep.engine.bounds import Seed, Within, check_bounds
from clarep.errors import UserError, unknown_name
from clarep.robustness.attacks.pgd import StepRule
from clarep.robustness.attacks.threat import check_eps_255, check_eps_l2

SMALL_EPS_255, LARGE_EPS_255 = 0.1, 64
"""Outside these, whoever means shares of [0, 1] or counts pixels is told the unit."""
LARGE_L2_SHARE = 0.05
"""Above this root mean square change of a value, whoever gives an L2 radius in steps of 1/255 is
told the unit: 2.8 for 32x32 with 3 channels, where 0.5 is usual, and 19 for 224x224."""
ATTACK_NAMES = ("pgd", "apgd-ce", "apgd-dlr")


@dataclass(frozen=True)
class AttackConfig:
    """How students are attacked."""

    eps_255: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    """Radii of the L-infinity attacks, in steps of 1/255 (units of 0-255); none for no such."""
    eps_l2: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    """Radii of the L2 attacks, in units of pixels in [0, 1]; none for no such."""
    attacks: tuple[str, ...] = ("pgd", "apgd-ce", "apgd-dlr")
    """L-infinity attacks: pgd, apgd-ce, apgd-dlr."""
    attacks_l2: tuple[str, ...] = ("pgd",)
    """L2 attacks beside CW: pgd, apgd-ce, apgd-dlr."""
    pgd_steps: Annotated[int, Within(1)] = 20
    """Gradients an image and restart of PGD."""
    pgd_restarts: Annotated[int, Within(1)] = 1
    """Random starts of PGD; each only for images that are still right."""
    pgd_rule: StepRule = "constant"
    """Steps of PGD: all of 2.5 radii / steps, or falling along half a cosine."""
    apgd_steps: Annotated[int, Within(1)] = 30
    """Gradients an image and restart of APGD, which chooses its step sizes itself."""
    apgd_restarts: Annotated[int, Within(1)] = 1
    """Random starts of APGD; each only for images that are still right."""
    cw: bool = True
    """Look for the nearest error of every image in L2 (Carlini & Wagner)."""
    cw_steps: Annotated[int, Within(1)] = 100
    """Steps of Adam for each weight of the error in CW."""
    cw_searches: Annotated[int, Within(1)] = 6
    """Weights of the error that CW tries, by binary search."""
    autoattack_eps_255: tuple[float, ...] = ()
    """Radii of standard AutoAttack, in steps of 1/255; needs the extra [attacks] and minutes."""
    check_images: Annotated[int, Within(0)] = 100
    """Images on which the checks against gradient masking are made; 0 skips them."""
    check_margin: Annotated[float, Within(0, 1, "[)")] = 0.02
    """Share of images on which a check may find more than the attacks did; above it by more than
    chance (exact binomial test at 1 %), figures are attacked anew or called untrustworthy."""
    batch_size: Annotated[int, Within(1)] = 250
    """Images a pass."""
    seed: Seed = 0
    """Seed of everything random: the attacks' starts and, in the suite, the choice of images,
    corruptions and backgrounds."""


def check_attacks(config: AttackConfig, image_shape: tuple[int, ...] | None = None) -> None:
    """Raise UserError, in one sentence, for a setting that nothing can be attacked with.

    image_shape: (C, H, W), to tell an L2 radius that no change of such an image has.
    """
    check_bounds(config)
    for eps_255 in (*config.eps_255, *config.autoattack_eps_255):
        check_eps_255(eps_255)
    for eps_l2 in config.eps_l2:
        check_eps_l2(eps_l2, image_shape)
    for name in (*config.attacks, *config.attacks_l2):
        if name not in ATTACK_NAMES:
            raise unknown_name("attack", name, ATTACK_NAMES)
    if config.eps_255 and not config.attacks:
        raise UserError(
            "`attacks` names none for the radii of `eps_255`: give pgd, or no `eps_255`"
        )
    if config.eps_l2 and not (config.attacks_l2 or config.cw):
        raise UserError(
            "`attacks_l2` names none for the radii of `eps_l2`: give pgd, or no `eps_l2`"
        )


def unit_notes(config: AttackConfig, image_shape: tuple[int, ...]) -> list[str]:
    """Return a sentence for each legal radius that looks as if another unit were meant."""
    notes = []
    for eps in dict.fromkeys((*config.eps_255, *config.autoattack_eps_255)):
        if 0 < eps < SMALL_EPS_255:
            notes.append(
                f"`eps_255={eps:g}` is far below one grey level of 8 bits: units of 0-255 are "
                f"meant, and {eps:g} of the range 0-1 is {255 * eps:g}"
            )
        elif eps > LARGE_EPS_255:
            notes.append(
                f"`eps_255={eps:g}` changes a pixel by {eps / 255:.0%} of its range: units of "
                "0-255 are meant, and 8 is usual"
            )
    for eps in dict.fromkeys(config.eps_l2):
        share = eps / math.sqrt(math.prod(image_shape))  # of each value, as of the L2 diameter
        if share > LARGE_L2_SHARE:
            notes.append(
                f"`eps_l2={eps:g}` is room to change every value of a "
                f"{'x'.join(map(str, image_shape))} image by {share:.0%} of its range: a length in "
                "units of pixels in [0, 1] is meant, not steps of 1/255, and 0.5 is usual at 32x32"
            )
    return notes
