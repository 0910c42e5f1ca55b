"""Standard AutoAttack (Croce & Hein 2020) by pyautoattack, batch by batch, to be gone on with."""

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.engine.artefacts import parse_json
from clarep.engine.extras import require_extra
from clarep.engine.seeds import check_seed
from clarep.engine.tensors import read_tensors, save_tensors
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
from clarep.robustness.attacks.threat import Threat

_NORMS = {"linf": "Linf", "l2": "L2"}
_FEWEST_CLASSES = 4  # the targeted DLR loss compares four logits
_TARGETS = 9
_LOGGER = "auto-attack"


class Standard(NamedTuple):
    """What `auto_attack` found."""

    x_adv: Float[Tensor, "batch c h w"]
    """The images that fool; the image itself where none was found."""
    correct: Bool[Tensor, " batch"]
    """Which images are still right."""
    reasons: list[str]
    """What the library's own checks found to speak against its figures; empty if nothing."""


def auto_attack(
    model: Model,
    x: Images,
    y: Labels,
    threat: Threat,
    *,
    seed: int = 0,
    batch_size: int = BATCH,
    folder: Path | None = None,
    fingerprint: str = "",
) -> Standard:
    """Run APGD-CE, targeted APGD and FAB, and Square, each on what the ones before left right.

    Args:
        model: images in [0, 1] -> logits of four classes or more.
        x: images in [0, 1].
        y: true labels.
        threat: how far an image may be changed.
        seed: of everything random.
        batch_size: images that are attacked together; what a kill can cost.
        folder: where finished batches are stored; the next call with the same model, images,
            threat, seed and batch size reads them. None stores nothing.
        fingerprint: what tells the model from others, such as its weights' SHA-256; needed with
            `folder`.

    Raises:
        UserError: without the extra [attacks], for fewer than four classes, or a folder without a
            fingerprint.
    """
    library = require_extra("pyautoattack", "attacks")
    check_counts(batch_size=batch_size)
    check_seed(seed)
    if folder is not None and not fingerprint:
        raise UserError("stored AutoAttack batches need the model's fingerprint: give its SHA-256")
    x, y = accepted(model, x, y, threat)
    if threat.eps == 0:
        return Standard(x.clone(), still_right(model, x, y, batch_size), [])
    classes = logits_of(model, x[:1]).shape[1]
    if classes < _FEWEST_CLASSES:
        raise UserError(
            f"standard AutoAttack needs {_FEWEST_CLASSES} classes or more and the model has "
            f"{classes}: use apgd-ce"
        )
    parts = []
    for i, at in enumerate(torch.arange(len(x)).split(batch_size)):
        key = _key(x[at], y[at], threat, seed + i, fingerprint)
        path = None if folder is None else folder / f"autoattack-{key[:16]}.safetensors"
        part = None if path is None else _stored(path, key)
        if part is None:
            part = _attack(library, model, x[at], y[at], threat, seed=seed + i, classes=classes)
            if path is not None:
                tensors = {"x_adv": part.x_adv.cpu(), "correct": part.correct.cpu()}
                save_tensors(path, tensors, {"key": key, "reasons": json.dumps(part.reasons)})
        parts.append(part)
    reasons = dict.fromkeys(reason for part in parts for reason in part.reasons)
    x_adv = torch.cat([part.x_adv.to(x) for part in parts])
    return Standard(x_adv, torch.cat([part.correct.to(y.device) for part in parts]), list(reasons))


def _attack(
    library: Any,
    model: Model,
    x: Float[Tensor, "batch c h w"],
    y: Int[Tensor, " batch"],
    threat: Threat,
    *,
    seed: int,
    classes: int,
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


def _key(x: Tensor, y: Tensor, threat: Threat, seed: int, fingerprint: str) -> str:
    """Return what a stored batch is known by: model, images, labels, threat and seed."""
    settings = [fingerprint, threat.norm, repr(threat.eps), seed, list(x.shape)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for tensor in (x, y):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stored(path: Path, key: str) -> Standard | None:
    """Return a stored batch; None if there is none, or a damaged one."""
    try:
        tensors, found = read_tensors(path, "a batch of attacks")
        if found.get("key") != key:
            return None
        return Standard(tensors["x_adv"], tensors["correct"], parse_json(found["reasons"]))
    except (UserError, ValueError, LookupError):
        return None
