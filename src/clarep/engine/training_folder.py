"""The folder of a training that can be killed and gone on with, a teacher's or a student's.

`config.json` says what is trained; `checkpoint.pt`, a torch file followed by the SHA-256 of its
bytes, holds all that changes; `history.jsonl` what was logged, a record a line, each with its own
SHA-256. The checkpoint holds the records too: where that file is damaged, it is written again from
there when the run goes on.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from clarep.engine.artefacts import (
    atomic_path,
    named,
    open_regular,
    parse_json,
    read_json,
    seal,
    unseal,
    write_json,
)
from clarep.engine.identity import plain, refuse_other
from clarep.engine.lock import hold
from clarep.errors import UserError, refusing

CONFIG_NAME = "config.json"
CHECKPOINT_NAME = "checkpoint.pt"
HISTORY_NAME = "history.jsonl"
_DIGEST = 64  # hexadecimal digits at the checkpoint's end; torch.load passes over them
Whole = Callable[[dict[str, Any]], dict[str, Any]]
WRITES_RECORDS = (
    "run the command that trained it again, which writes the file anew from its checkpoint; of a "
    "study, whose finished students are left alone, delete student.safetensors beside it first"
)
"""What mends a file of records."""


class TrainingFolder:
    """A training's folder, taken up where the killed run left it.

    described: what determines the training, as JSON values. whole: fills in what such a
    configuration, of an earlier version too, leaves out. writes: False for the processes of a
    distributed run that only read. `saved` is the state that the last `save` wrote, on the CPU;
    None for a new run.

    Raises UserError, before anything is written, if the folder holds a run of another
    configuration, a checkpoint that cannot be read, or files that are not a run's, or if another
    process writes there.
    """

    def __init__(
        self, path: Path, described: dict[str, Any], whole: Whole = dict, *, writes: bool = True
    ) -> None:
        self.path, self._described, self._whole = path, plain(described), whole
        checkpoint = path / CHECKPOINT_NAME
        if not checkpoint.exists():
            self._refuse_foreign()
        self._lock = hold(path) if writes else None
        self.saved: dict[str, Any] | None = None
        if checkpoint.exists():
            self.saved = load_checkpoint(checkpoint, described, whole)

    def _refuse_foreign(self) -> None:
        """Refuse files of others. A run killed before its first checkpoint left its own config."""
        taken = [name for name in (CONFIG_NAME, HISTORY_NAME) if (self.path / name).exists()]
        if not taken:
            return
        try:
            wanted = self._whole(self._described)
            found = self._whole(read_json(self.path / CONFIG_NAME))
            ours = {key: found[key] for key in wanted}
        except (FileNotFoundError, LookupError, TypeError, ValueError):
            raise UserError(
                f"{self.path} holds a {taken[0]} of something else and no {CHECKPOINT_NAME}: "
                "give another `out`, or the options that run was started with"
            ) from None
        refuse_other(self.path, "a run", ours, wanted)

    def start(self, noted: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
        """Write the configuration, and of what was logged that alone which the checkpoint knows.

        noted: what else the configuration's file says, beside what the run is told by.
        """
        self.write_config(noted)
        if history or (self.path / HISTORY_NAME).exists():
            with atomic_path(self.path / HISTORY_NAME) as temporary:
                temporary.write_text("".join(map(_line, history)))

    def write_config(self, noted: dict[str, Any]) -> None:
        """Write `described` and what else is to be known of the run."""
        write_json(self.path / CONFIG_NAME, self._described | noted, sealed=True)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state (tensors and plain values), atomically."""
        save_checkpoint(self.path / CHECKPOINT_NAME, state, self._described)

    def append(self, record: dict[str, Any]) -> None:
        """Log a record, a line that a power cut does not undo."""
        path = self.path / HISTORY_NAME
        with named(path), open(path, "a") as stream:
            stream.write(_line(record))
            stream.flush()
            os.fsync(stream.fileno())


def save_checkpoint(path: Path, state: dict[str, Any], described: dict[str, Any]) -> None:
    """Write a run's state and its configuration, atomically."""
    buffer = io.BytesIO()  # so that a full disk is an OSError, not one of torch's own
    torch.save(state | {"config": json.dumps(described)}, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(buffer.getbuffer())
        stream.write(digest.encode())


def load_checkpoint(path: Path, described: dict[str, Any], whole: Whole = dict) -> dict[str, Any]:
    """Return the state that `save_checkpoint` wrote, on the CPU; whole: as of `TrainingFolder`.

    Raises UserError if it is damaged, of another version, or of another configuration.
    """
    state = read_checkpoint(path)
    refuse_other(path.parent, "a run", whole(parse_json(state.pop("config"))), whole(described))
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state with its `config`, a text of JSON, on the CPU.

    Raises UserError if it is damaged, or of another version.
    """
    mend = "delete it to begin anew, or give another `out`"
    with refusing(f"cannot read the checkpoint {path}", mend, (OSError, ValueError)):
        with open_regular(path) as stream:
            data = stream.read()
        content, digest = data[:-_DIGEST], data[-_DIGEST:]
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError(
                "it is damaged, cut short, or of another version of clarep: its SHA-256 differs"
            )
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state


def _line(record: dict[str, Any]) -> str:
    return json.dumps(seal(record)) + "\n"


def read_records(folder: Path, unit: str) -> list[dict[str, Any]]:
    """Return all records; none if there is no file. A last line that a kill cut off is none.

    unit: key of a record that counts (step, epoch). Raises UserError unless every line is a
    record and the count rises.
    """
    path = folder / HISTORY_NAME
    if not path.exists():
        return []
    records: list[dict[str, Any]] = []
    counted = 0
    with refusing(f"cannot read {path}", WRITES_RECORDS, (OSError,)), open_regular(path) as stream:
        lines = stream.readlines()
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = unseal(parse_json(line.decode()))
            if not counted < int(record[unit]):
                raise ValueError(f"its {unit} {record[unit]} does not follow {counted}")
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"line {number} of {path} is no record of a training ({error}): {WRITES_RECORDS}"
            ) from None
        counted = int(record[unit])
        records.append(record)
    return records
