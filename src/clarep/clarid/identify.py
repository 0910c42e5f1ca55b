"""From a labelled data set to a stored canonical set: choose, compute by shards, go on."""

import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clarep.clarid.canonical_set import CanonicalSet, CanonicalSetWriter, store_shard
from clarep.clarid.canonical_shards import find_manifest, whole
from clarep.clarid.clarid import Clarid
from clarep.clarid.diffusion_classifier import recognise
from clarep.clarid.product_choice import ENGINE_JVP, choose_engine_jvp, hold_to
from clarep.clarid.round_trip import autoencoder_psnr
from clarep.clarid.set_pictures import store_pictures
from clarep.clarid.told_images import read_images, refuse_changed, told, unread
from clarep.data.labelled import LabelledImages, fits_in_memory, in_memory, to_unit_range
from clarep.engine.artefacts import Progressed
from clarep.engine.bounds import check_seed
from clarep.engine.cost import Ledger
from clarep.engine.fan_out import LOCAL, EngineConfig, check_engine, fan_out
from clarep.engine.identity import differences, plain
from clarep.engine.places import Place, place_of
from clarep.errors import ClarepWarning, UserError, check_type
from clarep.teachers.classes_by_name import check_matched, strangers

SHARD_SIZE = 50
_FLOORS = 1_000  # images that tell the autoencoder's floor: one process alone asks it of them
Chosen = NDArray[np.int64] | Sequence[int] | None


@dataclass(frozen=True)
class _Shard:
    """One to be made, in whatever process."""

    name: str
    images: list[int]
    """Their indices in the data."""
    before: Ledger
    """What was spent before it, which counts as its own."""


@dataclass(frozen=True)
class _ShardMaker:
    """Makes shards and writes them, so that no tensors travel between processes."""

    clarid: Clarid
    data: LabelledImages
    folder: str
    """Of the set, or its address."""
    about: Mapping[str, Any]
    """What each shard tells of its set."""
    seed: int

    def __call__(self, shard: _Shard) -> int:
        """Make and write it; return how many images it holds."""
        clarid, size = self.clarid, self.clarid.config.batch_size
        clarid.ledger = shard.before
        parts = [shard.images[i : i + size] for i in range(0, len(shard.images), size)]
        reps, pixels = [], []
        for part in parts:
            pixels.append(read_images(self.data, part))
            seed, labels = self.seed + part[0], self.data.labels[part]
            reps.append(clarid(pixels[-1], labels, indices=part, seed=seed))
        cost = clarid.ledger.as_dict()  # beside it what the rounding depends on
        cost |= {"device": str(clarid.teacher.device), "engine": clarid.product_engine}
        cost |= {"batch_size": size, "memory_mb": clarid.memory.mb}
        cost["threads"] = torch.get_num_threads()
        labels = self.data.labels[shard.images]
        noted = {"cost": cost} | told(self.about["config"], torch.cat(pixels), labels)
        store_shard(place_of(self.folder), shard.name, self.about, reps, noted)
        return len(shard.images)


def identify(
    clarid: Clarid,
    data: LabelledImages,
    folder: Path | str,
    chosen: Chosen = None,
    *,
    seed: int = 0,
    shard_size: int = SHARD_SIZE,
    engine: EngineConfig = LOCAL,
) -> CanonicalSet:
    """Compute the CLAReps of images into a folder, with a progress bar; return the stored set.

    A folder that holds a part of the same set is gone on with, and ends with the same bytes.

    >>> import clarep, tempfile
    >>> data = clarep.load_data(clarep.DataConfig(data="backdrops"))
    >>> clarid = clarep.Clarid("backdrops", kind="random", k=8, steps=1, guidance=2.0)
    >>> clarep.identify(clarid, data, tempfile.mkdtemp(), [0, 1, 2]).latent.shape
    torch.Size([3, 3, 32, 32])

    Args:
        clarid: teacher and setting.
        data: where the images come from.
        folder: of the canonical set.
        chosen: indices of the images, such as `class_balanced_choice` gives; all without any.
        seed: of the solver; each batch adds its first image's index.
        shard_size: images a shard: what a kill can cost.
        engine: where shards are made; the set is the same wherever.

    Warns (ClarepWarning) where no class of the data is by name one of the teacher's.

    Raises:
        UserError: if an argument is of another type, the seed is no seed, an image or label does
            not fit the teacher, whose classes may stand in another order, or the folder holds
            another configuration or a damaged shard, and as `fan_out` does.
    """
    from clarep.engine.progress import progress

    steps = identify_steps(
        clarid, data, folder, chosen, seed=seed, shard_size=shard_size, engine=engine
    )
    start = next(steps)
    if said := strangers(clarid.teacher, data.class_names):
        warnings.warn(said, ClarepWarning, stacklevel=2)
    with progress("identify", "images", start.total, start.done) as advance:
        for step in steps:
            advance(step.new)
    return CanonicalSet.load(folder)


def identify_steps(
    clarid: Clarid,
    data: LabelledImages,
    folder: Path | str,
    chosen: Chosen = None,
    *,
    described: Mapping[str, Any] | None = None,
    noted: Mapping[str, Any] | None = None,
    seed: int = 0,
    shard_size: int = SHARD_SIZE,
    part: tuple[int, int] | None = None,
    engine: EngineConfig = LOCAL,
) -> Generator[Progressed, None, bool]:
    """Do as `identify`, yielding at the start and after each shard; return whether it closed it.

    The set is told by the content of its images and labels and of its teacher, wherever these were
    found. Images of over 1 GB are each read when their shard is made, and again by a run that
    finds it. How much goes through the teacher at once (batch_size, memory_mb) may change on the
    way: each shard's entry in the manifest tells its own.
    Before the first shard, the manifest's `findings` tell whether the teacher knows the images'
    classes (`recognition`) and what its autoencoder alone gives (`autoencoder_psnr_median`). After
    the last, what pictures of the set need is stored beside the shards (`set_pictures`).

    described: what the caller knows of teacher and data; it enters the manifest's configuration.
        JSON values.
    noted: what the caller found beforehand, such as why t and k are what they are; it stands among
        the findings of a set that is begun here. JSON values.
    part: I of N, from 1: of the shards every N-th is made here and other processes make the
        others; what is yielded counts this part's images. Whoever finds all shards there closes
        the set, one alone. A part that no shard is left for does nothing.
    """
    check_type("clarid", clarid, Clarid, "a Clarid, such as Clarid('backdrops')")
    check_type("data", data, LabelledImages, "what load_data gives")
    check_seed(seed)
    if isinstance(shard_size, bool) or not isinstance(shard_size, Integral) or shard_size < 1:
        raise UserError(f"`shard_size={shard_size!r}` is no count: give {SHARD_SIZE}, say")
    seed, shard_size = int(seed), int(shard_size)  # as they are recorded
    check_engine(engine, str(clarid.teacher.device))
    check_matched(clarid.teacher, data.class_names)
    place = place_of(folder)
    given = data.each_once(chosen)
    data, indices, _ = in_memory(data, skip_bad=False, chosen=given)
    clarid.teacher.accept_images(to_unit_range(data.images(indices[:1])))
    clarid.teacher.check_labels(torch.from_numpy(data.labels[indices]))
    clarid.ledger = Ledger()  # what settling k costs is the first shard's
    config = {**(described or {}), **clarid.describe(seed, shard_size)}
    content = data.sha256(indices) if fits_in_memory(data, indices) else unread(data, indices)
    config |= {"chosen": indices.tolist(), "data_sha256": content}
    if clarid.num_dirs is None and clarid.config.kind != "none":
        clarid.num_dirs = _settled_before(place, config)
        if clarid.num_dirs is None:
            few, labels = data.images(indices[:4]), data.labels[indices[:4]]
            clarid.resolve_k(clarid.invert(few, labels)[0], labels)
    config["num_dirs"] = 0 if clarid.config.kind == "none" else clarid.num_dirs
    writer = CanonicalSetWriter(folder, config, config["chosen"], shard_size, part)
    refuse_changed(writer.stored(), data)
    if not writer.images:
        yield Progressed(0, 0, 0)
        return False
    if writer.findings is None:
        found = {ENGINE_JVP: choose_engine_jvp(clarid, len(indices))}
        writer.record(_findings(clarid, data, indices, seed) | found | dict(noted or {}))
    batch = min(clarid.config.batch_size, shard_size, len(indices))
    hold_to(clarid, writer.findings or {}, batch)
    missing = list(writer.missing())
    total = writer.images
    done = total - sum(len(group) for _, group in missing)
    yield Progressed(done, 0, total)
    spent = [clarid.ledger, *(Ledger() for _ in missing)]
    tasks = [_Shard(*shard, before) for shard, before in zip(missing, spent, strict=False)]
    maker = _ShardMaker(clarid, data, str(place), writer.about, seed)
    for new in fan_out(tasks, lambda: maker, engine, written=place):
        done += new
        yield Progressed(done, new, total)
    closed = writer.finish() and (part is None or writer.closed_here)
    if closed:
        store_pictures(clarid, data, CanonicalSet.load(folder))
    clarid.ledger = Ledger()
    return closed


def _settled_before(place: Place, config: dict[str, Any]) -> int | None:
    """Return the number of directions that a set of the same configuration was begun with, if any.

    Settled again, in another batch or on another device, it could be one more or less.
    """
    stored = (find_manifest(place) or {}).get("config", {})
    found: int | None = stored.get("num_dirs")
    given = plain(config | {"num_dirs": found})
    return None if differences(whole(stored), whole(given)) else found


def _findings(
    clarid: Clarid, data: LabelledImages, chosen: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return, as JSON values, what speaks for or against the teacher of these images.

    recognition: of a few of them; None for a teacher of one class. autoencoder_psnr_median: in dB,
    of `_FLOORS` of them at most, encoded and decoded, the floor of the round trips; None for a
    pixel teacher.
    """
    few = chosen[:: -(-len(chosen) // _FLOORS)]
    size, teacher, floors = clarid.config.batch_size, clarid.teacher, list[torch.Tensor]()
    known = recognise(teacher, data, chosen, seed=seed, batch_size=size)
    for start in range(0, len(few), size):
        floors.append(autoencoder_psnr(teacher, data.images(few[start : start + size])))
        if floors[0].isinf().all():  # a pixel teacher's, which loses nothing
            break
    floor = float(torch.cat(floors).quantile(0.5))
    return {
        "recognition": None if known is None else known.as_dict(),
        "autoencoder_psnr_median": floor if math.isfinite(floor) else None,
    }
