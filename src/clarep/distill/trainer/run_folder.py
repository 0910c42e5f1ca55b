"""What a student's run keeps beside its training: all its settings, images held out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clarep.data.held_out import load_held_out
from clarep.data.labelled import LabelledImages
from clarep.distill.methods import METHODS
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.artefacts import read_json
from clarep.engine.identity import in_full
from clarep.engine.training_folder import CONFIG_NAME
from clarep.errors import refusing


def picked_on_these(pick: str) -> str:
    """Return what speaks against figures on held-out images; empty where nothing does."""
    if pick == "last":
        return ""
    return (
        f"the epoch was picked on these very images (`pick={pick}`), so that figures on them are a "
        "little too good"
    )


def whole(described: Mapping[str, Any], options: type | None = None) -> dict[str, Any]:
    """Return a run's configuration with the defaults that it leaves out: `train` and `options`.

    options: the Config of a method that is not in METHODS.
    """
    if not isinstance(described.get("train"), Mapping):
        return dict(described)
    method, found = METHODS.get(str(described.get("method"))), described.get("options") or {}
    if not isinstance(found, Mapping):
        raise TypeError(f"its options are {found!r:.80}")
    kind: Any = options if method is None else method.Config
    return {
        **described,
        "train": in_full(TrainingConfig, described["train"]),
        "options": found if kind is None else in_full(kind, found),
    }


def held_out_of(folder: Path, data: LabelledImages) -> tuple[LabelledImages, str]:
    """Return the images of `data` that a student's run held out, and what speaks against figures.

    folder: of the run's student. The latter is empty where nothing does. Raises UserError as
    `load_held_out`, and for a configuration that cannot be read.
    """
    _, held_out = load_held_out(folder, data)
    faults = (OSError, ValueError, LookupError, TypeError)
    with refusing(f"cannot read {folder / CONFIG_NAME}", "train that student again", faults):
        pick = whole(read_json(folder / CONFIG_NAME))["train"]["pick"]
    return held_out, picked_on_these(pick)
