"""A plain student that a method trains before its own: for what it errs on, or what it sees."""

from dataclasses import replace
from typing import Any

from clarep.data.held_out import Indices
from clarep.data.subset import subset
from clarep.distill.methods.base import Ingredients
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.artefacts import read_json
from clarep.engine.identity import recorded
from clarep.engine.tensors import sha256_state
from clarep.engine.training_folder import CONFIG_NAME
from clarep.students.student import Student


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
) -> tuple[Student, float]:
    """Train a copy of a student by vanilla on some of a run's images, in `first/` of its folder.

    Nothing is held out of these, and the last epoch is taken. One process does this while the
    others wait; killed, it goes on.

    Args:
        begun: with the weights that it begins with.
        ingredients: of the method.
        positions: which of its training images.
        changes: settings of the training that are other than the run's own.

    Returns:
        The student, on the run's device and in evaluation mode, and the seconds that it took.
    """
    from clarep.distill.train_student import train_student  # which imports the methods

    whole, folder = ingredients.images, ingredients.folder / "first"
    data = subset(whole.data, whole.index[positions], "of the first student")
    config: Any = replace(ingredients.config, **changes, validation_share=0.0, pick="last")
    student = train_student(data, folder, config=config, student=begun, alone_on=ingredients.device)
    seconds = float(read_json(folder / CONFIG_NAME)["seconds"])
    return student.to(ingredients.device), seconds
