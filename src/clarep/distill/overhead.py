"""What methods cost over plain training of the same student, epoch beside epoch in one run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clarep.audit.audit import Audit, EvidenceTargets
from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.class_balance import class_balanced_choice
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.distill.distill_config import DistillConfig
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.train_state import GIGAOPS

_FEATURES = (160, 4, 4)  # of the bundled teacher at its middle


def synthetic_set(data: LabelledImages, fraction: float, seed: int) -> CanonicalSet:
    """Return a set of the shapes of a real one: images of the data, features of noise.

    What a step costs does not depend on what the numbers say.
    """
    chosen = class_balanced_choice(data.labels, fraction, seed)
    generator = torch.Generator().manual_seed(seed)
    config = {
        "teacher_sha256": "none: synthetic",
        "class_names": list(data.class_names),
        "clarid": {"kind": "top", "guidance": 3.0},
        "chosen": chosen.tolist(),
        "data_sha256": data.sha256(chosen),
    }
    images = to_unit_range(data.images(chosen))
    return CanonicalSet(
        index=torch.from_numpy(chosen),
        label=torch.from_numpy(data.labels[chosen]),
        x_te=images,
        latent=images,
        singular_values=torch.zeros(len(chosen), 0),
        features=torch.randn(len(chosen), *_FEATURES, generator=generator),
        sample=images,
        round_trip_psnr=torch.zeros(len(chosen)),
        config=config,
        folder=Path("synthetic"),
        manifest={"config": config, "shards": []},
    )


def synthetic_audit(data: LabelledImages, fraction: float, seed: int) -> Audit:
    """Return an audit of the shapes of a real one, all of noise.

    fraction: of every class, which has class evidence.
    """
    chosen = class_balanced_choice(data.labels, fraction, seed)
    generator = torch.Generator().manual_seed(seed)
    labels, classes = torch.from_numpy(data.labels), len(data.class_names)
    shape = data.images([0]).shape[1:]
    evidence = torch.randn(len(chosen), classes + 1, *shape, generator=generator).half()
    config = {"audit": {}, "data_sha256": data.sha256(np.arange(len(data)))}
    return Audit(
        folder=Path("synthetic"),
        manifest={"config": config, "files": {}},
        index=torch.arange(len(data)),
        labels=labels,
        tried=(labels[:, None] + torch.arange(classes)) % classes,
        errors=torch.rand(1, 1, len(data), classes, generator=generator),
        masks=torch.rand(len(data), *shape[1:], generator=generator) < 0.5,
        targets=EvidenceTargets(torch.from_numpy(chosen), evidence),
    )


def time_epochs(
    data: LabelledImages, methods: Sequence[str], config: DistillConfig, folder: Path, **parts: Any
) -> Iterator[dict[str, Any]]:
    """Train by all methods in turn, an epoch each, yielding method and record of each epoch.

    config: its epochs are those timed; one more goes before, to warm up. folder: an empty one.
    parts: the other arguments of `StudentRun`, of which each method takes its own.
    """
    config = replace(config, epochs=config.epochs + 1, validation_share=0.0, pick="last")
    runs = {
        method: StudentRun(data, folder / method, method=method, config=config, **parts).records()
        for method in methods
    }
    for _ in range(config.epochs):
        for method, records in runs.items():
            yield {"method": method} | next(records)
    for records in runs.values():
        records.close()


def summarise(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of each method over the epochs after the first, and each overhead's range.

    The overhead of an epoch is a method's seconds over those of the vanilla epoch before it, and
    `counted` that of the operations, whatever else the machine does.
    """
    summary: dict[str, Any] = {}
    seconds = {}
    for method in dict.fromkeys(one["method"] for one in epochs):
        timed = [one for one in epochs if one["method"] == method and one["epoch"] > 1]
        seconds[method] = np.array([one["seconds"] for one in timed])
        summary[method] = {
            name: float(np.median([one[name] for one in timed]))
            for name in ("seconds", "images_per_s", "loader_share", GIGAOPS)
        }
    plain = seconds.pop("vanilla")
    for method, own in seconds.items():
        found = own / plain
        whole = {"median": np.median(found), "lowest": found.min(), "highest": found.max()}
        counted = summary[method][GIGAOPS] / summary["vanilla"][GIGAOPS]
        summary[method]["overhead"] = {name: float(value) for name, value in whole.items()}
        summary[method]["overhead"] |= {"counted": counted}
    return summary
