"""Files that are no kind of their own: JSON, TOML, tensors, and what a kill left half written."""

from collections.abc import Iterator
from pathlib import Path

from clarep.engine.artefacts import open_regular, parse_json, unseal
from clarep.engine.lock import is_half_written
from clarep.engine.tensors import read_tensors
from clarep.errors import refusing
from clarep.report.verify.faults import Fault, refusal
from clarep.study.schema import read_toml


def file_faults(path: Path) -> Iterator[Fault]:
    """Yield what is wrong with one file; nothing is checked of a kind that clarep does not read."""
    if is_half_written(path.name):
        yield Fault(str(path), "a process that is no more left it half written", (path,))
    elif path.suffix == ".json":
        yield from refusal(path, lambda: _read_any_json(path), (path,))
    elif path.suffix == ".toml":
        yield from refusal(path, lambda: read_toml(path))  # which somebody wrote by hand
    elif path.suffix == ".safetensors":
        yield from refusal(path, lambda: read_tensors(path, "tensors"), (path,))


def _read_any_json(path: Path) -> None:
    mend = "delete it and run the command that wrote it again, or put a copy back"
    with refusing("it cannot be read", mend, (ValueError,)), open_regular(path) as stream:
        value = parse_json(stream.read().decode("utf-8"))
        if isinstance(value, dict):
            unseal(value)
