"""A training's checkpoint: a torch file, followed by the SHA-256 of its bytes."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from clarep.engine.artefacts import as_read, atomic_path, differences, parse_json
from clarep.engine.regular_file import open_regular
from clarep.errors import UserError

CHECKPOINT_NAME = "checkpoint.pt"
_DIGEST = 64  # hexadecimal digits at the end of the file; torch.load passes over them


def save_checkpoint(path: Path, state: dict[str, Any], described: dict[str, Any]) -> None:
    """Write a run's state (tensors and plain values) and its configuration, atomically."""
    buffer = io.BytesIO()  # so that a full disk is an OSError, not one of torch's own
    torch.save(state | {"config": json.dumps(described)}, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(buffer.getbuffer())
        stream.write(digest.encode())


def load_checkpoint(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Return the state that `save_checkpoint` wrote, on the CPU.

    Raises UserError if a byte of it has changed, it is cut short or no checkpoint of this
    version, or if it is of another configuration.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read()
        whole, digest = data[:-_DIGEST], data[-_DIGEST:]
        if hashlib.sha256(whole).hexdigest().encode() != digest:
            raise ValueError(
                "it is damaged, cut short, or of another version of clarep: its SHA-256 differs"
            )
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the checkpoint {path} ({error}): delete it to begin anew, or give "
            "another `out`"
        ) from error
    state: dict[str, Any] = torch.load(io.BytesIO(whole), weights_only=True, map_location="cpu")
    stored = parse_json(state.pop("config"))
    if difference := differences(stored, as_read(described)):
        raise UserError(
            f"{path.parent} holds a run of another configuration ({difference}): "
            "give another `out`, or the options it was started with"
        )
    return state
