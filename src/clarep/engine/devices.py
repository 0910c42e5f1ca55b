"""Where networks run."""

import torch

from clarep.errors import UserError

Device = str | torch.device
"""A device as users give it."""


def check_device(device: Device) -> torch.device:
    """Return the device of that name. Raises UserError if there is none here."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"unknown device '{device}': give cpu, cuda or cuda:1, say") from error
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"device '{device}' is not supported: give cpu, cuda or cuda:1, say")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{device}' is not here ({torch.cuda.device_count()} GPUs are seen): "
            "give another, or cpu"
        )
    return found


def default_device() -> torch.device:
    """Return a GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
