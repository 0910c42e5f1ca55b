"""Robust accuracy over the radius: attack by attack, and the worst case of them for each image."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.robustness.attacks.apgd import apgd
from clarep.robustness.attacks.attack_config import AttackConfig
from clarep.robustness.attacks.passes import Model, accepted, check_marks, still_right
from clarep.robustness.attacks.pgd import pgd
from clarep.robustness.attacks.shapes import Marks
from clarep.robustness.attacks.threat import Norm, Threat

WORST = "worst"
"""Beside the attacks' names: right under all of them."""

Correct = dict[str, Tensor]
"""Attack, or WORST -> which images are still right (N,)."""


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
            x_adv = _attack(name, model, x[at], y[at], threat=threat, config=config)
            right[at] = still_right(model, x_adv, y[at], config.batch_size)
        correct[name] = right
    if correct:
        correct[WORST] = torch.stack(list(correct.values())).all(dim=0)
    return correct


def _attack(
    name: str, model: Model, x: Images, y: Labels, *, threat: Threat, config: AttackConfig
) -> Tensor:
    """Run one of the configured attacks."""
    generator = generator_of(config.seed, name, threat)
    if name == "pgd":
        return pgd(
            *(model, x, y, threat, config.pgd_steps),
            restarts=config.pgd_restarts,
            rule=config.pgd_rule,
            generator=generator,
            batch_size=config.batch_size,
        )
    return apgd(
        *(model, x, y, threat, "ce" if name == "apgd-ce" else "dlr"),
        steps=config.apgd_steps,
        restarts=config.apgd_restarts,
        generator=generator,
        batch_size=config.batch_size,
    )


def generator_of(seed: int, name: str, threat: Threat) -> torch.Generator:
    """Return the generator of one attack's random starts, on the CPU."""
    text = f"{seed}/{name}/{threat.norm}/{threat.eps!r}"
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def threat_to_check(curve: Mapping[Threat, Mapping[str, Marks]]) -> Threat | None:
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
