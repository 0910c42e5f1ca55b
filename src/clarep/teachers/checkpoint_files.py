"""A checkpoint that is one file: its weights, and the settings that shapes do not say."""

import argparse
import codecs
import contextlib
import os
import re
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from clarep.engine.artefacts import parse_json, require_regular
from clarep.engine.tensors import check_weights, fault, read_tensors
from clarep.errors import UserError, unknown_name
from clarep.teachers.pipeline_folder import read_json, refuse_diffusers

_NESTED = ("state_dict_ema", "model_ema", "ema", "model", "state_dict")  # averages come first
_COUNT = "n_averaged"  # beside the weights, of torch's AveragedModel
_TORCH = (".pt", ".pth", ".tar", ".ckpt", ".bin")
ENTRY = "entry"
"""In the metadata of a torch file: which of its entries the weights were."""
_PREFIXES = ("module.", "_orig_mod.")  # of a network saved in its wrapper
_KINDS = {int: "a whole number", str: "a text", list: "a list of texts"}


@dataclass(frozen=True)
class Checkpoint:
    """What was read of a weights file."""

    path: Path
    """The file."""
    weights: dict[str, Tensor]
    """Its tensors by name, on the CPU."""
    settings: dict[str, Any]
    """What metadata, side file and query say."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What a training script left of its own arguments."""
    family: str = "network"
    """What it should be, for errors."""

    def shape(self, name: str, dims: int) -> tuple[int, ...]:
        """Return a tensor's shape. Raises UserError if there is none of that many dimensions."""
        found = self.weights.get(name)
        if found is None or found.ndim != dims:
            first = next(iter(self.weights))
            raise self.refusal(f"it has no {name} of {dims} dimensions; its first is {first}")
        return tuple(found.shape)

    def count(self, blocks: str) -> int:
        """Return how many numbered blocks there are under a name."""
        found = (re.match(rf"{blocks}\.(\d+)\.", name) for name in self.weights)
        return len({match[1] for match in found if match})

    def refusal(self, found: str) -> UserError:
        """Build the error for a file that is no checkpoint of the family."""
        return UserError(
            f"{self.path} holds no {self.family} that clarep knows: {found}; give a whole "
            "checkpoint of one"
        )

    def fill(self, network: nn.Module) -> None:
        """Put the weights into a network. Raises UserError unless names and shapes are its own."""
        wanted = network.state_dict()
        for name, own in wanted.items():
            if name not in self.weights:
                raise self.refusal(f"it lacks {name}")
            found, shape = tuple(self.weights[name].shape), tuple(own.shape)
            if found != shape:
                raise self.refusal(f"its {name} is {found}, where {shape} is asked for")
        surplus = [name for name in self.weights if name not in wanted]
        if surplus:
            raise self.refusal(
                f"it has {len(surplus)} tensors that a {self.family} has not, {surplus[0]} first"
            )
        check_weights(self.weights, network, str(self.path))
        network.load_state_dict(self.weights, assign=True)


def read_checkpoint(place: str, known: Mapping[str, type], family: str) -> Checkpoint:
    """Read FILE or FILE?NAME=VALUE&NAME=VALUE.

    Settings come from the metadata of a safetensors file, then from the JSON object in
    FILE.json, if there is one, then from the query: a later one wins.

    Args:
        place: the file, and settings after a question mark.
        known: what settings there are, and of which type: int, str or list.
        family: what it should be, for errors.

    Raises:
        UserError: if a file cannot be read, or a setting is unknown or of another type.
    """
    file, _, query = (place, "", "") if Path(place).is_file() else place.partition("?")
    path = Path(os.path.expanduser(file))
    weights, metadata, arguments = read_weights(path)
    given: dict[str, Any] = {
        name: _parsed(text, known[name]) for name, text in metadata.items() if name in known
    }
    beside = path.with_name(f"{path.name}.json")
    if beside.exists():
        given |= read_json(beside)
    for part in query.split("&") if query else ():
        name, _, text = part.partition("=")
        given[name] = _parsed(text, known.get(name, str))
    for name, value in given.items():
        if name not in known:
            raise unknown_name(f"setting of {path}", name, known)
        texts = value if isinstance(value, list) else []
        if type(value) is not known[name] or not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"the setting {name} of {path} is {value!r}: give {_KINDS[known[name]]}"
            )
    return Checkpoint(path, weights, given, arguments, family)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """Return the tensors of a file by name, its metadata, and its training's arguments.

    Only safetensors have metadata of their own, and arguments only a torch file that a training
    script left (`args`). Of such a file the first entry of _NESTED that is there is taken, and
    named as the metadata's ENTRY. Nothing is unpickled but tensors, plain values, numpy's numbers
    and `argparse.Namespace`.

    Raises:
        UserError: if there is no such file, it is truncated, or of another kind.
    """
    if path.is_dir():
        refuse_diffusers(path, "single file of weights")
        raise UserError(f"{path} is a folder: give the weights' file in it")
    if not path.exists():
        raise UserError(f"there is no file {path}: give a .safetensors, .pt or .pth file")
    metadata: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        weights, metadata = read_tensors(path, "weights")
    elif path.suffix in _TORCH:
        loaded = _read_torch(path)
        (weights, metadata), arguments = _state_dict(loaded, path), _arguments(loaded)
    else:
        raise UserError(
            f"{path} ends in '{path.suffix}': give a file of weights, .safetensors, .pt or .pth"
        )
    if not weights:
        raise UserError(f"{path} holds no tensors: give the weights of a network")
    for prefix in _PREFIXES * 2:  # compiled and then wrapped, or the other way round
        weights = without_prefix(weights, prefix)
    return weights, metadata, arguments


def without_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors with their names' prefix taken off, where all of them have it."""
    if not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _read_torch(path: Path) -> Any:
    try:
        require_regular(path)
        with _plain_values_allowed():
            # Mapped, what is not taken (an optimiser, say) costs no memory; torch's older files
            # are no archives and cannot be.
            mmap = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged pickle makes the unpickler raise whatever it likes
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise UserError(
                f"{path} holds a {foreign[1]}, which clarep does not unpickle, as that could run "
                "code hidden in it: save the state dict alone, best as safetensors"
            ) from error
        raise UserError(f"cannot read {path} ({fault(path, error)}): give a whole file") from error


def _plain_values_allowed() -> AbstractContextManager[object]:
    allow = getattr(torch.serialization, "safe_globals", None)  # from torch 2.5
    if allow is None:
        return contextlib.nullcontext()
    makers = [call for kind in ("f4", "f8", "i8") for call in _pickled_by(np.dtype(kind).type(0))]
    return allow([argparse.Namespace, *makers])  # type: ignore[no-any-return]


def _pickled_by(number: np.generic) -> list[object]:
    """Return what a pickle calls to make a number of numpy's: where that lies, it does not say."""
    return [number.__reduce__()[0], np.dtype, type(number.dtype), codecs.encode]


def _state_dict(loaded: object, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a loaded file or of the state dict nested in it, and its ENTRY."""
    if isinstance(loaded, Mapping):
        nested = [name for name in _NESTED if isinstance(loaded.get(name), Mapping)]
        state = loaded[nested[0]] if nested else loaded
        tensors = {
            str(name): value
            for name, value in state.items()
            if isinstance(value, Tensor) and name != _COUNT
        }
        if tensors:
            return tensors, {ENTRY: nested[0]} if nested else {}
    entries = ", ".join(map(str, loaded)) if isinstance(loaded, Mapping) else ""
    found = f"a dictionary of {entries[:100]}" if entries else f"a {type(loaded).__name__}"
    raise UserError(
        f"{path} holds no state dict but {found}: give one, or one under {', '.join(_NESTED)}"
    )


def _arguments(loaded: object) -> dict[str, Any]:
    found = loaded.get("args") if isinstance(loaded, Mapping) else None
    return dict(vars(found)) if isinstance(found, argparse.Namespace) else {}


def _parsed(text: str, kind: type) -> object:
    """Return a value written as text: JSON, but for a text itself."""
    if kind is str:
        return text
    try:
        return cast(object, parse_json(text))
    except ValueError:
        return text
