"""What a teacher is trained on, and what its loss is measured on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from clarep.data.files import NoSplitError
from clarep.data.held_out import HELD_OUT, SHARE, Indices, save_held_out, seen_before, split_off
from clarep.data.labelled import LabelledImages, in_memory, subset
from clarep.data.load import DataConfig, load_data, load_test
from clarep.engine.progress import announce

_COMPOSED = ("garments", "backdrops", "noise-backdrops")


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
    config: DataConfig,
    skip_bad: bool,
    note: Callable[[str], None],
    warn: Callable[[str], None],
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
    announce(f"reading the {len(data)} images of {data.name} once")
    return in_memory(data, skip_bad)


def _all_but(data: LabelledImages, kept: Indices, bad: list[str]) -> LabelledImages:
    return subset(data, kept, f"without {len(bad)} unreadable") if bad else data
