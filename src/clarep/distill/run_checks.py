"""Whether canonical set, teacher, classifier and data belong together; one sentence if not."""

from collections.abc import Mapping
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.labelled import LabelledImages
from clarep.distill.methods import METHODS, MethodSpec
from clarep.distill.run_parts import Sources
from clarep.engine.artefacts import as_read, differences
from clarep.errors import UserError, unknown_name
from clarep.students.student import Student
from clarep.teachers.teacher import Teacher


def method_named(name: str) -> MethodSpec:
    """Return the method of that name; raises UserError if there is none."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]


def check_sources(
    method: str,
    data: LabelledImages,
    sources: Sources,
    data_options: Mapping[str, Any] | None,
) -> None:
    """Raise UserError if a method lacks what it needs, or is given what does not fit the data.

    sources: those that the method looks at.
    """
    spec = method_named(method)
    canonical, teacher, classifier = sources.canonical, sources.teacher, sources.classifier
    needs = {
        "`canonical`": (spec.canonical_kind is not None, canonical, "a folder of clarep identify"),
        "`teacher`": (spec.needs_teacher, teacher, "a diffusion model, such as backdrops"),
        "`classifier`": (spec.needs_classifier, classifier, "a folder of clarep distill"),
    }
    for option, (needed, given, what) in needs.items():
        if needed and given is None:
            raise UserError(f"method {method} needs {option}: give {what}")
    if canonical is not None:
        check_canonical(canonical, data, data_options, teacher)
        check_kind(method, canonical)
    elif teacher is not None:
        check_teacher(teacher, data)
    if classifier is not None:
        check_classifier(classifier, data)


def check_kind(method: str, canonical: CanonicalSet) -> None:
    """Raise UserError if the set was not made as the method wants it."""
    spec = method_named(method)
    made = canonical.manifest["config"]["clarid"]
    kind, guidance = made["kind"], made["guidance"]
    weak = spec.stronger_guidance and guidance <= 1
    if kind != spec.canonical_kind:
        takes, found = f"kind {spec.canonical_kind}", f"kind {kind}"
    elif spec.canonical_guidance not in (None, guidance):
        takes, found = f"guidance {spec.canonical_guidance:g}", f"guidance {guidance:g}"
    elif weak:
        takes, found = "a guidance above 1", f"guidance {guidance:g}"
    else:
        return
    needed = 3.0 if weak else spec.canonical_guidance
    command = f"`clarep identify --kind {spec.canonical_kind}`"
    if needed is not None:
        command = f"`clarep identify --kind {spec.canonical_kind} --guidance {needed:g}`"
    raise UserError(
        f"method {method} takes a canonical set of {takes} and {canonical.folder} is of {found}: "
        f"make one with {command} and else the options of that set"
    )


def check_canonical(
    canonical: CanonicalSet,
    data: LabelledImages,
    data_options: Mapping[str, Any] | None,
    teacher: Teacher | None,
) -> None:
    """Raise UserError if the set was made of other data, classes or teacher than the student's."""
    config, folder = canonical.manifest["config"], canonical.folder
    if teacher is not None and config["teacher_sha256"] != teacher.fingerprint:
        raise UserError(
            f"{folder} was made with another teacher than `teacher` (weights "
            f"{config['teacher_sha256'][:12]} there, {teacher.fingerprint[:12]} given): give the "
            "teacher that made it, or leave `teacher` out"
        )
    if tuple(config["class_names"]) != tuple(data.class_names):
        theirs, ours = config["class_names"], data.class_names
        pairs = zip(theirs, ours, strict=False)
        first = next((f"'{a}' there, '{b}' here" for a, b in pairs if a != b), None)
        first = first or f"{len(theirs)} there, {len(ours)} here"
        raise UserError(
            f"{folder} was made with a teacher of other classes than {data.name} has ({first}): "
            "give a set whose teacher knows these classes"
        )
    _check_images(canonical, data, data_options)


def _check_images(
    canonical: CanonicalSet, data: LabelledImages, data_options: Mapping[str, Any] | None
) -> None:
    """Raise UserError unless the set's images and labels are, by their content, those in the data.

    How either was read (a path, an option) is only told.
    """
    theirs, ours = canonical.tensors["sample"].shape[1:], data.images([0]).shape[1:]
    if theirs != ours:
        raise UserError(
            f"samples in {canonical.folder} are {theirs[1]}x{theirs[2]} and images of {data.name} "
            f"{ours[1]}x{ours[2]}: give `image_size={theirs[1]}`"
        )
    config = canonical.manifest["config"]
    chosen, options = config["chosen"], config.get("data_options")
    content = data.sha256(chosen) if max(chosen) < len(data) else None
    there, here = dict[str, Any](), dict[str, Any]()
    if options and data_options:
        there, here = {"data_options": options}, {"data_options": dict(data_options)}
    there, here = there | {"data_sha256": config["data_sha256"]}, here | {"data_sha256": content}
    if difference := differences(there, as_read(here)):
        raise UserError(
            f"{canonical.folder} was made of other data than the student's ({difference}): give a "
            "set of these data, or the data that it was made of, as they were"
        )


def check_teacher(teacher: Teacher, data: LabelledImages) -> None:
    """Raise UserError unless the teacher takes the data's images and knows their classes."""
    if tuple(teacher.class_names) != tuple(data.class_names):
        raise UserError(
            f"the teacher's classes ({', '.join(teacher.class_names[:3])} ...) are not those of "
            f"{data.name} ({', '.join(data.class_names[:3])} ...): give a teacher of these classes"
        )
    ours = tuple(data.images([0]).shape[1:])
    if ours != teacher.image_shape:
        raise UserError(
            f"images of {data.name} are {ours[1]}x{ours[2]} and the teacher takes "
            f"{teacher.image_shape[1]}x{teacher.image_shape[2]}: "
            f"give `image_size={teacher.image_shape[1]}`"
        )


def check_classifier(classifier: Student, data: LabelledImages) -> None:
    """Raise UserError unless the classifier takes the data's images and has their classes."""
    if tuple(classifier.info.class_names) != tuple(data.class_names):
        raise UserError(
            f"the classifier's classes ({', '.join(classifier.info.class_names[:3])} ...) are not "
            f"those of {data.name} ({', '.join(data.class_names[:3])} ...): give one of these "
            "classes"
        )
    ours, theirs = tuple(data.images([0]).shape[1:]), classifier.info.image_shape
    if ours != theirs:
        raise UserError(
            f"images of {data.name} are {ours[1]}x{ours[2]} and the classifier takes "
            f"{theirs[1]}x{theirs[2]}: give `image_size={theirs[1]}`"
        )
