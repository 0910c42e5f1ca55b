"""What a student's run keeps beside its training: the images held out, curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clarep.data.held_out import load_held_out
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import read_json
from clarep.engine.extras import require_extra
from clarep.engine.training_folder import CONFIG_NAME
from clarep.errors import UserError

TENSORBOARD_NAME = "tensorboard"
PICKED_ON_THESE = (
    "the epoch was picked on these very images (`pick=best`), so that figures on them are a "
    "little too good"
)
"""What speaks against figures on held-out images."""


def held_out_of(folder: Path, data: LabelledImages) -> tuple[LabelledImages, str]:
    """Return the images of `data` that a student's run held out, and what speaks against figures.

    folder: of the run's student. The latter is empty where nothing does. Raises UserError as
    `load_held_out`, and for a configuration that cannot be read.
    """
    _, held_out = load_held_out(folder, data)
    try:
        picked = read_json(folder / CONFIG_NAME)["train"]["pick"] == "best"
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"cannot read {folder / CONFIG_NAME} ({error}): train that student again"
        ) from error
    return held_out, PICKED_ON_THESE if picked else ""


class Curves:
    """The history as TensorBoard scalars; a resumed run's replace those after its checkpoint."""

    def __init__(self, out: Path, epoch: int) -> None:
        """Raises UserError if TensorBoard is not installed."""
        require_extra("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        make: Callable[..., Any] = SummaryWriter
        self._writer = make(str(out / TENSORBOARD_NAME), purge_step=epoch + 1)

    def add(self, record: dict[str, Any]) -> None:
        """Write a record's numbers; a nested record's under its name."""
        for name, value in record.items():
            parts = value if isinstance(value, dict) else {"": value}
            for part, number in parts.items():
                if number is not None:
                    tag = f"{name}/{part}" if part else name
                    self._writer.add_scalar(tag, number, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
