"""From NVlabs' pickle of an EDM network to safetensors, without running what the pickle holds.

NVlabs' pickles carry the source of their classes and run it when they are opened. Here nothing
of it runs: a name that the pickle asks for is looked up in a fixed table, whose entries only
record what they are given, and any other name ends the reading. `convert` does even that in a
process of its own, cut off from the network as far as the system allows (docs/teachers/edm.md).
"""

import io
import json
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clarep.engine.artefacts import open_regular
from clarep.engine.offline import last_line, offline_prefix, run_offline
from clarep.engine.tensors import save_tensors
from clarep.errors import UserError, said_by
from clarep.teachers.families.edm import build_network, metadata_of, read_spec

# Isolated, Python looks neither where --user installs nor in PYTHONPATH: ours is told to it.
_LIBRARIES = [str(Path(__file__).parents[3]), str(Path(torch.__file__).parents[1])]
_PROGRAM = (
    f"import sys; sys.path += {_LIBRARIES!r}; "
    "from clarep.teachers.families.edm_convert import main; sys.exit(main())"
)
_FORMATS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}


class _RefusedError(pickle.UnpicklingError):
    """The pickle asks for a name that is not in the table."""


class _Persistent:
    """What `torch_utils.persistence` would rebuild by running the pickle's own source."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.class_name, self.state = str(meta["class_name"]), dict(meta["state"])


class _Container:
    """A plain `torch.nn.ModuleDict`."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class _Tensor:
    """A tensor: a storage, still as the bytes that torch.save made of it, and what part of it."""

    def __init__(self, data: bytes, offset: int, size: Any, stride: Any, *_: Any) -> None:
        self.data, self.view = data, (size, stride, offset)

    def load(self) -> Tensor:
        """Read it by torch's own restricted unpickler; as_strided refuses what lies outside."""
        storage = torch.load(io.BytesIO(self.data), map_location="cpu", weights_only=True)
        whole: Tensor = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)
        return whole.as_strided(*self.view)


class _Dtype:
    """A numpy dtype of numbers."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _first(given: Any, *_: Any) -> Any:
    return given


def _scalar(dtype: _Dtype, data: bytes) -> float:
    """Return a numpy scalar as a Python number: NVlabs' arguments hold some np.sqrt."""
    order = ">" if dtype.order == ">" else "<"
    value: float = struct.unpack(f"{order}{_FORMATS[dtype.code]}", data)[0]
    return value


_TABLE: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Persistent,
    ("torch.nn.modules.container", "ModuleDict"): _Container,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.storage", "_load_from_bytes"): _first,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
"""All that a pickle can call: nothing of it runs code, opens files or imports modules."""


class _Reader(pickle._Unpickler):
    """Python's own, whose memo grows by entry: that of C takes 32 GB where one byte says so."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _TABLE:
            raise _RefusedError(f"{module}.{name}")
        return _TABLE[module, name]


def read_pickle(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return class name, arguments and weights of the network in NVlabs' pickle (`ema`).

    Raises UserError if there is none, or it asks for a name outside the table.
    """
    try:
        with open_regular(path) as stream:
            content = _Reader(stream).load()
        network = content["ema"]
        arguments = json.loads(json.dumps(network.state["_init_kwargs"]))
        weights: dict[str, Tensor] = {}
        _collect(network, "", weights)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give a readable file") from error
    except _RefusedError as refused:
        raise UserError(
            f"{path} asks for {refused}, which no network of NVlabs' edm needs: it was refused "
            "and did not run; do not trust this file"
        ) from refused
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{path} is no whole pickle of an EDM network ({said_by(error)}): give one that "
            "NVlabs' edm repository wrote"
        ) from error
    return network.class_name, arguments, weights


def _collect(module: Any, prefix: str, weights: dict[str, Tensor]) -> None:
    """Put the module's parameters and buffers into `weights`, by their names in a state dict."""
    for group in ("_parameters", "_buffers"):
        for name, tensor in module.state[group].items():
            if tensor is not None:
                weights[f"{prefix}{name}"] = tensor.load()
    for name, child in module.state["_modules"].items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", weights)


def convert_here(source: Path, target: Path) -> int:
    """Convert in this process, if the weights fit the network; return their number."""
    class_name, arguments, weights = read_pickle(source)
    build_network(read_spec(class_name, arguments, source), weights, source)
    save_tensors(target, weights, metadata_of(class_name, arguments))
    return len(weights)


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Convert in a process of its own, without network.

    Returns `weights`, their number, and `offline`, whether the system cut the process off; where
    it does not allow that, Python's sockets alone are closed there. Raises UserError.
    """
    done = run_offline(_PROGRAM, [str(place.resolve()) for place in (source, target)])
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise UserError(
            f"the process that read {source} ended with {done.returncode} ({last_line(done)}): "
            "nothing was written; give a whole file, free some memory or, where a module is "
            "missing, install clarep and torch in one virtual environment"
        ) from None
    if "refused" in answer:
        raise UserError(answer["refused"])
    return answer | {"offline": bool(offline_prefix())}


def main() -> int:
    """Convert as the process that `convert` starts; print a JSON object, return the exit code."""
    source, target = (Path(argument) for argument in sys.argv[1:])
    try:
        answer: dict[str, Any] = {"weights": convert_here(source, target)}
    except UserError as mistake:
        answer = {"refused": str(mistake)}
    except OSError as error:
        answer = {
            "refused": f"cannot write {target} ({error.strerror}): give another `out`, or free "
            "some space"
        }
    print(json.dumps(answer))
    return 2 if "refused" in answer else 0
