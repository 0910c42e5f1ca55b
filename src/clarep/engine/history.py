"""`history.jsonl`: what a resumable run logs, a record a line."""

import json
from pathlib import Path
from typing import Any

from clarep.engine.artefacts import atomic_path

HISTORY_NAME = "history.jsonl"


def append_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record as one more line."""
    path = folder / HISTORY_NAME
    try:
        with open(path, "a") as stream:
            stream.write(json.dumps(record) + "\n")
    except OSError as error:
        error.filename = str(path)  # a full disk names no file
        raise


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Return all records; a last line that a kill cut off is none."""
    path = folder / HISTORY_NAME
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def keep_records(folder: Path, unit: str, last: int) -> None:
    """Drop what was logged after the checkpoint, so that a resumed curve has no `unit` twice.

    unit: key of a record that counts (step, epoch); records up to `last` are kept.
    """
    if not (folder / HISTORY_NAME).exists():
        return
    kept = [record for record in read_records(folder) if record[unit] <= last]
    with atomic_path(folder / HISTORY_NAME) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
