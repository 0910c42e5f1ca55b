"""Tensors that a run computes once and keeps in its folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clarep.engine.artefacts import atomic_path


def computed_once(
    path: Path, described: dict[str, Any], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the tensors in `path` if they were made as described, else compute and keep them."""
    wanted = json.dumps(described, sort_keys=True)
    try:
        with safe_open(path, framework="pt") as archive:
            if (archive.metadata() or {}).get("made") == wanted:
                return {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):  # none yet, or one that is damaged
        pass
    tensors = compute()
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {"made": wanted}))
    return tensors
