import ast
import subprocess
import sys
from pathlib import Path

import clarep.teachers

LEFT = ("clarep.data", "clarep.engine", "clarep.errors", "clarep.teachers", "clarep.sampling.ode")


def test_importing_teachers_is_light():
    code = (
        "import sys, clarep.teachers;"
        "print([m for m in ('matplotlib','sklearn','skimage','torchvision','scipy')"
        " if m in sys.modules], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_teachers_import_only_from_rooms_to_their_left():
    """Of sampling they know the type of a denoiser alone."""
    imported = {}
    for path in Path(clarep.teachers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            imported |= {m: path.name for m in modules if m.startswith("clarep")}
    assert len(imported) > 10
    assert {m: by for m, by in imported.items() if not m.startswith(LEFT)} == {}
