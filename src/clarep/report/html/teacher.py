"""The teacher of a canonical set, if it can be had and is the very one."""

from dataclasses import dataclass, fields
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.errors import UserError
from clarep.teachers.classes_by_name import of_classes
from clarep.teachers.options import options_of
from clarep.teachers.zoo import load_teacher


@dataclass(frozen=True)
class TeacherOfSet:
    """CLARID as the set was made with it, or why that cannot be had."""

    clarid: Clarid | None
    reason: str
    """Why there is none; empty if there is one."""


def teacher_of(canon: CanonicalSet | None) -> TeacherOfSet:
    """Load the teacher that the manifest names, on the CPU, and check that it is the very one."""
    if canon is None:
        return TeacherOfSet(None, "no canonical set was given (`canon`)")
    config: dict[str, Any] = canon.manifest["config"]
    spec = str(config.get("teacher", ""))
    try:
        whole = load_teacher(spec, options_of(config.get("teacher_options", {})))
        teacher = of_classes(whole, config.get("class_names", ()))
        known = {field.name for field in fields(ClaridConfig)}
        given = {key: value for key, value in config["clarid"].items() if key in known}
        clarid = Clarid(teacher, ClaridConfig(**given))
    except (UserError, OSError, TypeError, KeyError) as error:
        return TeacherOfSet(None, f"the teacher '{spec}' cannot be loaded here ({error})")
    if teacher.fingerprint != config.get("teacher_sha256"):
        return TeacherOfSet(
            None,
            f"the teacher '{spec}' has other weights than the set was made with (its SHA-256 "
            "differs)",
        )
    return TeacherOfSet(clarid, "")
