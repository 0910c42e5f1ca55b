"""A plain student that a method trains before its own: for what it errs on, or what it sees."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clarep.data.held_out import Indices
from clarep.data.subset import subset
from clarep.distill.methods.base import Ingredients
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.artefacts import read_json
from clarep.engine.identity import recorded
from clarep.engine.tensors import sha256_state
from clarep.engine.training_folder import CONFIG_NAME
from clarep.students.student import Student

_SPENT = ("seconds", "gigaops")
_STORED = "trained/"


def follows_from(begun: Student, ingredients: Ingredients) -> dict[str, Any]:
    """Return what a first student follows from, beside the method's own options."""
    images = ingredients.images
    return {
        "begun": sha256_state(begun),
        "train": recorded(ingredients.config, TrainingConfig),
        "data_sha256": images.data.sha256(images.index),
    }


def train_first(
    begun: Student, ingredients: Ingredients, positions: Indices, **changes: Any
) -> tuple[Student, dict[str, Tensor]]:
    """Train a copy of a student by vanilla on some of a run's images, in `first/` of its folder.

    Nothing is held out of these, and the last epoch is taken. One process does this while the
    others wait; killed, it goes on.

    Args:
        begun: with the weights that it begins with.
        ingredients: of the method.
        positions: which of its training images.
        changes: settings of the training that are other than the run's own.

    Returns:
        The student, on the run's device and in evaluation mode, and what it took to train, as
        `spent_of` takes it from what is stored.
    """
    from clarep.distill.train_student import train_student  # which imports the methods

    whole, folder = ingredients.images, ingredients.folder / "first"
    data = subset(whole.data, whole.index[positions], "of the first student")
    config: Any = replace(ingredients.config, **changes, validation_share=0.0, pick="last")
    student = train_student(data, folder, config=config, student=begun, alone_on=ingredients.device)
    config = read_json(folder / CONFIG_NAME)
    known = {name: config[name] for name in _SPENT if config.get(name) is not None}
    spent = {_STORED + name: torch.tensor(n, dtype=torch.float64) for name, n in known.items()}
    return student.to(ingredients.device), spent


def spent_of(stored: dict[str, Tensor]) -> dict[str, float]:
    """Take out of stored tensors what a first student took to train; as `TrainState.spent`."""
    names = [name for name in stored if name.startswith(_STORED)]
    return {name.removeprefix(_STORED): float(stored.pop(name)) for name in names}
