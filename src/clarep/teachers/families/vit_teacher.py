"""What the teachers of SiT and U-ViT have in common: a table of labels, and maybe a VAE."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from clarep.engine.artefacts import read_json
from clarep.engine.extras import require_extra
from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint
from clarep.teachers.class_choice import choose_classes, numbered
from clarep.teachers.hub import checkpoint_folder
from clarep.teachers.latent import LatentTeacher, image_shape_of
from clarep.teachers.options import (
    TeacherOptions,
    check_options,
    joint_fingerprint,
    read_class_names,
)
from clarep.teachers.parametrisation import Parametrisation
from clarep.teachers.pipeline_folder import EXTRA, load_part

SETTINGS: Mapping[str, type] = {"vae": str, "heads": int, "num_classes": int, "class_names": list}
"""What can be said of either family beside its weights; each adds one of its own."""
_TAKES = ("device", "bf16", "class_names")
_LATENT_TAKES = ("offload", "vae_slicing")
_PIXEL_CHANNELS = 3


@dataclass(frozen=True)
class Classes:
    """The classes behind the rows of a table of label embeddings."""

    names: tuple[str, ...]
    """A name a class."""
    has_null: bool
    """Whether one more row, the last, stands for no class."""
    own_labels: tuple[int, ...] | None = None
    """The row of each class and, last, of none; None for 0, 1, ..."""


class PatchTeacher(LatentTeacher):
    """A transformer over patches of pixels, or of a VAE's latents."""

    vae: Any = None

    def __init__(
        self,
        network: nn.Module,
        parametrisation: Parametrisation,
        options: TeacherOptions,
        *,
        channels: int,
        grid: int,
        patch: int,
        classes: Classes,
        tap_modules: Mapping[str, nn.Module],
        default_tap: str,
        vae: Any = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Take a network of x (B, C, H, W), time (B,) and labels (B,).

        channels, grid, patch: of x; grid is in patches a side.
        vae: diffusers' AutoencoderKL, or None for a model of pixels.
        settings: what changes the teacher beside its weights; it enters the fingerprint.
        """
        shape = (channels, grid * patch, grid * patch)
        super().__init__(
            network,
            parametrisation,
            options,
            latent_shape=shape,
            image_shape=None if vae is None else image_shape_of(vae, shape),
            class_names=classes.names,
            tap_modules=tap_modules,
            default_tap=default_tap,
            has_null=classes.has_null,
            own_labels=classes.own_labels,
        )
        self.token_grid = (grid, grid)
        said = json.dumps(settings, sort_keys=True)
        self.fingerprint = joint_fingerprint(self.fingerprint, said)
        if vae is not None:
            self.adopt_vae(vae)

    def encode(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        return images if self.vae is None else super().encode(images)

    def decode(self, latents: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        return latents if self.vae is None else super().decode(latents)

    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        output: Tensor = self.network(x, time, cond)
        return output


def read_classes(
    checkpoint: Checkpoint, rows: int, options: TeacherOptions, guess: int | None
) -> Classes:
    """Return the classes that the rows of a label table stand for.

    Their number is the setting `num_classes`, that of the names, or `guess`; their names are the
    setting `class_names`, else their numbers. The options' file renames or chooses them.

    Raises UserError if there are neither `rows` classes nor one fewer, their number is not
    known, or the file's names do not fit them.
    """
    path, settings = checkpoint.path, checkpoint.settings
    known = tuple(settings.get("class_names", ()))
    given = () if options.class_names is None else read_class_names(options.class_names)
    if "num_classes" in settings:
        fitting = {settings["num_classes"]}
    else:  # the checkpoint's own names, where they fit, say whether the last row is a class
        fitting = {rows - 1, rows} & {len(known)} or {rows - 1, rows}
    renamed = len(given) in fitting and len(given) > len(known)
    named = given if renamed else known
    count = settings.get("num_classes", len(named) or guess)
    if count is None:
        raise UserError(
            f"{path} has a label table of {rows} rows and does not say whether its last stands "
            f"for no class: add ?num_classes={rows - 1} to the file's name if it does, "
            f"?num_classes={rows} if not"
        )
    if named and len(named) != count:
        raise UserError(
            f"{len(named)} class names and num_classes {count} are given for {path}: give one "
            "name a class"
        )
    if count < 1 or count not in (rows - 1, rows):
        said = f"{count} class names are" if named else f"num_classes {count} is"
        raise UserError(
            f"{path} has a label table of {rows} rows, and {said} given: it takes "
            f"{rows - 1} classes, or {rows} if no row stands for no class"
        )
    has_null = count == rows - 1
    if options.class_names is None:
        return Classes(named or tuple(map(str, range(count))), has_null)
    synonyms = numbered(count) if renamed or not known else [[name] for name in known]
    names, numbers = choose_classes(options.class_names, synonyms)
    return Classes(names, has_null, (*numbers, count))


def vae_of(
    checkpoint: Checkpoint,
    channels: int,
    family: str,
    options: TeacherOptions,
    takes: tuple[str, ...] = (),
) -> Any:
    """Return the autoencoder that the settings name, or None for a model of pixels.

    takes: options that the family has a use for beside those of both families.

    Raises UserError if latents come without one, it cannot be read, or an option is set that
    means nothing to such a model.
    """
    place = checkpoint.settings.get("vae")
    if place is None and channels != _PIXEL_CHANNELS:
        raise UserError(
            f"{checkpoint.path} works on {channels} channels, the latents of an autoencoder, and "
            "none is given: add ?vae=FOLDER_OR_HUB_ID to the file's name, such as "
            "?vae=stabilityai/sd-vae-ft-ema, which is Stable Diffusion's"
        )
    latent = () if place is None else _LATENT_TAKES
    check_options(options, family, (*_TAKES, *takes, *latent))
    return None if place is None else _load_vae(place)


def _load_vae(place: str) -> Any:
    diffusers = require_extra("diffusers", EXTRA)
    folder = checkpoint_folder(place, part="vae")
    if (folder / "vae").is_dir():  # of a whole pipeline
        folder = folder / "vae"
    kind = _class_name(folder)
    if kind != "AutoencoderKL":
        raise UserError(f"the VAE {place} is of class {kind}: give the folder of an AutoencoderKL")
    return load_part(folder, diffusers.AutoencoderKL)


def _class_name(folder: Path) -> str:
    try:
        return str(read_json(folder / "config.json").get("_class_name"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no autoencoder, as it has no readable config.json: give the folder "
            "of an AutoencoderKL"
        ) from error
