"""What SiT and U-ViT are both made of, under their checkpoints' own names, and how they load."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clarep.engine.hub import checkpoint_folder
from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint
from clarep.teachers.classes_by_name import classes_of_table
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions, check_options
from clarep.teachers.parametrisation import Parametrisation
from clarep.teachers.pipeline_folder import load_part, read_json

SETTINGS: Mapping[str, type] = {"vae": str, "heads": int, "num_classes": int, "class_names": list}
"""What can be said of either family beside its weights; each adds one of its own."""
_TAKES = ("device", "bf16", "class_names")
_LATENT_TAKES = ("offload", "vae_slicing")
_PIXEL_CHANNELS = 3


@dataclass(frozen=True)
class PatchShape:
    """What a transformer over patches is built from."""

    channels: int
    grid: int  # patches a side
    patch: int  # pixels a side of each
    width: int
    heads: int
    label_rows: int  # classes, and one for no class where labels were dropped in training
    hidden: int  # width inside the MLPs


class PatchEmbed(nn.Module):
    """Non-overlapping patches as tokens: (B, C, H, W) to (B, N, width)."""

    def __init__(self, shape: PatchShape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(shape.channels, shape.width, shape.patch, stride=shape.patch)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x).flatten(2).mT
        return tokens


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values in one matrix, in this order."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, heads, N, width / heads) each
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU, or its approximation by tanh, between."""

    def __init__(self, width: int, hidden: int, gelu: Literal["none", "tanh"]) -> None:
        super().__init__()
        self.gelu = gelu
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))
        return out


def time_mlp(channels: int, width: int, hidden: int) -> nn.Sequential:
    """Return the two linear layers that the waves of a time go through."""
    return nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, width))


def time_waves(time: Tensor, channels: int) -> Tensor:
    """Return cosines, then sines of time (B,), periods 2 pi to 2 pi 10^4: (B, channels)."""
    half = channels // 2
    steps = torch.arange(half, dtype=time.dtype, device=time.device)
    angles = time[:, None] * torch.exp(-math.log(10_000) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def patches_to_image(tokens: Tensor, shape: PatchShape) -> Tensor:
    """Return (B, grid^2, patch^2 C), channels last in each patch, as (B, C, H, W)."""
    parts: Tensor = tokens.unflatten(2, (shape.patch, shape.patch, -1))
    parts = parts.unflatten(1, (shape.grid, shape.grid))
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def patch_numbers(
    checkpoint: Checkpoint,
    embed: str,
    table: str,
    block: str,
    published: Mapping[int, int],
    *,
    extra_tokens: int = 0,
) -> dict[str, int]:
    """Read the fields of a `PatchShape` off the shapes of a checkpoint's weights.

    embed, table, block: names of the patches' and the labels' embeddings and of a block.
    published: width -> heads of published models, as no shape tells them.
    """
    width, channels, patch, _ = checkpoint.shape(f"{embed}.proj.weight", 4)
    tokens = checkpoint.shape("pos_embed", 3)[1] - extra_tokens
    grid = math.isqrt(max(tokens, 0))
    if grid < 1 or grid**2 != tokens:
        raise checkpoint.refusal(f"its {tokens} patches make no square")
    heads = checkpoint.settings.get("heads", published.get(width))
    if heads is None:
        raise UserError(
            f"{checkpoint.path} is a {checkpoint.family} of width {width}, which no published one "
            f"has ({', '.join(map(str, published))}), and no shape tells its number of heads: add "
            '?heads=N to the file\'s name, or "heads": N to the settings beside it'
        )
    if heads < 1 or width % heads:
        raise UserError(
            f"heads {heads} does not divide the width {width} of {checkpoint.path}: give a number "
            "that does"
        )
    return {
        "channels": channels,
        "grid": grid,
        "patch": patch,
        "width": width,
        "heads": heads,
        "label_rows": checkpoint.shape(f"{table}.weight", 2)[0],
        "hidden": checkpoint.shape(f"{block}.mlp.fc1.weight", 2)[0],
    }


def patch_teacher(
    checkpoint: Checkpoint,
    kind: Callable[[Any], nn.Module],
    shape: PatchShape,
    parametrisation: Parametrisation,
    options: TeacherOptions,
    *,
    family: str,
    takes: tuple[str, ...] = (),
    blocks: Collection[str],
    default_tap: str,
    guess: int | None,
    settings: Mapping[str, object],
) -> ForeignTeacher:
    """Build the network of a shape, with the checkpoint's weights, classes and VAE.

    family, takes: as of `vae_of`. blocks: names of the modules that can be tapped. guess: number
    of classes where settings and names do not say it.
    """
    classes = classes_of_table(
        checkpoint.path,
        shape.label_rows,
        options,
        known=checkpoint.settings.get("class_names", ()),
        num_classes=checkpoint.settings.get("num_classes"),
        guess=guess,
    )
    vae = vae_of(checkpoint, shape.channels, family, options, takes)
    with torch.device("meta"):
        network = kind(shape)
    checkpoint.fill(network)
    side = shape.grid * shape.patch
    return ForeignTeacher(
        network,
        parametrisation,
        options,
        latent_shape=(shape.channels, side, side),
        class_names=classes.names,
        default_tap=default_tap,
        tap_modules={name: network.get_submodule(name) for name in blocks},
        conditions=torch.tensor([*classes.ids, shape.label_rows - 1]),
        has_null=classes.has_null,
        vae=vae,
        token_grid=(shape.grid, shape.grid),
        settings={"heads": shape.heads, **settings},
    )


def vae_of(
    checkpoint: Checkpoint,
    channels: int,
    family: str,
    options: TeacherOptions,
    takes: tuple[str, ...] = (),
) -> Any:
    """Return the autoencoder that the settings name, or None for a model of pixels.

    takes: options that the family has a use for beside those of both families; others are refused.
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
    if place is None:
        return None
    folder = checkpoint_folder(place, part="vae")
    if (folder / "vae").is_dir():  # of a whole pipeline
        folder = folder / "vae"
    kind = read_json(folder / "config.json").get("_class_name")
    if kind != "AutoencoderKL":
        raise UserError(f"the VAE {place} is of class {kind}: give the folder of an AutoencoderKL")
    return load_part(folder, "AutoencoderKL")
