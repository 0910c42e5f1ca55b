"""What a student's run keeps beside its training: all its settings, images held out, curves."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clarep.data.held_out import load_held_out
from clarep.data.labelled import LabelledImages
from clarep.distill.methods import METHODS
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.artefacts import read_json
from clarep.engine.identity import in_full
from clarep.engine.training_folder import CONFIG_NAME
from clarep.errors import UserError


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

    Earlier versions wrote both in full into `train`, with the options of all other methods.
    options: the Config of a method that is not in METHODS.
    """
    if not isinstance(described.get("train"), Mapping):
        return dict(described)
    train, method = dict(described["train"]), METHODS.get(str(described.get("method")))
    kind: Any = options if method is None else method.Config
    found = described.get("options")
    if found is None:
        train |= train.pop("rivals", {})
        others = {one.name for other in METHODS.values() for one in fields(other.Config)}
        of_all = {name: train.pop(name) for name in others & set(train)}
        own = {one.name for one in fields(kind)} if kind else set()
        found = {name: value for name, value in of_all.items() if name in own}
    return {
        **described,
        "train": in_full(TrainingConfig, train),
        "options": found if kind is None else in_full(kind, found),
    }


def held_out_of(folder: Path, data: LabelledImages) -> tuple[LabelledImages, str]:
    """Return the images of `data` that a student's run held out, and what speaks against figures.

    folder: of the run's student. The latter is empty where nothing does. Raises UserError as
    `load_held_out`, and for a configuration that cannot be read.
    """
    _, held_out = load_held_out(folder, data)
    try:
        pick = whole(read_json(folder / CONFIG_NAME))["train"]["pick"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"cannot read {folder / CONFIG_NAME} ({error}): train that student again"
        ) from error
    return held_out, picked_on_these(pick)


@contextmanager
def curves(out: Path, epoch: int, *, wanted: bool = True) -> Iterator[Callable[[Any], None]]:
    """Yield what draws a record as TensorBoard scalars; a nested record's are under its name.

    Those after `epoch`, of a run that was killed, are replaced. Nothing is drawn where TensorBoard
    is not installed.
    """
    if not wanted or find_spec("tensorboard") is None:
        yield lambda record: None
        return
    from torch.utils.tensorboard import SummaryWriter

    make: Callable[..., Any] = SummaryWriter
    with make(str(out / "tensorboard"), purge_step=epoch + 1) as writer:

        def draw(record: dict[str, Any]) -> None:
            for name, value in record.items():
                parts = value if isinstance(value, dict) else {"": value}
                for part, number in parts.items():
                    if number is not None:
                        tag = f"{name}/{part}" if part else name
                        writer.add_scalar(tag, number, record["epoch"])
            writer.flush()

        yield draw
