"""Tensors on disk as safetensors: atomic, the same content gives the same bytes, damage is told."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clarep.engine.artefacts import atomic_path, open_regular, sha256_file, sha256_stream
from clarep.errors import UserError, said_by

_MOST_HEADER = 16 << 20  # the library would take 100 MB of text, which become gigabytes
_DIGEST = "data_sha256"  # in the metadata: of all bytes behind the header


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and metadata as safetensors, atomically, with the SHA-256 of their bytes."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.writelines(_pieces(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return what `save_tensors` writes."""
    return b"".join(_pieces(tensors, metadata))


def _pieces(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None
) -> Iterator[bytes | memoryview]:
    whole = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    length = 8 + int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8:length]), memoryview(whole)[length:]
    given = dict(metadata or {}) | {_DIGEST: hashlib.sha256(data).hexdigest()}
    header["__metadata__"] = dict(sorted(given.items()))  # the library's order changes by process
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned to 8 bytes
    yield len(text).to_bytes(8, "little") + text
    yield data


def read_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its metadata.

    what: that is read, such as "a student", for the error. Raises UserError if there is no such
    file, it is cut short or of another kind, its header has over 16 MiB, or its tensors are not
    those that `save_tensors` wrote.
    """
    try:
        check_header(path)
        with safe_open(path, framework="pt") as archive:
            metadata = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
        written = metadata.get(_DIGEST)
        if written is not None and written != _sha256_of_data(path):
            raise ValueError("its tensors were changed after it was written: their SHA-256 differs")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"cannot read {what} from {path} ({fault(path, error)}): give a whole file"
        ) from error
    return tensors, metadata


def check_header(path: Path) -> None:
    """Raise OSError for what is no regular file, ValueError for a header of over 16 MiB."""
    with open_regular(path) as stream:
        declared = int.from_bytes(stream.read(8), "little")
    if declared > _MOST_HEADER:
        raise ValueError(f"its header declares {declared} bytes, and {_MOST_HEADER} are the most")


def _sha256_of_data(path: Path) -> str:
    with open(path, "rb") as stream:
        stream.seek(int.from_bytes(stream.read(8), "little"), 1)
        return sha256_stream(stream)


def fault(path: Path, error: BaseException) -> str:
    """Return why a file cannot be read: it is empty, or what the library says."""
    if path.is_file() and path.stat().st_size == 0:
        return "it is empty, zero bytes"
    return said_by(error)


def check_weights(weights: Mapping[str, Tensor], network: nn.Module, place: str) -> None:
    """Raise UserError if a weight of the network is not finite, or of another kind of number.

    weights: for the network's state dict, by its names; others are passed over.
    place: where they were found, for the error.
    """
    for name, own in network.state_dict().items():
        given = weights.get(name)
        if given is None:
            continue
        if given.is_floating_point() != own.is_floating_point():
            raise UserError(
                f"the weights {name} of {place} are {given.dtype}, where the network computes with "
                f"{own.dtype}: give weights that are not quantised"
            )
        if not bool(given.float().isfinite().all()):
            raise UserError(
                f"the weights {name} of {place} hold NaN or infinity: give those of a training "
                "that did not diverge, or a whole copy of the file"
            )


class _Undrawn(TorchFunctionMode):
    """Within it no tensor is filled by normal draws: of one without memory torch imports sympy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs or {})


def check_size(weights: Mapping[str, Tensor], build: Callable[[], nn.Module]) -> None:
    """Raise ValueError if a network would take more memory than the weights that are for it.

    build: makes it; here without memory. A file may tell of another network than it holds.
    """
    with torch.device("meta"), _Undrawn():
        wanted = sum(own.numel() for own in build().state_dict().values())
    found = sum(given.numel() for given in weights.values())
    if wanted > found:
        raise ValueError(f"the network has {wanted} numbers and the file {found}")


def sha256_state(module: nn.Module) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of the state dict, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def note_file(module: nn.Module, path: Path) -> None:
    """Note on a module that its weights, as they are, are those of a file."""
    module.loaded_sha256 = sha256_file(path), sha256_state(module)  # type: ignore[assignment]


def note_identity(module: nn.Module, identity: str) -> None:
    """Note on a module that its weights, as they are, and words for the rest tell it apart."""
    state = sha256_state(module)
    told = hashlib.sha256(f"{identity}\n{state}".encode()).hexdigest()
    module.loaded_sha256 = told, state  # type: ignore[assignment]


def weights_hash(module: nn.Module) -> dict[str, str]:
    """Return `sha256`, that of the file which holds the weights as they are (see `note_file`).

    Of a model with an identity beside its weights it is that of both (see `note_identity`).
    Of weights that were made or changed in memory it is `state_sha256`, of the state dict.
    """
    state = sha256_state(module)
    of_file, as_read = getattr(module, "loaded_sha256", ("", ""))
    return {"sha256": of_file} if state == as_read else {"state_sha256": state}


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
