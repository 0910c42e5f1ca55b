"""`history.jsonl`: what a resumable run logs, a record a line, each with its own SHA-256.

The run's checkpoint holds the records too: where the file is damaged, it is written again from
there when the run goes on.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clarep.engine.artefacts import atomic_path, parse_json, seal, unseal
from clarep.engine.regular_file import open_regular
from clarep.errors import UserError

HISTORY_NAME = "history.jsonl"
_MEND = "run the command that trained it again, which writes the file anew from its checkpoint"


def append_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record as one more line, which a power cut does not undo."""
    path = folder / HISTORY_NAME
    try:
        with open(path, "a") as stream:
            stream.write(_line(record))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = str(path)  # a full disk names no file
        raise


def write_records(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    """Make the file hold these records and no others; for none, no file is made."""
    if not records and not (folder / HISTORY_NAME).exists():
        return
    with atomic_path(folder / HISTORY_NAME) as temporary:
        temporary.write_text("".join(map(_line, records)))


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
    try:
        with open_regular(path) as stream:
            lines = stream.readlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error}): {_MEND}") from error
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = unseal(parse_json(line.decode()))
            if not counted < int(record[unit]):
                raise ValueError(f"its {unit} {record[unit]} does not follow {counted}")
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"line {number} of {path} is no record of a training ({error}): {_MEND}"
            ) from None
        counted = int(record[unit])
        records.append(record)
    return records
