"""Tensors on disk as safetensors: atomic, and the same content gives the same bytes."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from clarep.engine.artefacts import atomic_path


def save_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors and metadata as safetensors, atomically."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_with_sorted_metadata(data) if metadata else data)


def sha256_state(module: nn.Module) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of the state dict, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _with_sorted_metadata(data: bytes) -> bytes:
    """Order the metadata of safetensors by key: the library's own order changes by process."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
