"""`clarep.doctor`: the page of `clarep doctor`, of any teacher that is at hand in Python."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from clarep.clarid.clarid_config import ClaridConfig, with_settings
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig
from clarep.errors import UserError, check_type
from clarep.select.teacher_check import examine
from clarep.select.teacher_findings import Finding
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher


def doctor(
    teacher: Teacher | str | Path,
    config: ClaridConfig | None = None,
    *,
    data: LabelledImages | DataConfig | None = None,
    image: Path | str | None = None,
    for_images: int = 500,
    **settings: Any,
) -> dict[str, Any]:
    """Try all that CLARID needs of a teacher on a few images, and print each thing as it is found.

    What it is, its taps and noise levels, how it can be differentiated, its round trip, whether it
    knows its classes, what a basis of its Jacobian and what CLARID take here: docs/teachers.md
    explains the lines.

    Args:
        teacher: any `Teacher`, such as `Teacher.from_callable` makes, or what `load_teacher` takes.
        config: the setting that is tried; single fields may be given as keywords instead. Where
            neither names a guidance, it is the default, or 1 where there is no null class.
        data: images of the teacher's classes; without it bundled ones, if they are of its classes.
        image: instead, an image file, as one of the first class; without both a photograph.
        for_images: how many images the cost of CLARID is extrapolated for, at least 1.

    Returns:
        What was found, as `clarep doctor --json` prints it: teacher, taps, noise, differentiation,
        round_trip, recognition, basis and clarid.

    Raises:
        UserError: for what does not fit the teacher, and for whatever the model itself raises.
    """
    if data is not None and image is not None:
        raise UserError("`data` and `image` are both given: give one of them")
    if data is not None:
        check_type("data", data, (LabelledImages, DataConfig), "what load_data gives")
    check_type("for_images", for_images, int, "500, say")
    if for_images < 1:
        raise UserError(f"`for_images={for_images}` is below 1: give 500, say")
    guidance = settings.get("guidance", None if config is None else config.guidance)
    findings = examine(
        str(teacher) if isinstance(teacher, Path) else teacher,
        TeacherOptions(),
        with_settings(config, settings),
        guidance=guidance,
        data=data,
        image=None if image is None else Path(image),
        for_images=for_images,
        tell=lambda text: print(f"{'note':<13}{text}") if text else None,
    )
    return page(findings, print)


def page(findings: Iterable[Finding], write: Callable[[str], object]) -> dict[str, Any]:
    """Write each finding's lines once it is made; return all of them by their keys."""
    answer: dict[str, Any] = {}
    for key, found, lines in findings:
        answer[key] = found
        for name, text in lines:
            write(f"{name:<13}{text}")
    return answer
