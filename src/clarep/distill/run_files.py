"""What a training run keeps in its folder: configuration, history, curves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clarep.data.held_out import load_held_out
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import differences, read_json, versions, write_json
from clarep.engine.extras import require_extra
from clarep.engine.history import HISTORY_NAME, write_records
from clarep.errors import UserError

CONFIG_NAME = "config.json"
TENSORBOARD_NAME = "tensorboard"
PICKED_ON_THESE = (
    "the epoch was picked on these very images (`pick=best`), so that figures on them are a "
    "little too good"
)
"""What speaks against figures on held-out images."""


def refuse_foreign(out: Path, described: dict[str, Any]) -> None:
    """Raise UserError if a folder without a checkpoint holds files that this run did not write.

    A run that was killed before its first checkpoint leaves its own configuration: it goes on.
    """
    taken = [name for name in (CONFIG_NAME, HISTORY_NAME) if (out / name).exists()]
    if not taken:
        return
    try:
        found = read_json(out / CONFIG_NAME)
        difference = differences({key: found[key] for key in described}, described)
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        difference = f"{taken[0]} of something else"
    if difference:
        raise UserError(
            f"{out} holds a run of another configuration ({difference}): "
            "give another `out`, or the options it was started with"
        )


def start_folder(out: Path, described: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
    """Write the configuration, and of what was logged that alone which the checkpoint knows."""
    write_json(
        out / CONFIG_NAME, described | {"versions": versions(), "seconds": None}, sealed=True
    )
    write_records(out, history)


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
