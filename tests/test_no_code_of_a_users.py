"""No file of a user's can run code: read in the source, wherever clarep reads one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import clarep

ROOT = Path(clarep.__file__).parent
PICKLES = {"pickle", "_pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
RESTRICTED = {"data/cifar.py", "teachers/families/edm_convert.py"}
"""Of a table of names, each with an unpickler of its own: CIFAR-10's batches, and what `clarep
convert` reads in a process without network."""
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


def test_a_pickle_of_a_network_is_read_by_convert_alone():
    for place, tree in modules().items():
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {
            one.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for one in n.names
        }
        if place != "teachers/families/edm_convert.py":
            assert not names & {"read_pickle", "convert_here"}, place


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
