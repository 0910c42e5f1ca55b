"""No file of a user's can run code: read in the source, wherever clarep reads one."""

import ast
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import clarep
from clarep.data.cifar import load_cifar10

ROOT = Path(clarep.__file__).parent
PICKLES = {"pickle", "_pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
RESTRICTED = {"data/cifar_batch.py", "teachers/families/edm_convert.py"}
"""Of a table of names, each with an unpickler of its own, in a process without network: CIFAR-10's
batches, and what `clarep convert` reads."""
ALLOWED = {
    "cli/declared.py": {"calls exec", "calls compile"},
    "students/foreign_students.py": {"calls torch.jit.load"},
}
"""Runs clarep's own source, to read options without what they run on; a TorchScript is a program,
as docs/students.md says."""
RUN = {"eval", "exec", "compile", "__import__"}
LOADS = {  # last part of a call -> the argument that keeps it from unpickling or running code
    "load": ("weights_only", True, ("torch",)),
    "read_array": ("allow_pickle", False, ("npy", "np", "numpy", "format")),
}


def found(tree: ast.AST) -> Iterator[str]:
    """Yield what of a module may run a user's code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [one.name for one in node.names] + [getattr(node, "module", None) or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in PICKLES)
        elif isinstance(node, ast.Call):
            yield from of_call(node)
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) in PICKLES
            and node.attr not in ("UnpicklingError", "_Unpickler")
        ):
            yield f"uses {ast.unparse(node)}"


def of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    owner, _, name = called.rpartition(".")
    given = {one.arg: getattr(one.value, "value", None) for one in node.keywords}
    program = called in RUN or called.endswith(("jit.load", "hub.load"))
    if program or (name == "read_pickle" and owner in ("pd", "pandas")):
        yield f"calls {called}"
    if owner in ("np", "numpy") and name == "load" and given.get("allow_pickle") is not False:
        yield f"calls {called} without allow_pickle=False"
    argument, wanted, owners = LOADS.get(name, ("", None, ()))
    if owner.split(".")[-1] in owners and given.get(argument) is not wanted:
        yield f"calls {called} without {argument}={wanted}"
    if given.get("shell") or given.get("trust_remote_code") or given.get("allow_pickle"):
        yield f"calls {called} with {ast.unparse(node)}"
    if owner.endswith("_Unpickler") or called.endswith("_Unpickler"):
        yield f"calls {called}"


@cache
def modules() -> dict[str, ast.Module]:
    paths = sorted(ROOT.rglob("*.py"))
    assert len(paths) > 200
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def test_nothing_is_unpickled_or_run():
    for place, tree in modules().items():
        allowed = ALLOWED.get(place, {"imports pickle"} if place in RESTRICTED else set())
        assert set(found(tree)) <= allowed, place


def test_an_unpickler_finds_what_its_table_holds_alone():
    for place in RESTRICTED:
        classes = [node for node in ast.walk(modules()[place]) if isinstance(node, ast.ClassDef)]
        readers = [one for one in classes if "pickle._Unpickler" in map(ast.unparse, one.bases)]
        assert len(readers) == 1, place
        assert [one.name for one in readers[0].body if isinstance(one, ast.FunctionDef)] == [
            "find_class"
        ]


def test_no_other_module_reaches_an_unpickler():
    """What may be had of them is `convert`, which starts the process."""
    unpicklers = {place.removesuffix(".py").replace("/", ".") for place in RESTRICTED}
    for place, tree in modules().items():
        if place not in RESTRICTED:
            reached = {name for name in imported(tree) if name.startswith(tuple(unpicklers))}
            assert reached <= {"teachers.families.edm_convert.convert"}, place
    within = imported(
        ast.parse("from clarep.data import cifar_batch\nimport clarep.data.cifar_batch")
    )
    assert within >= {"data.cifar_batch"}


def imported(tree: ast.AST) -> set[str]:
    """Return what a module imports of clarep, each as the name of a module or of what it holds."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "clarep's imports are absolute"
            names |= {f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
    return {name.removeprefix("clarep.") for name in names}


def test_only_other_processes_unpickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {b"data": np.full((2, 3072), 7, np.uint8), b"labels": [3, 1]}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))

    def refuse(*_: object) -> None:
        raise AssertionError("unpickled in clarep's own process")

    for name in ("Unpickler", "_Unpickler", "load", "loads", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    assert load_cifar10(folder, "test").labels.tolist() == [3, 1]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=given)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "npy.read_array(stream)",
        "pickle.loads(x)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(place, trust_remote_code=True)",
        "pd.read_pickle(path)",
    ],
)
def test_the_test_sees_it(source: str):
    assert list(found(ast.parse(source)))
