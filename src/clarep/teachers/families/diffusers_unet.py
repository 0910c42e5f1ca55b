"""Diffusers' class-conditional `UNet2DModel` of pixels, with a DDPM schedule."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clarep.engine.artefacts import parse_json
from clarep.engine.extras import require_extra
from clarep.errors import UserError
from clarep.teachers.export_unet import EXPORT_CLASS, load_export, names_of
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.hub import checkpoint_folder
from clarep.teachers.options import TeacherOptions, check_options, read_class_names
from clarep.teachers.parametrisation import DDPM
from clarep.teachers.pipeline_folder import (
    EXTRA,
    load_part,
    load_schedule,
    other_family,
    read_json,
    scheduler_config,
)
from clarep.teachers.teacher import Teacher

_TAKES = ("device", "bf16", "class_names", "attention")
_NAMES_NAME = "class_names.json"
_TAP = re.compile(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)(\.(resnets|attentions)\.\d+)?")


class DiffusersUNetTeacher(ForeignTeacher):
    """A `UNet2DModel` over classes.

    Args:
        unet: diffusers' model, in any dtype.
        schedule: that it was trained with.
        options: device and precision.
        class_names: names of the classes.
        has_null: whether the label after the last class stands for no class; without one, the
            null label is refused, and so is guidance.

    Raises:
        UserError: if the model is no class-conditional pixel model of supported parts.
    """

    def __init__(
        self,
        unet: Any,
        schedule: DDPM,
        options: TeacherOptions,
        class_names: tuple[str, ...],
        has_null: bool,
    ) -> None:
        super().__init__(
            unet,
            schedule,
            options,
            latent_shape=_shape(unet.config),
            class_names=class_names,
            default_tap=_default_tap(unet),
            tap_modules={
                name: module for name, module in unet.named_modules() if _TAP.fullmatch(name)
            },
            has_null=has_null,
        )

    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        output: Tensor = self.network(x, time, class_labels=cond, return_dict=False)[0]
        return output[:, : x.shape[1]]  # the others are a learned variance, which no ODE needs


def load_diffusers_unet(place: str, options: TeacherOptions) -> Teacher:
    """Load a `UNet2DModel`, or clarep's own export, from a folder or the Hugging Face hub.

    Args:
        place: a folder that a pipeline of unet and scheduler was saved to, or the model alone
            with its scheduler_config.json in it or up to two folders above; or an identifier
            of the hub.
        options: `class_names` names the classes; with one name fewer than the model embeds
            labels, the last embedding is the null label (docs/teachers/diffusers.md).

    Raises:
        UserError: if there is no such checkpoint, it is of another kind or damaged, or the class
            names do not fit it.
    """
    folder = checkpoint_folder(place)
    unet_folder = _unet_folder(folder)
    kind = read_json(unet_folder / "config.json").get("_class_name")
    if kind == EXPORT_CLASS:
        return _own(unet_folder, options)
    if kind != "UNet2DModel":
        raise UserError(
            f"{unet_folder} holds a {kind}: diffusers: takes a UNet2DModel with class embeddings"
        )
    check_options(options, "diffusers", _TAKES)
    root = _schedule_folder(folder)
    schedule = load_schedule(root)
    unet = load_part(unet_folder, require_extra("diffusers", EXTRA).UNet2DModel)
    names = _class_names((folder, unet_folder, root), options)
    names, has_null = _classes(unet.config, names, place)
    return DiffusersUNetTeacher(unet, schedule, options, names, has_null)


def _own(unet_folder: Path, options: TeacherOptions) -> Teacher:
    """Load clarep's own export: data alone is read, the folder's code is not run."""
    check_options(options, "", ("device",))
    return load_export(unet_folder, options.device)


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
    places = [folder, *folder.resolve().parents[:2]]
    for place in places:
        if scheduler_config(place).exists():
            return place
    raise UserError(
        f"there is no scheduler_config.json in {folder}, in its scheduler/, or in the same of the "
        f"two folders above: copy that of the training into {folder}"
    )


def _class_names(places: Sequence[Path], options: TeacherOptions) -> tuple[str, ...] | None:
    """Return the names of the classes as the options or one of the folders give them, or None."""
    if options.class_names is not None:
        return read_class_names(options.class_names)
    for path in [place / _NAMES_NAME for place in places]:
        if path.exists():
            return _listed_names(path)
    for path in [place / name for place in places for name in ("model_index.json", "config.json")]:
        id2label = read_json(path).get("id2label") if path.exists() else None
        if id2label is not None:
            return names_of(id2label, path)
    return None


def _listed_names(path: Path) -> tuple[str, ...]:
    try:
        names = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): give a JSON list of names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise UserError(f"{path} holds no list of names: give one, in the order of the labels")
    return tuple(names)


def _classes(
    config: Any, names: tuple[str, ...] | None, place: str
) -> tuple[tuple[str, ...], bool]:
    """Return the classes' names, and whether the label after them stands for no class."""
    if config.class_embed_type == "timestep":  # labels enter by sines: there is no table of them
        if names is None:
            raise UserError(
                f"{place} embeds labels as numbers (class_embed_type timestep) and does not say "
                "how many there are: name its classes with `class_names`"
            )
        return names, False
    if config.class_embed_type is not None:
        raise UserError(
            f"{place} takes vectors for classes (class_embed_type {config.class_embed_type}): "
            "supported are labels (num_class_embeds, or class_embed_type timestep)"
        )
    rows = config.num_class_embeds
    if rows is None:
        raise UserError(
            f"{place} has no class embeddings (num_class_embeds is null): clarep needs a "
            "class-conditional model"
        )
    if names is None:
        return tuple(str(label) for label in range(rows)), False
    if len(names) not in (rows - 1, rows):
        raise UserError(
            f"{len(names)} class names are given and {place} embeds {rows} labels: give {rows}, "
            f"or {rows - 1} if the last label stands for no class"
        )
    return names, len(names) == rows - 1


def _shape(config: Any) -> tuple[int, int, int]:
    """Return (C, H, W) of the images. Raises UserError for a model of unsupported parts."""
    size, channels = config.sample_size, config.in_channels
    if config.time_embedding_type != "positional":
        raise UserError(
            f"the UNet2DModel embeds time by '{config.time_embedding_type}': supported is "
            "'positional', which takes the timesteps of a DDPM schedule and those between"
        )
    if config.out_channels not in (channels, 2 * channels):
        raise UserError(
            f"the UNet2DModel takes {channels} channels and gives {config.out_channels}: supported "
            "is as many, or twice as many where it learns the variance"
        )
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise UserError(
            f"the UNet2DModel does not say how large its images are (sample_size is {size}): "
            "write their side into its config.json"
        )
    return channels, sides[0], sides[1]


def _default_tap(unet: Any) -> str:
    """Return the bottleneck, or the last block on the way down where there is none."""
    if unet.mid_block is not None:
        return "mid_block"
    return f"down_blocks.{len(unet.down_blocks) - 1}"
