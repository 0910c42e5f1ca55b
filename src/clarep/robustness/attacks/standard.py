"""Standard AutoAttack (Croce & Hein 2020) by pyautoattack."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.engine.bounds import check_seed
from clarep.engine.extras import require_extra
from clarep.errors import UserError
from clarep.robustness.attacks.passes import (
    BATCH,
    Model,
    accepted,
    answered,
    check_counts,
    evaluating,
    logits_of,
    still_right,
)
from clarep.robustness.attacks.shapes import Batch, Classes, Marks
from clarep.robustness.attacks.threat import Threat

_NORMS = {"linf": "Linf", "l2": "L2"}
_FEWEST_CLASSES = 4  # the targeted DLR loss compares four logits
_TARGETS = 9
_LOGGER = "auto-attack"


class Standard(NamedTuple):
    """What `auto_attack` found."""

    x_adv: Batch
    """The images that fool; the image itself where none was found."""
    correct: Marks
    """Which images are still right."""
    reasons: list[str]
    """What the library's own checks found to speak against its figures; empty if nothing."""


def auto_attack(
    model: Model, x: Images, y: Labels, threat: Threat, *, seed: int = 0, batch_size: int = BATCH
) -> Standard:
    """Run APGD-CE, targeted APGD and FAB, and Square, each on what the ones before left right.

    Each batch of `batch_size` has a seed of its own, from `seed` on. Raises UserError without the
    extra [attacks], or for fewer than four classes.
    """
    library = require_extra("pyautoattack", "attacks")
    check_counts(batch_size=batch_size)
    check_seed(seed)
    x, y = accepted(model, x, y, threat)
    if threat.eps == 0:
        return Standard(x.clone(), still_right(model, x, y, batch_size), [])
    classes = logits_of(model, x[:1]).shape[1]
    if classes < _FEWEST_CLASSES:
        raise UserError(
            f"standard AutoAttack needs {_FEWEST_CLASSES} classes or more and the model has "
            f"{classes}: use apgd-ce"
        )
    parts = [
        _attack(library, model, x[at], y[at], threat, seed=seed + i, classes=classes)
        for i, at in enumerate(torch.arange(len(x)).split(batch_size))
    ]
    reasons = dict.fromkeys(reason for part in parts for reason in part.reasons)
    x_adv = torch.cat([part.x_adv for part in parts])
    return Standard(x_adv, torch.cat([part.correct for part in parts]), list(reasons))


def _attack(
    library: Any, model: Model, x: Batch, y: Classes, threat: Threat, *, seed: int, classes: int
) -> Standard:
    """Attack one batch; what the library returns is held to the threat and looked at again."""

    def answer(found: Tensor) -> Tensor:  # the library works in single precision
        return answered(model, found.to(x.dtype)).float()

    norm = _NORMS[threat.norm]
    with evaluating(model), _contained(x.device) as reasons:
        attack = library.AutoAttack(answer, device=x.device, eps=threat.eps, norm=norm, seed=seed)
        targets = min(_TARGETS, classes - 1)
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        found, _ = attack.run_standard_evaluation(x.float(), y, batch_size=len(x))
    x_adv = threat.project(found.detach().to(x), x)
    correct = still_right(model, x_adv, y, len(x))
    return Standard(torch.where(correct.view(-1, 1, 1, 1), x, x_adv), correct, reasons)


@contextmanager
def _contained(device: torch.device) -> Iterator[list[str]]:
    """Yield the list that the library's warnings go to; undo what it does to the process.

    It seeds torch's own generators, sets a trace function and logs its doubts.
    """
    logger, tracer, reasons = logging.getLogger(_LOGGER), sys.gettrace(), []

    def keep(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            text = record.getMessage().split(" See flags_doc.md")[0]
            reasons.append(f"AutoAttack: {' '.join(text.split())}")
        return False

    logger.addFilter(keep)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield reasons
    finally:
        sys.settrace(tracer)
        logger.removeFilter(keep)
