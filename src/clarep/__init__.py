"""Canonical latent representations of class-conditional diffusion models: the public names.

A name is imported when it is first used, so that a room of the house can be imported without
the rooms to its right.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarep.clarid.canonical_set import CanonicalSet
    from clarep.clarid.clareps import CLAReps
    from clarep.clarid.clarid import Clarid, ClaridConfig
    from clarep.clarid.identify import identify
    from clarep.data.labelled import LabelledImages, class_balanced_choice, to_uint8, to_unit_range
    from clarep.data.load import DataConfig, load_data
    from clarep.distill.distill_config import DistillConfig
    from clarep.distill.methods import Method
    from clarep.distill.train_student import cadistill, train_student
    from clarep.errors import UserError
    from clarep.report.html import build_report
    from clarep.robustness.evaluation import Evaluation
    from clarep.robustness.suite.suite import robustness_suite
    from clarep.robustness.suite.suite_config import SuiteConfig
    from clarep.students.student import Student
    from clarep.students.student_files import build_student, load_student
    from clarep.study.comparison import compare
    from clarep.study.runs import read_run
    from clarep.teachers.teacher import Teacher
    from clarep.teachers.zoo import load_teacher

__version__: str

__all__ = [
    "CLAReps",
    "CanonicalSet",
    "Clarid",
    "ClaridConfig",
    "DataConfig",
    "DistillConfig",
    "Evaluation",
    "LabelledImages",
    "Method",
    "Student",
    "SuiteConfig",
    "Teacher",
    "UserError",
    "__version__",
    "build_report",
    "build_student",
    "cadistill",
    "class_balanced_choice",
    "compare",
    "identify",
    "load_data",
    "load_student",
    "load_teacher",
    "read_run",
    "robustness_suite",
    "to_uint8",
    "to_unit_range",
    "train_student",
]

_MODULES = {
    "CLAReps": "clarep.clarid.clareps",
    "CanonicalSet": "clarep.clarid.canonical_set",
    "Clarid": "clarep.clarid.clarid",
    "ClaridConfig": "clarep.clarid.clarid",
    "DataConfig": "clarep.data.load",
    "DistillConfig": "clarep.distill.distill_config",
    "Evaluation": "clarep.robustness.evaluation",
    "LabelledImages": "clarep.data.labelled",
    "Method": "clarep.distill.methods",
    "Student": "clarep.students.student",
    "SuiteConfig": "clarep.robustness.suite.suite_config",
    "Teacher": "clarep.teachers.teacher",
    "UserError": "clarep.errors",
    "build_report": "clarep.report.html",
    "build_student": "clarep.students.student_files",
    "cadistill": "clarep.distill.train_student",
    "class_balanced_choice": "clarep.data.labelled",
    "compare": "clarep.study.comparison",
    "identify": "clarep.clarid.identify",
    "load_data": "clarep.data.load",
    "load_student": "clarep.students.student_files",
    "load_teacher": "clarep.teachers.zoo",
    "read_run": "clarep.study.runs",
    "robustness_suite": "clarep.robustness.suite.suite",
    "to_uint8": "clarep.data.labelled",
    "to_unit_range": "clarep.data.labelled",
    "train_student": "clarep.distill.train_student",
}


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name == "__version__":
        return import_module("importlib.metadata").version("clarep")
    if name not in _MODULES:
        raise AttributeError(f"module 'clarep' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
