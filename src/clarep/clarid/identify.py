"""From a labelled data set to a stored canonical set: choose, compute by shards, go on."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clarep.clarid.canonical_set import CanonicalSet, CanonicalSetWriter
from clarep.clarid.canonical_shards import find_manifest, whole
from clarep.clarid.clarid import CLARep, Clarid
from clarep.clarid.clarid_config import AT_ONCE
from clarep.clarid.diffusion_classifier import recognise
from clarep.clarid.round_trip import autoencoder_psnr
from clarep.clarid.set_pictures import store_pictures
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.engine.artefacts import Progressed, as_read, differences
from clarep.engine.cost import Ledger
from clarep.engine.identity import recorded
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

    A folder that holds a part of the same set is gone on with, and ends with the same bytes. The
    set is told by the content of its images and labels and of its teacher, wherever these were
    found. How much goes through the teacher at once (batch_size, memory_mb) may change on the way:
    each shard's entry in the manifest tells its own.
    Before the first shard, the manifest's `findings` tell whether the teacher knows the images'
    classes (`recognition`) and what its autoencoder alone gives (`autoencoder_psnr_median`). After
    the last, what pictures of the set need is stored beside the shards (`set_pictures`).

    Args:
        clarid: teacher and setting.
        data, chosen: the images, as indices into the data set.
        described: what the caller knows of teacher and data; it enters the manifest's
            configuration. JSON values.
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
    setting = recorded(clarid.config)
    config = described | {
        "clarid": {name: setting[name] for name in setting if name not in AT_ONCE},
        "sigma_te": clarid.sigma_te,
        "tap": clarid.tap,
        "seed": seed,
        "shard_size": shard_size,
        "teacher_sha256": clarid.teacher.fingerprint,
        "class_names": list(clarid.teacher.class_names),
        "chosen": chosen.tolist(),
        "data_sha256": data.sha256(chosen),
    }
    if clarid.num_dirs is None and clarid.config.kind != "none":
        clarid.num_dirs = _settled_before(folder, config)
        if clarid.num_dirs is None:
            clarid.resolve_k(clarid.invert(images, labels)[0], labels)
    config["num_dirs"] = 0 if clarid.config.kind == "none" else clarid.num_dirs
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
    store_pictures(clarid, data, CanonicalSet.load(folder))
    clarid.ledger = Ledger()


def _settled_before(folder: Path, config: dict[str, Any]) -> int | None:
    """Return the number of directions that a set of the same configuration was begun with, if any.

    Settled again, in another batch or on another device, it could be one more or less.
    """
    stored = (find_manifest(folder) or {}).get("config", {})
    found: int | None = stored.get("num_dirs")
    given = as_read(config | {"num_dirs": found})
    return None if differences(whole(stored), whole(given)) else found


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
    at_once = {name: getattr(clarid.config, name) for name in AT_ONCE}
    return clarid.ledger.as_dict() | where | at_once


def _compute(clarid: Clarid, data: LabelledImages, part: Sequence[int], seed: int) -> list[CLARep]:
    images, labels = _load(data, part)
    return clarid(images, labels, indices=list(part), seed=seed + part[0])
