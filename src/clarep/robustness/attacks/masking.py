"""Were the attacks strong, or were gradients masked? Athalye et al. 2018, Carlini et al. 2019.

Each check returns a sentence that says why the figures must not be trusted, or nothing. They are
necessary conditions: passing them all proves no robustness. Each counts, on the same images as
were attacked, those on which it succeeds and the attack did not, and speaks where these are more
than `check_margin` allows by more than chance (`exceeds`).
"""

import math
from dataclasses import replace

from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.robustness.attacks.attack_config import AttackConfig
from clarep.robustness.attacks.curves import WORST, generator_of, robust_accuracy
from clarep.robustness.attacks.passes import (
    Model,
    accepted,
    ascend,
    check_marks,
    cross_entropy,
    evaluating,
    still_right,
)
from clarep.robustness.attacks.pgd import pgd
from clarep.robustness.attacks.shapes import Marks
from clarep.robustness.attacks.threat import Threat

_MORE_STEPS = 5
_MORE_RESTARTS = 2
_LEVEL = 0.01


def exceeds(count: int, images: int, margin: float) -> bool:
    """Tell whether `count` of `images` is more than a share of `margin` and chance explain.

    The exact one-sided binomial test at 1 %, of the hypothesis that the share is at most the
    margin. An image that a stronger attack leaves right was left right before, so that the paired
    test of two attacks comes down to this count. At a margin of 2 %: 5 of 50, 7 of 100, 19 of 500.
    """
    from scipy.stats import binom  # half a second that only this needs

    return bool(binom.sf(count - 1, images, margin) < _LEVEL)


def masking_reasons(
    model: Model,
    x: Images,
    y: Labels,
    threat: Threat,
    *,
    correct: Marks,
    config: AttackConfig,
    reference: Model | None = None,
) -> list[str]:
    """Make all checks but `stronger_attack` on the first `config.check_images` images.

    Args:
        x: the attacked images, in an order in which the first ones stand for all.
        threat: where the checks are made; `threat_to_check` finds one that can tell.
        correct: which images were reported to be still right there, under all attacks.
        config: the attacks as they were run, and the margin of the checks.
        reference: another model of the same classes, for the transfer check; None skips it.

    Returns:
        sentences, empty if nothing speaks against the figures of the threat's norm.
    """
    if not config.check_images:
        return []
    x, y, correct = _first(model, x, y, threat, correct=correct, count=config.check_images)
    found = [zero_gradients(model, x, y, config), unbounded_attack(model, x, y, threat, config)]
    if reference is not None:
        found.append(
            transfer_attack(model, reference, x, y, threat=threat, correct=correct, config=config)
        )
    return [reason for reason in found if reason]


def stronger_attack(
    model: Model, x: Images, y: Labels, threat: Threat, *, correct: Marks, config: AttackConfig
) -> str:
    """Check, on the first `config.check_images`, that the `strengthened` attacks fool few more.

    And that, where an `unbounded_attack` fails, theirs does too. Takes what `masking_reasons`
    takes. Where it speaks, the figures are to be those of the stronger attacks.
    """
    if not config.check_images:
        return ""
    x, y, correct = _first(model, x, y, threat, correct=correct, count=config.check_images)
    at, stronger = correct.nonzero().flatten(), strengthened(config)
    if not len(at):
        return ""
    more = f"{_MORE_STEPS} times the steps and {_MORE_RESTARTS} more restarts"
    fallen = ~robust_accuracy(model, x[at], y[at], threat, stronger)[WORST]
    if exceeds(int(fallen.sum()), len(x), config.check_margin):
        return f"{more} fool {_of(fallen, x)} at {threat.setting}"
    failed = unbounded_attack(model, x, y, threat, config)
    if failed and not unbounded_attack(model, x, y, threat, stronger):
        return f"{failed}, and {more} leave none"
    return ""


def strengthened(config: AttackConfig) -> AttackConfig:
    """Return the same attacks with five times the steps, two more restarts and another seed."""
    return replace(
        config,
        pgd_steps=config.pgd_steps * _MORE_STEPS,
        pgd_restarts=config.pgd_restarts + _MORE_RESTARTS,
        apgd_steps=config.apgd_steps * _MORE_STEPS,
        apgd_restarts=config.apgd_restarts + _MORE_RESTARTS,
        seed=(config.seed + 1) % 2**32,
    )


def _first(
    model: Model, x: Images, y: Labels, threat: Threat, *, correct: Marks, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first images, labels and marks, checked."""
    x, y = accepted(model, x, y, threat)
    check_marks(len(x), correct=correct)
    return x[:count], y[:count], correct[:count]


def zero_gradients(model: Model, x: Tensor, y: Tensor, config: AttackConfig) -> str:
    """Check that the cross-entropy of rightly classified images has a gradient.

    It is exactly 0 where the softmax saturates in fp32 or the input is quantised; one that is not
    finite counts as such.
    """
    right = still_right(model, x, y, config.batch_size).nonzero().flatten()
    flat = 0
    with evaluating(model):
        for part in right.split(config.batch_size):
            _, _, grad = ascend(model, cross_entropy, x[part], y[part])
            flat += int((grad.flatten(1) == 0).all(dim=1).sum())
    if not flat or not exceeds(flat, len(right), config.check_margin):
        return ""
    return (
        f"the loss's gradient is exactly zero, or not finite, on {flat} of {len(right)} images, "
        "where attacks by gradients of the cross-entropy cannot move"
    )


def unbounded_attack(
    model: Model, x: Tensor, y: Tensor, threat: Threat, config: AttackConfig
) -> str:
    """Check that every attack fools about every image where the radius is huge.

    At half the range, or half the L2 diameter, all images can be turned into the same grey one.
    """
    huge = Threat(threat.norm, 0.5 if threat.norm == "linf" else 0.5 * math.sqrt(x[0].numel()))
    correct = robust_accuracy(model, x, y, huge, config)
    left = {name: int(right.sum()) for name, right in correct.items() if name != WORST}
    names = " and ".join(
        f"{name} leaves {count} of {len(x)}"
        for name, count in left.items()
        if exceeds(count, len(x), config.check_margin)
    )
    if not names:
        return ""
    return f"{names} right at {huge.setting}, where any image can be reached and none should be"


def transfer_attack(
    model: Model,
    reference: Model,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    correct: Marks,
    config: AttackConfig,
) -> str:
    """Check that images made against another model fool few that withstood attacks of their own."""
    at = correct.nonzero().flatten()
    if not len(at):
        return ""
    x_adv = pgd(
        *(reference, x[at], y[at], threat, config.pgd_steps),
        generator=generator_of(config.seed, "transfer", threat),
        drop_fooled=False,
        batch_size=config.batch_size,
    )
    fallen = ~still_right(model, x_adv, y[at], config.batch_size)
    if not exceeds(int(fallen.sum()), len(x), config.check_margin):
        return ""
    return (
        "images made against another model are stronger than attacks on this one: they fool "
        f"{_of(fallen, x)} at {threat.setting}"
    )


def _of(fallen: Marks, checked: Tensor) -> str:
    return f"{int(fallen.sum())} of {len(checked)} images that were reported right"
