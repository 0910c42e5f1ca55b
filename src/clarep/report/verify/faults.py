"""`Fault`: one thing that is wrong with a file, in a line."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clarep.engine.artefacts import open_regular
from clarep.engine.lock import is_half_written
from clarep.errors import UserError, said_by

_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Fault:
    """Something wrong."""

    path: str
    """Of what file or folder."""
    what: str
    """What is wrong and what mends it, a sentence."""
    drop: tuple[Path, ...] = ()
    """Files that `repair` deletes: the command that wrote them makes them again."""
    goes_on: bool = False
    """Whether something is merely not there yet, which the same command makes."""


def refusal(path: Path, read: Callable[[], object], drop: tuple[Path, ...] = ()) -> Iterator[Fault]:
    """Yield what a reader refuses as a fault of the file that it reads."""
    try:
        read()
    except UserError as error:
        yield Fault(str(path), str(error), drop)
    except (OSError, ValueError) as error:
        again = "run the command that wrote it again"
        yield Fault(str(path), f"it cannot be read ({said_by(error)}): {again}", drop)


def is_own(path: Path) -> bool:
    """Tell whether a file, damaged too, is recognisably clarep's: its seal or metadata is there.

    So is what a process of clarep's left half written. Of any other, repair only says what is
    wrong.
    """
    if is_half_written(path.name):
        return True
    mark = {".json": b'"content_sha256"', ".safetensors": b'"data_sha256"'}.get(path.suffix)
    if mark is None:
        return False
    try:
        with open_regular(path) as stream:
            if path.suffix == ".json":
                return mark in stream.read(_MOST_BYTES)
            length = int.from_bytes(stream.read(8), "little")
            return mark in stream.read(min(length, _MOST_BYTES))
    except OSError:
        return False


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold NaN or infinity."""
    return [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all())
    ]


def inner_tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested dicts and lists, named by where they stand."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping | list | tuple):
        pairs = state.items() if isinstance(state, Mapping) else enumerate(state)
        for key, value in pairs:
            yield from inner_tensors(value, f"{name}.{key}" if name else str(key))
