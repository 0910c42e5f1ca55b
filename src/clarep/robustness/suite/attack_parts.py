"""The suite's attacks: a part for every radius, for the checks of each norm, CW and AutoAttack."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep.engine.statistics import bootstrap
from clarep.robustness.attacks.curves import (
    WORST,
    attacks_on,
    robust_accuracy,
    threat_to_check,
    threats,
)
from clarep.robustness.attacks.cw import cw_l2
from clarep.robustness.attacks.masking import masking_reasons, strengthened, stronger_attack
from clarep.robustness.attacks.shapes import Values
from clarep.robustness.attacks.standard import auto_attack
from clarep.robustness.attacks.threat import NORMS, Norm, Threat
from clarep.robustness.evaluation import Measured, Measurement, mean_of
from clarep.robustness.suite.suite_inputs import BACKWARD, Part, SuiteInputs
from clarep.robustness.tested_student import Subject, as_float, fingerprint, right_at

CLEAN = "attack/clean"
"""Key of the accuracy of the attacked images as they are: where every curve begins."""
CLEAN_PART = "attacks/clean"
AUTOATTACK = "attack/autoattack-"
"""Beginning of its keys; what follows is a batch's number in the arrays of a part alone."""
_AUTOATTACK_PASSES = 10_000  # of an image that withstands, about
_OF_OTHER_PARTS = ("eps_255", "eps_l2", "cw", "autoattack_eps_255", "check_images", "check_margin")

Arrays = Mapping[str, Tensor]


def attack_parts(inputs: SuiteInputs) -> list[Part]:
    """Return the attacks that are configured, weakest first, and the checks of each norm."""
    config, attacks = inputs.config.attack, _Attacks(inputs)
    parts: list[Part] = []
    for norm in NORMS:
        ladder = configured(inputs, norm) if attacks_on(norm, config) else []
        parts += [attacks.radius(ladder[: i + 1]) for i in range(len(ladder))]
        if ladder and config.check_images:
            parts.append(attacks.checks(ladder))
    if config.cw:
        parts.append(attacks.nearest())
    for eps_255 in sorted(set(config.autoattack_eps_255)):
        parts += attacks.autoattack(Threat.of_eps_255(eps_255))
    return [attacks.clean(), *parts] if parts else []


def configured(inputs: SuiteInputs, norm: Norm) -> list[Threat]:
    """Return the radii of our own attacks, smallest first."""
    height, width, channels = inputs.data.read(0).shape
    return threats(norm, inputs.config.attack, (channels, height, width))


def radii(inputs: SuiteInputs, norm: Norm) -> list[Threat]:
    """Return the radii of all attacks, AutoAttack too, smallest first."""
    found = set(configured(inputs, norm))
    if norm == "linf":
        found |= {Threat.of_eps_255(eps) for eps in inputs.config.attack.autoattack_eps_255}
    return sorted(found, key=lambda threat: threat.eps)


def key_of(name: str, threat: Threat) -> str:
    """Return the key of an attack's figure, such as attack/pgd-linf/eps_255=1."""
    return f"attack/{name}-{threat.norm}/{threat.setting}"


class _Attacks:
    """Builds the parts, all on the same images."""

    def __init__(self, inputs: SuiteInputs) -> None:
        self.inputs, self.config = inputs, inputs.config.attack
        # The checks take the first ones: in the order of the data these might be of one class.
        rng = np.random.default_rng(inputs.config.seed)
        self.indices = rng.permutation(inputs.choose(inputs.config.attack_images))

    def _part(
        self,
        name: str,
        cost: int | Callable[[Arrays], int],
        measure: Callable[[], Measured],
        *keys: str,
        after: Sequence[Threat] = (),
        **settings: Any,
    ) -> Part:
        settings = {"attack_images": self.inputs.config.attack_images, **settings}
        ladder = tuple(f"attacks/{at.norm}-{at.setting}" for at in after)
        return Part(f"attacks/{name}", cost, settings, measure, keys, ladder)

    def _images(self, of: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the attacked images in [0, 1], and their labels."""
        images = as_float(self.inputs.data.images(self.indices[of]))
        return images, torch.from_numpy(self.inputs.data.labels[self.indices[of]])

    def _left(self, arrays: Arrays, *keys: str, of: slice = slice(None)) -> int:
        """Return how many images are attacked: those right in the last of `keys` that is known."""
        known = [arrays[key] for key in (CLEAN, *keys) if key in arrays]
        return int(known[-1][of].sum()) if known else len(self.indices[of])

    def _steps(self, norm: Norm) -> dict[str, int]:
        """Return the gradients that each attack of a norm takes of an image that withstands."""
        config = self.config
        pgd, apgd = config.pgd_steps * config.pgd_restarts, config.apgd_steps * config.apgd_restarts
        return {name: pgd if name == "pgd" else apgd for name in attacks_on(norm, config)}

    def _strength(self, ladder: list[Threat]) -> dict[str, Any]:
        options = asdict(self.config)
        attack = {key: value for key, value in options.items() if key not in _OF_OTHER_PARTS}
        return {"attack": attack, "ladder": [threat.setting for threat in ladder]}

    def clean(self) -> Part:
        """Return the part that measures the attacked images as they are."""

        def measure() -> Measured:
            right = right_at(self.inputs.subject, self.inputs.data, self.indices)
            arrays = {CLEAN: right, "attack/index": torch.from_numpy(self.indices)}
            return Measured([mean_of(CLEAN, right)], arrays)

        return self._part("clean", len(self.indices), measure, CLEAN)

    def radius(self, ladder: list[Threat]) -> Part:
        """Return the part of the ladder's last threat; what fell on a lower rung is left alone."""
        threat, below = ladder[-1], ladder[:-1]

        def measure() -> Measured:
            x, y = self._images()
            before = self._right(below[-1]) if below else None
            correct = robust_accuracy(self.inputs.subject, x, y, threat, self.config, before=before)
            return _accuracies(threat, correct)

        def cost(arrays: Arrays) -> int:
            return BACKWARD * sum(
                steps * self._left(arrays, *(key_of(name, at) for at in below))
                for name, steps in self._steps(threat.norm).items()
            )

        named = (*attacks_on(threat.norm, self.config), WORST)
        keys = [key_of(attack, threat) for attack in named]
        name, strength = f"{threat.norm}-{threat.setting}", self._strength(ladder)
        return self._part(name, cost, measure, *keys, after=below, **strength)

    def _right(self, threat: Threat) -> dict[str, Tensor]:
        """Return which images each attack, and all of them, left right at a measured radius."""
        names = (*attacks_on(threat.norm, self.config), WORST)
        return {name: self.inputs.arrays[key_of(name, threat)].bool() for name in names}

    def checks(self, ladder: list[Threat]) -> Part:
        """Return the part that looks for signs that the attacks of a norm were weak."""
        config, norm, reference = self.config, ladder[0].norm, self.inputs.reference

        def measure() -> Measured:
            threat = threat_to_check({at: self._right(at) for at in ladder})
            if threat is None:
                return Measured([], {})
            return self._checked(ladder, threat)

        checked = min(config.check_images, len(self.indices))
        # Five times the steps of three starts, on the half that is still right.
        each = BACKWARD * 15 * sum(self._steps(norm).values()) // 2
        return self._part(
            f"masking-{norm}",
            lambda arrays: each * self._left(arrays, of=slice(checked)),
            measure,
            after=ladder,
            **self._strength(ladder),
            check_images=config.check_images,
            check_margin=config.check_margin,
            reference=None if reference is None else fingerprint(reference),
        )

    def _checked(self, ladder: list[Threat], threat: Threat) -> Measured:
        """Check at one threat; where more steps fool more, attack anew at all and check again."""
        subject, config, correct = self.inputs.subject, self.config, self._right(threat)[WORST]
        reference = self.inputs.reference
        x, y = self._images()
        found = Measured([], {})
        weak = stronger_attack(subject, x, y, threat, correct=correct, config=config)
        if weak:
            note = f"{weak}: these figures are of all {len(y)} by that stronger attack"
            config = strengthened(config)
            before: Mapping[str, Tensor] = {}
            for at in ladder:
                fell = {
                    name: right & before.get(name, y >= 0)
                    for name, right in self._right(at).items()
                }
                before = robust_accuracy(subject, x, y, at, config, before=fell)
                anew = _accuracies(at, before)
                found.measurements.extend(replace(one, note=note) for one in anew.measurements)
                found.arrays.update(anew.arrays)
            correct = found.arrays[key_of(WORST, threat)].bool()
            weak = stronger_attack(subject, x, y, threat, correct=correct, config=config)
        reasons = masking_reasons(
            *(subject, x, y, threat),
            correct=correct,
            config=config,
            reference=None if reference is None else Subject(reference).eval(),
        )
        reasons += [f"the attack was too weak: {weak}"] if weak else []
        return found._replace(doubts={f"attack/*-{threat.norm}/*": "; ".join(reasons)})

    def nearest(self) -> Part:
        """Return the part of CW."""
        config = self.config
        steps, searches, size = config.cw_steps, config.cw_searches, config.batch_size
        key = "attack/cw-l2/median_l2"

        def measure() -> Measured:
            x, y = self._images()
            found = cw_l2(
                self.inputs.subject, x, y, steps=steps, searches=searches, batch_size=size
            )
            median = _median(key, found.distance)
            return Measured([median], {"attack/cw-l2/distance": found.distance})

        return self._part(
            "cw-l2",
            lambda arrays: BACKWARD * steps * searches * self._left(arrays),
            measure,
            key,
            cw_steps=steps,
            cw_searches=searches,
            batch_size=size,
        )

    def autoattack(self, threat: Threat) -> list[Part]:
        """Return AutoAttack's parts at one radius: one a batch, since each takes minutes."""
        size, key = self.config.batch_size, key_of("autoattack", threat)

        def part(i: int) -> Part:
            batch, seed = slice(i * size, (i + 1) * size), (self.config.seed + i) % 2**32

            def measure() -> Measured:
                subject = self.inputs.subject
                x, y = (part.to(subject.device) for part in self._images(batch))
                found = auto_attack(subject, x, y, threat, seed=seed, batch_size=size)
                correct = found.correct.float().cpu()
                return Measured([], {f"{key}/{i}": correct}, {key: "; ".join(found.reasons)})

            return self._part(
                f"autoattack-{threat.setting}/{i}",
                lambda arrays: _AUTOATTACK_PASSES * self._left(arrays, of=batch),
                measure,
                key,
                batch_size=size,
            )

        return [part(i) for i in range(-(-len(self.indices) // size))]


def _accuracies(threat: Threat, correct: Mapping[str, Tensor]) -> Measured:
    """Return the accuracy under every attack at a threat."""
    arrays = {key_of(name, threat): right.float() for name, right in correct.items()}
    return Measured([mean_of(key, right) for key, right in arrays.items()], arrays)


def _median(key: str, values: Values) -> Measurement:
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
