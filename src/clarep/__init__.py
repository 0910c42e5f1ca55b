"""Canonical latent representations of class-conditional diffusion models: the public names.

A name is imported when it is first used, so that a room of the house can be imported without
the rooms to its right.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarep.audit.audit import Audit as Audit
    from clarep.audit.audit_config import AuditConfig as AuditConfig
    from clarep.audit.audit_run import audit as audit
    from clarep.clarid.canonical_set import CanonicalSet as CanonicalSet
    from clarep.clarid.clareps import CLAReps as CLAReps
    from clarep.clarid.clarid import Clarid as Clarid
    from clarep.clarid.clarid import ClaridConfig as ClaridConfig
    from clarep.clarid.identify import identify as identify
    from clarep.clarid.identify import identify_steps as identify_steps
    from clarep.data.class_balance import class_balanced_choice as class_balanced_choice
    from clarep.data.labelled import LabelledImages as LabelledImages
    from clarep.data.labelled import to_uint8 as to_uint8
    from clarep.data.labelled import to_unit_range as to_unit_range
    from clarep.data.load import DataConfig as DataConfig
    from clarep.data.load import load_data as load_data
    from clarep.distill.distill_config import DistillConfig as DistillConfig
    from clarep.distill.distill_config import RivalsConfig as RivalsConfig
    from clarep.distill.methods import Method as Method
    from clarep.distill.train_student import cadistill as cadistill
    from clarep.distill.train_student import train_student as train_student
    from clarep.engine.artefacts import Progressed as Progressed
    from clarep.engine.fan_out import EngineConfig as EngineConfig
    from clarep.errors import UserError as UserError
    from clarep.report.html import build_report as build_report
    from clarep.report.hub_folder import push_to_hub as push_to_hub
    from clarep.robustness.attacks.attack_config import AttackConfig as AttackConfig
    from clarep.robustness.evaluation import Evaluation as Evaluation
    from clarep.robustness.evaluation import Measurement as Measurement
    from clarep.robustness.suite.suite import robustness_suite as robustness_suite
    from clarep.robustness.suite.suite_config import SuiteConfig as SuiteConfig
    from clarep.select.auto_setting import auto_setting as auto_setting
    from clarep.select.class_evidence import ClassEvidence as ClassEvidence
    from clarep.select.class_evidence import class_evidence as class_evidence
    from clarep.select.examination import doctor as doctor
    from clarep.students.student import Student as Student
    from clarep.students.student import StudentInfo as StudentInfo
    from clarep.students.student_files import build_student as build_student
    from clarep.students.student_files import load_student as load_student
    from clarep.study.comparison import Comparison as Comparison
    from clarep.study.comparison import compare as compare
    from clarep.study.runs import StudiedRun as StudiedRun
    from clarep.study.runs import read_run as read_run
    from clarep.teachers.options import TeacherOptions as TeacherOptions
    from clarep.teachers.teacher import Teacher as Teacher
    from clarep.teachers.zoo import load_teacher as load_teacher

__version__: str

_NAMES = {
    "audit.audit": "Audit",
    "audit.audit_config": "AuditConfig",
    "clarid.canonical_set": "CanonicalSet",
    "clarid.clareps": "CLAReps",
    "clarid.clarid": "Clarid ClaridConfig",
    "clarid.identify": "identify identify_steps",
    "data.class_balance": "class_balanced_choice",
    "data.labelled": "LabelledImages to_uint8 to_unit_range",
    "data.load": "DataConfig load_data",
    "distill.distill_config": "DistillConfig RivalsConfig",
    "distill.methods": "Method",
    "distill.train_student": "cadistill train_student",
    "engine.artefacts": "Progressed",
    "engine.fan_out": "EngineConfig",
    "errors": "UserError",
    "report.html": "build_report",
    "report.hub_folder": "push_to_hub",
    "robustness.attacks.attack_config": "AttackConfig",
    "robustness.evaluation": "Evaluation Measurement",
    "robustness.suite.suite": "robustness_suite",
    "robustness.suite.suite_config": "SuiteConfig",
    "select.auto_setting": "auto_setting",
    "select.class_evidence": "ClassEvidence class_evidence",
    "select.examination": "doctor",
    "students.student": "Student StudentInfo",
    "students.student_files": "build_student load_student",
    "study.comparison": "Comparison compare",
    "study.runs": "StudiedRun read_run",
    "teachers.options": "TeacherOptions",
    "teachers.teacher": "Teacher",
    "teachers.zoo": "load_teacher",
}
"""Module -> its public names, which type checkers read above."""
_MODULES = {name: f"clarep.{module}" for module, names in _NAMES.items() for name in names.split()}

_MODULES["audit"] = "clarep.audit"  # a room that can be called

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name == "__version__":
        return import_module("importlib.metadata").version("clarep")
    if name not in _MODULES:
        raise AttributeError(f"module 'clarep' has no attribute '{name}'")
    module = import_module(_MODULES[name])
    value = module if name == "audit" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(
        {*__all__, "__version__", "__all__", "__doc__", "__file__", "__name__", "__path__"}
    )
