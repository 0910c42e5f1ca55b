"""Diffusers' class-conditional `UNet2DModel` of pixels, with a DDPM schedule."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clarep.engine.artefacts import parse_json
from clarep.engine.hub import checkpoint_folder
from clarep.errors import UserError, refusing
from clarep.teachers.classes_by_name import Classes, classes_of_table
from clarep.teachers.export_unet import EXPORT_CLASS, load_export
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions, check_options, read_class_names
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import (
    load_part,
    load_schedule,
    maps_of,
    names_of,
    other_family,
    read_json,
    scheduler_config,
)
from clarep.teachers.teacher import Teacher

_TAKES = ("device", "bf16", "class_names", "attention")
_NAMES_NAME = "class_names.json"
_TAP = re.compile(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)(\.(resnets|attentions)\.\d+)?")


def load(place: str, options: TeacherOptions) -> Teacher:
    """Load a `UNet2DModel`, or clarep's own export, from a folder or the Hugging Face hub.

    place: a pipeline of unet and scheduler, or the model alone with its scheduler_config.json in
    it or up to two folders above. Raises UserError.
    """
    folder = checkpoint_folder(place)
    unet_folder = _unet_folder(folder)
    kind = read_json(unet_folder / "config.json").get("_class_name")
    if kind == EXPORT_CLASS:  # clarep's own: data alone is read, the folder's code is not run
        check_options(options, "", ("device",))
        return load_export(unet_folder, options.device)
    if kind != "UNet2DModel":
        raise UserError(
            f"{unet_folder} holds a {kind}: diffusers: takes a UNet2DModel with class embeddings"
        )
    check_options(options, "diffusers", _TAKES)
    root = _schedule_folder(folder)
    schedule = load_schedule(root)
    unet = load_part(unet_folder, "UNet2DModel")
    classes = _classes(unet.config, place, (folder, unet_folder, root), options)
    return unet_teacher(unet, schedule, options, classes)


def unet_teacher(
    unet: Any, schedule: DDPM, options: TeacherOptions, classes: Classes
) -> ForeignTeacher:
    """Return the teacher of diffusers' model and the schedule it was trained with."""
    if unet.config.time_embedding_type != "positional":
        raise UserError(
            f"the UNet2DModel embeds time by '{unet.config.time_embedding_type}': supported is "
            "'positional', which takes the timesteps of a DDPM schedule and those between"
        )
    taps, default_tap = unet_taps(unet)
    return ForeignTeacher(
        unet,
        schedule,
        options,
        latent_shape=maps_of(unet),
        class_names=classes.names,
        default_tap=default_tap,
        tap_modules=taps,
        # Of a table of labels the last row, where it stands for none.
        conditions=torch.tensor([*classes.ids, (unet.config.num_class_embeds or 1) - 1]),
        has_null=classes.has_null,
    )


def unet_taps(unet: Any) -> tuple[dict[str, nn.Module], str]:
    """Return blocks and layers by name, and the bottleneck, or the last block down without one."""
    taps = {name: module for name, module in unet.named_modules() if _TAP.fullmatch(name)}
    return taps, "mid_block" if "mid_block" in taps else f"down_blocks.{len(unet.down_blocks) - 1}"


def _unet_folder(folder: Path) -> Path:
    """Return the folder of the U-Net: of a pipeline its part, else the folder itself."""
    path = folder / "model_index.json"
    if not path.exists():
        return folder
    index = read_json(path)
    parts = [
        name
        for name, entry in index.items()
        if not name.startswith("_") and isinstance(entry, list) and entry[:1] != [None]
    ]
    if sorted(parts) != ["scheduler", "unet"]:
        kind = index.get("_class_name")
        raise UserError(
            f"{folder} holds a {kind} of {', '.join(sorted(parts)) or 'no parts'}: diffusers: "
            "takes a pipeline of unet and scheduler, which works on pixels"
            + other_family(kind, folder, own="diffusers")
        )
    inside = folder / "unet"
    return inside if inside.is_dir() else folder  # google's have all files in one folder


def _schedule_folder(folder: Path) -> Path:
    """Return the folder with the schedule; of a bare model that may be one or two above."""
    for place in (folder, *folder.resolve().parents[:2]):
        if scheduler_config(place).exists():
            return place
    raise UserError(
        f"there is no scheduler_config.json in {folder}, in its scheduler/, or in the same of the "
        f"two folders above: copy that of the training into {folder}"
    )


def _classes(config: Any, place: str, folders: Sequence[Path], options: TeacherOptions) -> Classes:
    """Return the classes, whose names the options or else one of the folders may give."""
    by_numbers = config.class_embed_type == "timestep"  # by sines: there is no table of labels
    if config.class_embed_type is not None and not by_numbers:
        raise UserError(
            f"{place} takes vectors for classes (class_embed_type {config.class_embed_type}): "
            "supported are labels (num_class_embeds, or class_embed_type timestep)"
        )
    rows = config.num_class_embeds
    if rows is None and not by_numbers:
        raise UserError(
            f"{place} has no class embeddings (num_class_embeds is null): clarep needs a "
            "class-conditional model"
        )
    given = options.class_names
    names = _names_beside(folders) if given is None else read_class_names(given)
    if not by_numbers:
        known = names if given is None else ()
        return classes_of_table(place, rows, options, known=known, guess=rows)
    if not names:
        raise UserError(
            f"{place} embeds labels as numbers (class_embed_type timestep) and does not say "
            "how many there are: name its classes with `class_names`"
        )
    return Classes(names, tuple(range(len(names))), has_null=False)


def _names_beside(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the classes as one of the folders gives them, if any does."""
    for path in [folder / _NAMES_NAME for folder in folders]:
        if path.exists():
            with refusing(f"cannot read {path}", "give a list of names", (OSError, ValueError)):
                names = parse_json(path.read_text(encoding="utf-8"))
            if not names or not isinstance(names, list) or {type(name) for name in names} != {str}:
                raise UserError(f"{path} holds no list of names: give one, in order of the labels")
            return tuple(names)
    for path in [folder / n for folder in folders for n in ("model_index.json", "config.json")]:
        id2label = read_json(path).get("id2label") if path.exists() else None
        if id2label is not None:
            return names_of(id2label, path)
    return ()
