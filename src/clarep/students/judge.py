"""The bundled judge: a classifier that shares no training image with the bundled teachers.

Trained by tools/train_judge.py on the images of Fashion-MNIST that no bundled teacher has seen.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from clarep.students.student import Student
from clarep.students.student_files import load_student


def load_judge() -> Student:
    """Load the bundled judge: ten garments before any background, 32 px; `Student`'s images."""
    path = Path(str(files("clarep.students") / "assets" / "judge.safetensors"))
    return load_student(path).requires_grad_(False)


def judge_card() -> dict[str, Any]:
    """Return the bundled judge's recipe and test accuracies."""
    text = (files("clarep.students") / "assets" / "judge.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    return card
