"""What the page shows, as a command and as Python: to be copied."""

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig
from clarep.clarid.directions import SPARING
from clarep.data.load import DataConfig
from clarep.engine.flags import flags
from clarep.explore.explorer import Chosen, Setting
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher


@dataclass(frozen=True)
class Given:
    """What the page was opened with, and what its sliders say."""

    teacher: str
    teacher_options: TeacherOptions
    data: DataConfig
    clarid: ClaridConfig

    def at(self, setting: Setting) -> "Given":
        """Return it with the sliders at a setting; without directions it is of kind none."""
        config = replace(self.clarid, t=setting.t, guidance=setting.guidance, kind=setting.kind)
        config = replace(config, tap=setting.tap, k=setting.k or 1)
        return replace(self, clarid=config if setting.k else replace(config, kind="none"))

    def clarid_of(self, teacher: Teacher) -> Clarid:
        """Return CLARID of these options with a teacher that is loaded already."""
        return Clarid(teacher, self.clarid)


def as_command(given: Given, chosen: Chosen, class_name: str, own_class: bool) -> str:
    """Return the `clarep identify` that finds the same canonical sample, or say why none does.

    A browser tells of an upload its file's name alone.
    """
    teacher = "" if given.teacher == "backdrops" else f" --teacher {shlex.quote(given.teacher)}"
    tail = f"{teacher}{flags(given.teacher_options)}{flags(given.clarid)} --only"
    out = "--control-images 0 --out runs/explored"
    if chosen.index is not None:
        if not own_class:
            return "# clarep identify takes an image as one of its own class: copy it as Python"
        return f"clarep identify{flags(given.data)}{tail} {chosen.index} {out}"
    if given.clarid.kind in SPARING:
        return (
            f"# for one image alone clarep identify has no kind {given.clarid.kind}, which "
            "compares classes: copy it as Python"
        )
    folder, photo = shlex.quote(f"photo/{class_name}"), shlex.quote(chosen.name)
    side = chosen.pixels.shape[1]
    return (
        f"mkdir -p {folder} && cp {photo} {folder}\n"
        f"clarep identify --data photo --image-size {side}{tail} 0 {out}"
    )


def as_python(given: Given, chosen: Chosen, class_name: str) -> str:
    """Return the lines of Python that give the same canonical sample, in `reps.sample`."""
    setting = ", ".join(_arguments(given.clarid))
    teacher, names = f"{given.teacher!r}", "Clarid"
    if options := ", ".join(_arguments(given.teacher_options)):
        teacher = f"load_teacher({teacher}, TeacherOptions({options}))"
        names += ", TeacherOptions, load_teacher"
    if chosen.index is None:
        side = chosen.pixels.shape[1]
        lines = [
            "from pathlib import Path",
            f"from clarep import {names}",
            "from clarep.data.decode_image import decode_image",
            "",
            f"path = Path({chosen.name!r})",
            f"image = decode_image(path, path.name, image_size={side}).transpose(2, 0, 1)",
        ]
        images, seed = "image[None]", ""
    else:
        config = ", ".join(_arguments(given.data))
        lines = [
            f"from clarep import {names}, DataConfig, load_data",
            "",
            f"data = load_data(DataConfig({config}))",
        ]
        images, seed = f"data.images([{chosen.index}])", f", seed={chosen.index}"
    lines += [
        f"clarid = Clarid({teacher}, {setting})",
        f"reps = clarid({images}, [{class_name!r}]{seed})",
        'reps.figure().savefig("canonical.pdf")',
    ]
    if any("Path(" in line for line in lines) and "from pathlib import Path" not in lines:
        lines.insert(0, "from pathlib import Path")
    return "\n".join(lines)


def _arguments(config: Any) -> list[str]:
    """Return the fields that differ from their defaults as arguments in Python."""
    values = [(field, getattr(config, field.name)) for field in fields(config)]
    given = [(field.name, value) for field, value in values if value != field.default]
    shown = [(name, f"Path({str(v)!r})" if isinstance(v, Path) else repr(v)) for name, v in given]
    return [f"{name}={value}" for name, value in shown]
