"""From a labelled data set to a stored canonical set: choose, compute by shards, go on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clarep.clarid.canonical_set import CanonicalSetWriter
from clarep.clarid.clarid import CLARep, Clarid
from clarep.clarid.diffusion_classifier import recognise
from clarep.clarid.round_trip import autoencoder_psnr
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.artefacts import Progressed
from clarep.engine.cost import Ledger
from clarep.engine.seeds import check_seed

SHARD_SIZE = 50


def identify(
    clarid: Clarid,
    data: LabelledImages,
    chosen: NDArray[np.int64],
    described: dict[str, Any],
    folder: Path,
    *,
    seed: int,
    shard_size: int = SHARD_SIZE,
) -> Iterator[Progressed]:
    """Compute the CLAReps of the chosen images into `folder`, yielding after each shard.

    A folder that holds a part of the same set is gone on with, and ends with the same bytes.
    Before the first shard, the manifest's `findings` tell whether the teacher knows the images'
    classes (`recognition`) and what its autoencoder alone gives (`autoencoder_psnr_median`).

    Args:
        clarid: teacher and setting.
        data, chosen: the images, as indices into the data set.
        described: what the caller knows of teacher and data; it enters the manifest's
            configuration and so the check that a folder holds the same set. JSON values.
        folder: of the canonical set.
        seed: of the solver; each batch adds its first image's index.
        shard_size: images a shard.

    Raises:
        UserError: if the seed is no seed, an image or label does not fit the teacher, or the
            folder holds another configuration or a damaged shard.
    """
    check_seed(seed)
    images, labels = _load(data, chosen[:4])
    clarid.teacher.accept_images(images)
    clarid.teacher.check_labels(torch.from_numpy(data.labels[chosen]))
    clarid.ledger = Ledger()  # what settling k costs is the first shard's
    if clarid.num_dirs is None and clarid.config.kind != "none":
        clarid.resolve_k(clarid.invert(images, labels)[0], labels)
    config = described | {
        "clarid": asdict(clarid.config),
        "sigma_te": clarid.sigma_te,
        "tap": clarid.tap,
        "num_dirs": 0 if clarid.config.kind == "none" else clarid.num_dirs,
        "seed": seed,
        "shard_size": shard_size,
        "teacher_sha256": clarid.teacher.fingerprint,
        "class_names": list(clarid.teacher.class_names),
        "chosen": chosen.tolist(),
    }
    writer = CanonicalSetWriter(folder, config, chosen.tolist(), shard_size)
    if writer.findings is None:
        writer.record(_findings(clarid, data, chosen, seed))
    missing = list(writer.missing())
    done = len(chosen) - sum(len(group) for _, group in missing)
    yield Progressed(done, 0, len(chosen))
    for name, group in missing:
        size = clarid.config.batch_size
        parts = [group[i : i + size] for i in range(0, len(group), size)]
        reps = [rep for part in parts for rep in _compute(clarid, data, part, seed)]
        writer.add(name, reps, _cost(clarid))
        clarid.ledger = Ledger()
        done += len(group)
        yield Progressed(done, len(group), len(chosen))


def _findings(
    clarid: Clarid, data: LabelledImages, chosen: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return, as JSON values, what speaks for or against the teacher of these images.

    recognition: of a few of them; None for a teacher of one class. autoencoder_psnr_median: in dB,
    of all of them encoded and decoded, the floor of the round trips; None for a pixel teacher.
    """
    size, teacher, floors = clarid.config.batch_size, clarid.teacher, list[torch.Tensor]()
    known = recognise(teacher, data, chosen, seed=seed, batch_size=size)
    for start in range(0, len(chosen), size):
        images, _ = _load(data, chosen[start : start + size])
        floors.append(autoencoder_psnr(teacher, images))
        if floors[0].isinf().all():  # a pixel teacher's, which loses nothing
            break
    floor = float(torch.cat(floors).quantile(0.5))
    return {
        "recognition": None if known is None else known.as_dict(),
        "autoencoder_psnr_median": floor if math.isfinite(floor) else None,
    }


def _load(
    data: LabelledImages, indices: Sequence[int] | NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    array = np.asarray(indices, dtype=np.int64)
    return to_unit_range(data.images(array)), torch.from_numpy(data.labels[array])


def _cost(clarid: Clarid) -> dict[str, Any]:
    """Return the ledger so far, and what a shard's rounding depends on beside its setting."""
    where = {"device": str(clarid.teacher.device), "engine": clarid.engine}
    return clarid.ledger.as_dict() | where


def _compute(clarid: Clarid, data: LabelledImages, part: Sequence[int], seed: int) -> list[CLARep]:
    images, labels = _load(data, part)
    return clarid(images, labels, indices=list(part), seed=seed + part[0])
