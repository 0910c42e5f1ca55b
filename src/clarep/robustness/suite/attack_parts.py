"""The suite's attacks: a part for every radius, for the checks of each norm, CW and AutoAttack."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.statistics import bootstrap
from clarep.robustness.attacks.attack_config import AttackConfig
from clarep.robustness.attacks.curves import (
    WORST,
    attacks_on,
    robust_accuracy,
    threat_to_check,
    threats,
)
from clarep.robustness.attacks.cw import cw_l2
from clarep.robustness.attacks.masking import masking_reasons, strengthened, stronger_attack
from clarep.robustness.attacks.standard import auto_attack
from clarep.robustness.attacks.threat import Norm, Threat
from clarep.robustness.evaluation import Measured, Measurement, mean_of
from clarep.robustness.suite.context import BACKWARD, PARTS_NAME, Bench, Part
from clarep.robustness.tested_student import as_float, fingerprint, right_at

CLEAN = "attack/clean"
"""Key of the accuracy of the attacked images as they are: where every curve begins."""
CLEAN_PART = "attacks/clean"
CHECK = "check/"
"""Key of the measurement, of a part alone, that holds what the checks of a norm found."""
_NORMS: tuple[Norm, ...] = ("linf", "l2")
_AUTOATTACK_PASSES = 10_000  # of an image that withstands, about
_OF_OTHER_PARTS = ("eps_255", "eps_l2", "cw", "autoattack_eps_255", "check_images", "check_margin")


def attack_parts(bench: Bench) -> list[Part]:
    """Return the attacks that are configured, weakest first, and the checks of each norm."""
    config = bench.config.attack
    # The checks take the first ones: in the order of the data these might be of one class.
    rng = np.random.default_rng(bench.config.seed)
    indices = rng.permutation(bench.choose(bench.config.attack_images))
    parts: list[Part] = []
    for norm in _NORMS:
        ladder = configured(bench, norm)
        rungs = [ladder[: i + 1] for i in range(len(ladder))] if attacks_on(norm, config) else []
        parts += [_threat_part(bench, indices, rung) for rung in rungs]
        if rungs and config.check_images:
            parts.append(_check_part(bench, indices, ladder))
    if config.cw:
        parts.append(_cw_part(bench, indices))
    for eps_255 in sorted(set(config.autoattack_eps_255)):
        parts.append(_autoattack_part(bench, indices, Threat.of_eps_255(eps_255)))
    return [_clean_part(bench, indices), *parts] if parts else []


def configured(bench: Bench, norm: Norm) -> list[Threat]:
    """Return the radii of our own attacks, smallest first."""
    height, width, channels = bench.data.read(0).shape
    return threats(norm, bench.config.attack, (channels, height, width))


def radii(bench: Bench, norm: Norm) -> list[Threat]:
    """Return the radii of all attacks, AutoAttack too, smallest first."""
    found = set(configured(bench, norm))
    if norm == "linf":
        found |= {Threat.of_eps_255(eps) for eps in bench.config.attack.autoattack_eps_255}
    return sorted(found, key=lambda threat: threat.eps)


def key_of(name: str, threat: Threat) -> str:
    """Return the key of an attack's figure, such as attack/pgd-linf/eps_255=1."""
    return f"attack/{name}-{threat.norm}/{threat.setting}"


def _attacked(
    bench: Bench, indices: NDArray[np.int64]
) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
    """Return the attacked images in [0, 1], and their labels."""
    images = as_float(bench.data.images(indices))
    return images, torch.from_numpy(bench.data.labels[indices])


def _clean_part(bench: Bench, indices: NDArray[np.int64]) -> Part:
    """Return the part that measures the attacked images as they are."""

    def measure() -> Measured:
        right = right_at(bench.subject, bench.data, indices)
        return [mean_of(CLEAN, right)], {CLEAN: right, "attack/index": torch.from_numpy(indices)}

    settings = {"attack_images": bench.config.attack_images}
    return Part(CLEAN_PART, len(indices), settings, measure)


def _still_right(bench: Bench, key: str, images: int) -> int:
    """Return how many of `images` may be attacked: all, or those right in a part before."""
    right = bench.arrays.get(key, bench.arrays.get(CLEAN))
    return images if right is None else int(right[:images].sum())


def _settings(bench: Bench, ladder: list[Threat]) -> dict[str, Any]:
    options = asdict(bench.config.attack)
    attack = {key: value for key, value in options.items() if key not in _OF_OTHER_PARTS}
    return {
        "attack_images": bench.config.attack_images,
        "attack": attack,
        "ladder": [threat.setting for threat in ladder],
    }


def _steps(norm: Norm, config: AttackConfig) -> dict[str, int]:
    """Return the gradients that each attack of a norm takes of an image that withstands."""
    apgd_steps = config.apgd_steps * config.apgd_restarts
    pgd_steps = config.pgd_steps * config.pgd_restarts
    return {name: pgd_steps if name == "pgd" else apgd_steps for name in attacks_on(norm, config)}


def _threat_part(bench: Bench, indices: NDArray[np.int64], ladder: list[Threat]) -> Part:
    """Return the part of the ladder's last threat; what fell on a lower rung is not attacked."""
    threat, config = ladder[-1], bench.config.attack

    def measure() -> Measured:
        x, y = _attacked(bench, indices)
        before = None
        if len(ladder) > 1:
            names = attacks_on(threat.norm, config)
            before = {name: bench.arrays[key_of(name, ladder[-2])].bool() for name in names}
        correct = robust_accuracy(bench.subject, x, y, threat, config, before=before)
        arrays = {key_of(name, threat): right.float() for name, right in correct.items()}
        measurements = [mean_of(key, right) for key, right in arrays.items()]
        return measurements, arrays | {"attack/index": torch.from_numpy(indices)}

    steps = _steps(threat.norm, config)

    def outlook() -> int:
        found = 0
        for name, count in steps.items():
            known = [key for at in ladder[:-1] if (key := key_of(name, at)) in bench.arrays]
            found += count * _still_right(bench, known[-1] if known else CLEAN, len(indices))
        return BACKWARD * found

    passes = BACKWARD * sum(steps.values()) * len(indices)
    name = f"attacks/{threat.norm}-{threat.setting}"
    return Part(name, passes, _settings(bench, ladder), measure, outlook)


def _check_part(bench: Bench, indices: NDArray[np.int64], ladder: list[Threat]) -> Part:
    """Return the part that looks for signs that the attacks of a norm were weak."""
    config, norm, reference = bench.config.attack, ladder[0].norm, bench.reference

    def measure() -> Measured:
        x, y = _attacked(bench, indices)
        threat = threat_to_check(
            {at: {WORST: bench.arrays[key_of(WORST, at)].bool()} for at in ladder}
        )
        reasons: list[str] = []
        anew: list[Measurement] = []
        arrays: dict[str, Tensor] = {}
        if threat is not None:
            correct, used = bench.arrays[key_of(WORST, threat)].bool(), config
            weak = stronger_attack(bench.subject, x, y, threat, correct=correct, config=used)
            if weak:
                note = f"{weak}: these figures are of all {len(y)} by that stronger attack"
                used = strengthened(config)
                arrays = _attacked_anew(bench, x, y, ladder, used)
                anew = [replace(mean_of(key, right), note=note) for key, right in arrays.items()]
                correct = arrays[key_of(WORST, threat)].bool()
                weak = stronger_attack(bench.subject, x, y, threat, correct=correct, config=used)
            reasons = masking_reasons(
                bench.subject, x, y, threat, correct=correct, config=used, reference=reference
            )
            reasons += [f"the attack was too weak: {weak}"] if weak else []
        count = float(len(reasons))
        found = Measurement(f"{CHECK}{norm}", count, (count, count), len(y), "; ".join(reasons))
        return [found, *anew], arrays

    settings = _settings(bench, ladder) | {
        "check_images": config.check_images,
        "check_margin": config.check_margin,
        "reference": None if reference is None else fingerprint(reference),
    }
    # Five times the steps of three starts, on the half that is still right.
    checked = min(config.check_images, len(indices))
    each = BACKWARD * 15 * sum(_steps(norm, config).values())

    def outlook() -> int:
        half = each * _still_right(bench, CLEAN, checked) // 2
        keys = {at: key_of(WORST, at) for at in ladder}
        if not set(keys.values()) <= bench.arrays.keys():
            return half
        at = threat_to_check({at: {WORST: bench.arrays[key].bool()} for at, key in keys.items()})
        return 0 if at is None else min(half, each * _still_right(bench, keys[at], checked))

    return Part(f"attacks/check-{norm}", each * checked // 2, settings, measure, outlook)


def _attacked_anew(
    bench: Bench, x: Tensor, y: Tensor, ladder: list[Threat], stronger: AttackConfig
) -> dict[str, Tensor]:
    """Return which images are still right after stronger attacks too, of every radius."""
    arrays: dict[str, Tensor] = {}
    smaller: Mapping[str, Tensor] = {}
    for threat in ladder:
        before = {
            name: bench.arrays[key_of(name, threat)].bool() & smaller.get(name, y >= 0)
            for name in attacks_on(threat.norm, stronger)
        }
        smaller = robust_accuracy(bench.subject, x, y, threat, stronger, before=before)
        arrays |= {key_of(name, threat): right.float() for name, right in smaller.items()}
    return arrays


def _autoattack_part(bench: Bench, indices: NDArray[np.int64], threat: Threat) -> Part:
    config = bench.config.attack
    folder = None if bench.folder is None else bench.folder / PARTS_NAME / "autoattack"

    def measure() -> Measured:
        x, y = _attacked(bench, indices)
        found = auto_attack(
            bench.subject,
            x,
            y,
            threat,
            seed=config.seed,
            batch_size=config.batch_size,
            folder=folder,
            fingerprint=bench.fingerprint,
        )
        key, right = key_of("autoattack", threat), found.correct.float()
        measured = mean_of(key, right, "; ".join(found.reasons))
        return [measured], {key: right, "attack/index": torch.from_numpy(indices)}

    settings = {"attack_images": bench.config.attack_images, "batch_size": config.batch_size}

    def outlook() -> int:
        return _AUTOATTACK_PASSES * _still_right(bench, CLEAN, len(indices))

    passes = _AUTOATTACK_PASSES * len(indices)
    return Part(f"attacks/autoattack-{threat.setting}", passes, settings, measure, outlook)


def _cw_part(bench: Bench, indices: NDArray[np.int64]) -> Part:
    config = bench.config.attack

    def measure() -> Measured:
        x, y = _attacked(bench, indices)
        found = cw_l2(
            bench.subject,
            x,
            y,
            steps=config.cw_steps,
            searches=config.cw_searches,
            batch_size=config.batch_size,
        )
        median = _median("attack/cw-l2/median_l2", found.distance)
        arrays = {
            "attack/cw-l2/distance": found.distance,
            "attack/index": torch.from_numpy(indices),
        }
        return [median], arrays

    settings = {
        "attack_images": bench.config.attack_images,
        "cw_steps": config.cw_steps,
        "cw_searches": config.cw_searches,
        "batch_size": config.batch_size,
    }
    each = BACKWARD * config.cw_steps * config.cw_searches

    def outlook() -> int:
        return each * _still_right(bench, CLEAN, len(indices))

    return Part("attacks/cw-l2", each * len(indices), settings, measure, outlook)


def _median(key: str, values: Float[Tensor, " batch"]) -> Measurement:
    """Return the (lower) median with its 95 % bootstrap interval over images.

    An image for which nothing was found counts as farther than all others.
    """
    ranked = np.sort(values.double().numpy())
    middle = (len(ranked) - 1) // 2
    # The places of the resamples' medians, for a sum of infinities is no number.
    places = bootstrap(len(ranked), lambda picks: np.sort(picks, axis=1)[:, middle])
    low, high = np.quantile(places, [0.025, 0.975], method="nearest")
    interval = (float(ranked[low]), float(ranked[high]))
    return Measurement(key, float(ranked[middle]), interval, len(ranked))
