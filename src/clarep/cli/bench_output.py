"""What the files and tables of every `clarep bench` have in common."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from clarep.engine.artefacts import versions, write_json


def machine() -> dict[str, Any]:
    """Return what a measured time depends on, and on which versions."""
    found = {
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {"machine": found, "versions": versions()}


def write_result(path: Path, result: dict[str, Any], text: str, as_json: bool) -> None:
    """Store what was measured, and print it."""
    write_json(path, result)
    print(json.dumps(result, indent=2) if as_json else f"{text}\nwrote {path}")
