"""A program: a Python batch of CIFAR-10 on its standard input comes out in the binary layout.

`clarep.data.cifar` runs it in a process without network, where the system allows one, and nothing
imports it. The pickle is read by an unpickler that builds bytes, numbers, lists and uint8 arrays,
and nothing else.
"""

import io
import pickle
import resource
import sys
from contextlib import suppress
from typing import Any

MEMORY = 1 << 30  # bytes that a batch, of 31 MB, may take at most


class _Dtype:
    """Numpy's uint8."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of {code!r}")

    def __setstate__(self, state: object) -> None: ...


class _Array:
    """A numpy array of uint8, of whatever size a pickle asks for: shape and bytes come after."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, dtype, by_columns, self.raw = state
        if by_columns or not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array that is not of uint8, row by row")


def _latin1_bytes(text: str, encoding: str | bytes) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"a codec {encoding!r}")
    return text.encode("latin1")


_TABLE: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,  # an argument of the above, not to be called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1_bytes,
}


class _BatchReader(pickle._Unpickler):
    """Python's own, whose memo grows by entry: that of C takes 32 GB where one byte says so."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _TABLE:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _TABLE[module, name]


def records(content: bytes) -> bytes:
    """Return each image's label, a byte, and its 3,072 bytes; whatever is no batch raises."""
    batch = _BatchReader(io.BytesIO(content), encoding="bytes").load()
    data, labels, size = batch[b"data"], batch[b"labels"], 3 * 32 * 32
    if data.shape != (len(labels), size) or len(data.raw) != len(labels) * size:
        raise ValueError("its data are not as many as its labels")
    if not set(labels) <= set(range(10)):
        raise ValueError("a label outside 0 to 9")
    images = (data.raw[i : i + size] for i in range(0, len(data.raw), size))
    return b"".join(bytes([label]) + image for label, image in zip(labels, images, strict=True))


def main() -> None:
    """Read and write; end with 1 and a line that says why not."""
    with suppress(ValueError, OSError):  # where less is allowed already
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
    try:
        sys.stdout.buffer.write(records(sys.stdin.buffer.read()))
    except Exception as error:  # a damaged pickle raises anything
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
