"""Tensors that a run computes once and keeps in its folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from clarep.engine.tensors import read_tensors, save_tensors
from clarep.errors import UserError


def computed_once(
    path: Path, described: dict[str, Any], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the tensors in `path` if they were made as described, else compute and keep them."""
    wanted = json.dumps(described, sort_keys=True)
    try:
        tensors, metadata = read_tensors(path, "tensors")
        if metadata.get("made") == wanted:
            return tensors
    except UserError:  # none yet, or one that is damaged
        pass
    tensors = compute()
    save_tensors(path, tensors, {"made": wanted})
    return tensors
