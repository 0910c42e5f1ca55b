"""Where curves of a training go: TensorBoard's files, or Weights & Biases by accelerate."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from clarep.engine.artefacts import named
from clarep.engine.extras import require_extra
from clarep.errors import UserError, refusing, unknown_name

Tracker = Literal["tensorboard", "wandb", "none"]
"""What curves are drawn by."""
Draw = Callable[[Mapping[str, Any]], None]
_PROJECT = "clarep"
_PATIENCE = 5.0  # seconds
_MEND = "log in by `wandb login`, or set WANDB_MODE=offline"


def check_tracker(tracker: Tracker | None) -> None:
    """Raise UserError for an unknown tracker, and if what it needs is not installed."""
    if tracker not in (None, *get_args(Tracker)):
        raise unknown_name("tracker", str(tracker), get_args(Tracker))
    if tracker == "tensorboard":
        require_extra("tensorboard", "train")
    if tracker == "wandb":
        require_extra("accelerate", "train")
        if find_spec("wandb") is None:
            raise UserError("wandb is not installed: give pip install wandb, or another `tracker`")


@contextmanager
def curves(
    out: Path,
    done: int,
    tracker: Tracker | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    unit: str = "epoch",
) -> Iterator[Draw]:
    """Yield what draws a record as scalars; those of a nested record are under its name.

    Those after `done`, of a run that was killed, are replaced; on Weights & Biases, where a step
    is written once, they stay.

    Args:
        out: folder of the run; TensorBoard's files lie in its tensorboard/.
        done: where the run stands, in units.
        tracker: None is TensorBoard where it is installed, else nothing.
        config: what Weights & Biases tells the run by.
        unit: what a record counts by: the name of its field.

    Raises:
        UserError: as `check_tracker`, and if Weights & Biases takes no run.
    """
    check_tracker(tracker)
    if tracker == "wandb":
        opened = _wandb(out, config or {})
    elif tracker == "tensorboard" or (tracker is None and find_spec("tensorboard")):
        opened = _tensorboard(out, done)
    else:
        yield lambda record: None
        return
    with opened as log:
        yield lambda record: log(_flat(record), int(record[unit]))


@contextmanager
def _tensorboard(out: Path, done: int) -> Iterator[Callable[[dict[str, Any], int], None]]:
    from torch.utils.tensorboard import SummaryWriter

    make: Callable[..., Any] = SummaryWriter
    folder = out / "tensorboard"
    with _said_once():
        with named(folder):
            writer = make(str(folder), purge_step=done + 1)

        def log(values: dict[str, Any], step: int) -> None:
            with named(folder):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
                writer.flush()

        try:
            yield log
        finally:
            with named(folder):
                writer.close()


@contextmanager
def _said_once() -> Iterator[None]:
    """Let TensorBoard's thread print no traceback: what it could not write is raised here too."""
    before = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not _is_tensorboards(what.thread):
            before(what)

    threading.excepthook = hook
    try:
        yield
    except OSError:
        for thread in filter(_is_tensorboards, threading.enumerate()):
            thread.join(_PATIENCE)  # it tells us first, and the hook afterwards
        raise
    finally:
        threading.excepthook = before


def _is_tensorboards(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


@contextmanager
def _wandb(out: Path, config: Mapping[str, Any]) -> Iterator[Callable[[dict[str, Any], int], None]]:
    accelerate = require_extra("accelerate", "train")
    tracking = require_extra("accelerate.tracking", "train")
    accelerate.PartialState()  # accelerate's logging asks for it
    told = json.dumps([str(out.resolve()), config], sort_keys=True, default=str)
    tracker = None
    with refusing("Weights & Biases takes no run", _MEND, (Exception,)):
        out.mkdir(parents=True, exist_ok=True)
        tracker = tracking.WandBTracker(
            _PROJECT,
            name=out.name,
            id=hashlib.sha256(told.encode()).hexdigest()[:16],  # a killed run goes on in it
            resume="allow",
            dir=str(out),
            config=dict(config),
        )
        if hasattr(tracker, "start"):  # of newer versions
            tracker.start()
    try:
        yield lambda values, step: tracker.log(values, step=step)
    finally:
        tracker.finish()


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a record: `train/loss` is `loss` in its `train`."""
    found = {}
    for name, value in record.items():
        parts = value if isinstance(value, dict) else {"": value}
        for part, number in parts.items():
            if number is not None:
                found[f"{name}/{part}" if part else name] = number
    return found
