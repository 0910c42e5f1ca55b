"""The street of rooms: each imports from those to its left alone; a file name occurs once."""

import ast
from collections import Counter
from pathlib import Path

import clarep

SRC = Path(clarep.__file__).parent
STREET = [
    "errors",
    "engine",
    "sampling",
    "geometry",
    "data",
    "teachers",
    "clarid",
    "select",
    "audit",
    "students",
    "distill",
    "robustness",
    "study",
    "report",
    "explore",
    "cli",
]
"""From left to right."""
SAME_NAMES = {"__init__.py", "kd.py", "rkd.py"}
"""Of packages, and of the pairs of a loss and its method."""


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(file: Path) -> list[tuple[int, str]]:
    """Line and room of everything of clarep that a file imports, within functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [
        (node.lineno, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
    ]
    found += [
        (node.lineno, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    return [(line, room_of(name)) for line, name in found if name.split(".")[0] == "clarep"]


def test_every_room_stands_in_the_street():
    rooms = {path.name for path in SRC.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(STREET) - {"errors"}


def test_a_room_imports_from_its_left_alone():
    files = [file for file in SRC.rglob("*.py") if file.parent != SRC]
    wrong = [
        f"{file.relative_to(SRC)}:{line} imports {room}"
        for file in files
        for line, room in imports(file)
        if room and STREET.index(room) > STREET.index(file.relative_to(SRC).parts[0])
    ]
    assert wrong == [] and len(files) > 100


def test_a_file_name_occurs_once():
    """But for commands, which are called as what they do."""
    files = [file for file in SRC.rglob("*.py") if "cli" not in file.relative_to(SRC).parts]
    counts = Counter(file.name for file in files if file.name not in SAME_NAMES)
    assert [name for name, count in counts.items() if count > 1] == []


def test_a_file_fits_in_300_lines():
    long = [file.name for file in SRC.rglob("*.py") if len(file.read_text().splitlines()) > 300]
    assert long == []
