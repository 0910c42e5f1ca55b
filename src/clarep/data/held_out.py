"""The split that no folder has: images of every class that a run keeps out of its training.

The choice depends on the number of a class's images, its name and the share alone, and a smaller
share is part of a larger: a teacher, its students and their classifiers of all seeds keep out the
same images, and none has seen what another is measured on.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarep.data.files import NoSplitError
from clarep.data.labelled import LabelledImages, fits_in_memory, in_memory
from clarep.data.load import DataConfig, load_data, load_test
from clarep.data.subset import subset
from clarep.engine.artefacts import read_json, write_json
from clarep.engine.printable import counted
from clarep.engine.progress import announce
from clarep.errors import UserError, said_by

HELD_OUT = "held-out"
"""Name of the split."""
SHARE = 0.1
"""Of every class, unless another is asked for."""
_FILE = "held_out.json"
_COMPOSED = ("garments", "backdrops", "noise-backdrops")

Indices = NDArray[np.int64]


def split_off(
    data: LabelledImages, share: float, readable: Indices | None = None
) -> tuple[Indices, Indices]:
    """Return the indices to train on and, of every class, those to hold out.

    Args:
        data: the whole set.
        share: of every class, at least one image of it; 0 holds nothing out.
        readable: the images that can be used; None is all of them.

    Raises UserError if a class is left without an image to train on.
    """
    everything = np.arange(len(data), dtype=np.int64)
    usable = everything if readable is None else readable
    if share == 0:
        return usable, everything[:0]
    chosen = []
    for label in np.unique(data.labels):
        members = np.flatnonzero(data.labels == label)
        count = max(1, round(share * len(members)))
        rng = np.random.default_rng(list(data.class_names[label].encode()))
        chosen.append(rng.permutation(members)[:count])
    # The unreadable are left out now, so that one more or less leaves the others on their sides.
    apart = np.intersect1d(np.concatenate(chosen), usable)
    kept = np.setdiff1d(usable, apart)
    for label in np.setdiff1d(data.labels, data.labels[kept]):
        raise UserError(
            f"class '{data.class_names[label]}' has {int((data.labels == label).sum())} of the "
            f"images of {data.name}, and holding out a share of {share:g}, at least one image, "
            "leaves none to train on: add images to it"
        )
    return kept, apart


def held_out_record(data: LabelledImages, apart: Indices) -> dict[str, Any]:
    """Return how many images are held out, and what they are told from others by."""
    return {"images": len(apart), "sha256": data.sha256(apart)}


def save_held_out(folder: Path, data: LabelledImages, kept: Indices, apart: Indices) -> None:
    """Store beside a run's weights which images it holds out, cannot use, and is trained on."""
    unused = np.setdiff1d(np.arange(len(data)), [*kept, *apart])
    record = held_out_record(data, apart)
    record |= {"index": apart.tolist(), "unused": unused.tolist()}
    record["trained_on"] = " ".join(data.marks(kept))
    write_json(folder / _FILE, record, sealed=True)


def marks_of_trained(folder: Path) -> Collection[str] | None:
    """Return `LabelledImages.marks` of what the run in `folder` was trained on; None if unknown.

    Raises UserError for a record that was changed.
    """
    path = folder / _FILE
    try:
        return set(read_json(path)["trained_on"].split())
    except (FileNotFoundError, KeyError):
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({said_by(error)}): train that run again") from error


def seen_before(
    trained: Collection[str], data: LabelledImages, indices: Indices
) -> tuple[int, str]:
    """Return how many of these images were trained on, pixel by pixel, and say so if any was."""
    seen = sum(mark in trained for mark in data.marks(indices))
    which = f"{seen} of {len(indices)} images of {data.name}"
    return seen, f"the model is trained on {which}" if seen else ""


def load_held_out(folder: Path, data: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Return which of `data` the run in `folder` was trained on, and which it held out.

    Raises UserError if it held none out, or if those are no longer what they were.
    """
    path = folder / _FILE
    try:
        stored = read_json(path)
        apart, unused = (np.array(stored[name], np.int64) for name in ("index", "unused"))
        sha256 = stored["sha256"]
    except FileNotFoundError:
        raise UserError(
            f"{folder} does not say which images it held out (no {_FILE}), as an earlier clarep "
            "made it, or Python code: train it again, or give other images to measure on"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"cannot read {path} ({said_by(error)}): train that run again") from error
    if not apart.size:
        raise UserError(
            f"{folder} held out no image (a share of 0): train one that does, or give other images "
            "to measure on"
        )
    is_sound = apart.ndim == 1 and bool(((apart >= 0) & (apart < len(data))).all())
    if not is_sound or held_out_record(data, apart)["sha256"] != sha256:
        raise UserError(
            f"the images that {folder} held out of {data.name} are not there as they were: put "
            f"data and {path.name} back, or train that run again"
        )
    kept = np.setdiff1d(np.arange(len(data)), [*apart, *unused])
    return subset(data, kept, f"without {HELD_OUT}"), subset(data, apart, HELD_OUT)


@dataclass(frozen=True)
class TrainingSplits:
    """Images to train on, and others to measure the loss on."""

    trained: LabelledImages
    held_out: LabelledImages
    bad: list[str]
    """What could not be read, each as "source: reason"."""
    save: Callable[[Path], None]
    """Store in a run which images of the whole are trained on and held out."""


def training_splits(
    config: DataConfig, skip_bad: bool, note: Callable[[str], None], warn: Callable[[str], None]
) -> TrainingSplits:
    """Load data and their test split or, of a set that is not divided, hold out a tenth.

    skip_bad: go on without what cannot be read. note, warn: are told what is otherwise than one
    may expect, and why a loss should not be trusted.

    Raises UserError as `load_data`, and for what cannot be read unless `skip_bad`.
    """

    def noted(data: LabelledImages) -> LabelledImages:
        for text in data.notes:
            note(text)
        return data

    data, kept, bad = _readable(noted(load_data(config)), config, skip_bad)
    try:
        test = noted(load_test(config)[1])
    except NoSplitError:
        rest, apart = split_off(data, SHARE, kept)
        note(
            f"{data.name} has no test split: {len(apart)} of its {len(data)} images, a tenth "
            "of every class, are held out for the loss and not trained on"
        )
        trained, held_out = subset(data, rest, "without a tenth"), subset(data, apart, HELD_OUT)
        save = partial(save_held_out, data=data, kept=rest, apart=apart)
        return TrainingSplits(trained, held_out, bad, save)
    test, test_kept, test_bad = _readable(test, config, skip_bad)
    trained, held_out = _all_but(data, kept, bad), _all_but(test, test_kept, test_bad)
    marks = set(trained.marks(range(len(trained))))
    if said := seen_before(marks, held_out, np.arange(len(held_out)))[1]:
        warn(f"{said}: its held-out loss is not that on new images, so remove them there")
        trained = replace(trained, notes=(*trained.notes, said))
    save = partial(save_held_out, data=data, kept=kept, apart=kept[:0])
    return TrainingSplits(trained, held_out, bad + test_bad, save)


def _readable(
    data: LabelledImages, config: DataConfig, skip_bad: bool
) -> tuple[LabelledImages, Indices, list[str]]:
    """Return a set, what can be read of it, and what cannot; what is composed all can."""
    if config.data in _COMPOSED:
        return data, np.arange(len(data)), []
    announce(f"reading the {counted(len(data), 'image')} of {data.name}")
    held, kept, bad = in_memory(data, skip_bad)
    if not fits_in_memory(held, kept):
        announce("they take over 1 GB and are not kept: each is read again whenever it is needed")
    return held, kept, bad


def _all_but(data: LabelledImages, kept: Indices, bad: list[str]) -> LabelledImages:
    return subset(data, kept, f"without {len(bad)} unreadable") if bad else data
