"""Robust accuracy over the radius: attack by attack, and the worst case of them for each image."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.robustness.attacks.apgd import apgd
from clarep.robustness.attacks.attack_config import AttackConfig
from clarep.robustness.attacks.passes import Model, accepted, check_marks, still_right
from clarep.robustness.attacks.pgd import pgd
from clarep.robustness.attacks.threat import Norm, Threat

WORST = "worst"
"""Beside the attacks' names: right under all of them."""

Correct = dict[str, Tensor]
"""Attack, or WORST -> which images are still right (N,)."""


@dataclass(frozen=True)
class Strength:
    """How an attack is run once."""

    config: AttackConfig
    generator: torch.Generator


Attack = Callable[[Model, Tensor, Tensor, Threat, Strength], Tensor]


def _pgd(model: Model, x: Tensor, y: Tensor, threat: Threat, strength: Strength) -> Tensor:
    config = strength.config
    return pgd(
        model,
        x,
        y,
        threat,
        config.pgd_steps,
        restarts=config.pgd_restarts,
        rule=config.pgd_rule,
        generator=strength.generator,
        batch_size=config.batch_size,
    )


def _apgd(loss: Literal["ce", "dlr"]) -> Attack:
    def attack(model: Model, x: Tensor, y: Tensor, threat: Threat, strength: Strength) -> Tensor:
        config = strength.config
        return apgd(
            model,
            x,
            y,
            threat,
            loss,
            steps=config.apgd_steps,
            restarts=config.apgd_restarts,
            generator=strength.generator,
            batch_size=config.batch_size,
        )

    return attack


ATTACKS: dict[str, Attack] = {"pgd": _pgd, "apgd-ce": _apgd("ce"), "apgd-dlr": _apgd("dlr")}


def threats(norm: Norm, config: AttackConfig, image_shape: tuple[int, ...]) -> list[Threat]:
    """Return the configured threats of a norm, smallest radius first, each once."""
    if norm == "linf":
        return [Threat.of_eps_255(eps) for eps in sorted(set(config.eps_255))]
    return [Threat.of_eps_l2(eps, image_shape) for eps in sorted(set(config.eps_l2))]


def attacks_on(norm: Norm, config: AttackConfig) -> tuple[str, ...]:
    """Return the names of the configured attacks of a norm."""
    return config.attacks if norm == "linf" else config.attacks_l2


def robust_accuracy(
    model: Model,
    x: Images,
    y: Labels,
    threat: Threat,
    config: AttackConfig,
    *,
    before: Mapping[str, Tensor] | None = None,
) -> Correct:
    """Return for every configured attack of the threat's norm which images are still right.

    The last entry, WORST, is right under all of them. Each attack has random starts of its own,
    from the seed, its name and the threat. Where gradients are hidden it is too high, of which
    `masking_reasons` tells.

    Args:
        model: images in [0, 1] -> logits; a module is held in evaluation mode.
        x: images in [0, 1].
        y: true labels.
        threat: how far an image may be changed.
        config: which attacks, and how strong.
        before: what this function gave at a smaller radius of the same norm, or here by weaker
            attacks. Images that an attack fooled there count as fooled by it here and are not
            attacked again: the smaller set lies in the larger one, so what fooled them is still
            allowed.
    """
    x, y = accepted(model, x, y, threat)
    if before is not None:
        for name in attacks_on(threat.norm, config):
            check_marks(len(x), **{f"before['{name}']": before.get(name)})
    correct: Correct = {}
    for name in attacks_on(threat.norm, config):
        right = torch.ones_like(y, dtype=torch.bool) if before is None else before[name].clone()
        at = right.nonzero().flatten()
        if len(at):
            strength = Strength(config, generator_of(config.seed, name, threat))
            x_adv = ATTACKS[name](model, x[at], y[at], threat, strength)
            right[at] = still_right(model, x_adv, y[at], config.batch_size)
        correct[name] = right
    if correct:
        correct[WORST] = torch.stack(list(correct.values())).all(dim=0)
    return correct


def robust_curve(
    model: Model,
    x: Images,
    y: Labels,
    norm: Norm,
    config: AttackConfig,
) -> Iterator[tuple[Threat, Correct]]:
    """Yield every configured threat of a norm with `robust_accuracy` there, smallest first.

    Fooled at a smaller radius is fooled at a larger one (see `robust_accuracy`), so every curve
    falls, and large radii cost little.
    """
    x, y = accepted(model, x, y)
    before: Correct | None = None
    for threat in threats(norm, config, tuple(x.shape[1:])):
        before = robust_accuracy(model, x, y, threat, config, before=before)
        yield threat, before


def generator_of(seed: int, name: str, threat: Threat) -> torch.Generator:
    """Return the generator of one attack's random starts, on the CPU."""
    text = f"{seed}/{name}/{threat.norm}/{threat.eps!r}"
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def threat_to_check(curve: Mapping[Threat, Mapping[str, Bool[Tensor, " batch"]]]) -> Threat | None:
    """Return the threat whose worst case is nearest to half the accuracy at the smallest radius.

    There the checks against gradient masking can tell most: where nearly all or nearly no images
    fall, a stronger attack has little left to show. None if the curve holds no attack.
    """
    rates = {threat: float(at[WORST].float().mean()) for threat, at in curve.items() if WORST in at}
    attacked = [threat for threat in rates if threat.eps > 0]
    if not attacked:
        return None
    half = max(rates.values()) / 2
    return min(attacked, key=lambda threat: (abs(rates[threat] - half), threat.eps))
