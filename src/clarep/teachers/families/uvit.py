"""`uvit:FILE`: class-conditional U-ViT, of pixels or of Stable Diffusion's latents."""

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError, unknown_name
from clarep.teachers.checkpoint_files import Checkpoint, read_checkpoint
from clarep.teachers.families.uvit_net import FAMILY, UViT, UViTShape, uvit_shape
from clarep.teachers.families.vit_teacher import SETTINGS, PatchTeacher, read_classes, vae_of
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import DDPM, VP, Parametrisation

_SETTINGS = {**SETTINGS, "schedule": str}
_SCHEDULES = ("vp", "sd")
_LATENT_SCHEDULES = {1024: "vp", 1152: "sd"}
"""Width -> schedule of the published models of latents, U-ViT-L and H; those of pixels have vp."""
_CLASSES = {10: 10, 11: 10, 1000: 1000, 1001: 1000}
"""Rows of the label table -> classes, where it is CIFAR-10's or ImageNet's."""
_TIME_SCALE = 999.0


class UViTTeacher(PatchTeacher):
    """U-ViT predicts noise; its discrete time counts from 1 to 1000, DDPM's from 0 to 999."""

    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        if isinstance(self.parametrisation, DDPM):
            time = time + 1
        return super().run(x, time, cond)


def load_uvit(place: str, options: TeacherOptions) -> UViTTeacher:
    """Load a U-ViT.

    Args:
        place: FILE or FILE?vae=PLACE&heads=N&schedule=vp&num_classes=N
            (docs/teachers/uvit.md).
        options: device, bf16 and class_names; for latents offload and vae_slicing too.

    Raises:
        UserError: if the file is no class-conditional U-ViT, or does not say enough.
    """
    checkpoint = read_checkpoint(place, _SETTINGS)
    shape = uvit_shape(checkpoint)
    rows = shape.label_rows
    classes = read_classes(checkpoint, rows, options, guess=_CLASSES.get(rows))
    # No flash attention: two tokens more than a square are never a multiple of its blocks.
    vae = vae_of(checkpoint, shape.channels, "uvit", options)
    schedule = _schedule(checkpoint, shape, is_latent=vae is not None)
    with torch.device("meta"):
        network = UViT(shape)
    checkpoint.fill(network, FAMILY)
    blocks = {name: module for name, module in network.named_modules() if _is_block(name)}
    return UViTTeacher(
        network,
        parametrisation(schedule),
        options,
        channels=shape.channels,
        grid=shape.grid,
        patch=shape.patch,
        classes=classes,
        tap_modules=blocks,
        default_tap="mid_block",
        vae=vae,
        settings={"heads": shape.heads, "schedule": schedule},
    )


def parametrisation(schedule: str) -> Parametrisation:
    """Return how noise levels are translated, for one of the schedules vp and sd.

    vp: continuous time, which the network takes times 999. sd: the thousand levels of Stable
    Diffusion (Rombach et al. 2022, arXiv 2112.10752), betas 0.00085 to 0.012, whose square
    roots are evenly spaced.
    """
    if schedule == "vp":
        return VP(time_scale=_TIME_SCALE)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return DDPM((1 - betas).cumprod(0))


def _schedule(checkpoint: Checkpoint, shape: UViTShape, is_latent: bool) -> str:
    """Return the setting `schedule`, or what the published models have."""
    known = _LATENT_SCHEDULES.get(shape.width) if is_latent else "vp"
    schedule = checkpoint.settings.get("schedule", known)
    if schedule is None:
        raise UserError(
            f"{checkpoint.path} is a U-ViT of latents of width {shape.width}, which no published "
            f"one has ({', '.join(map(str, _LATENT_SCHEDULES))}), and no tensor tells its noise "
            "schedule: add ?schedule=vp or ?schedule=sd to the file's name"
        )
    if schedule not in _SCHEDULES:
        raise unknown_name("schedule", schedule, _SCHEDULES)
    return str(schedule)


def _is_block(name: str) -> bool:
    kind, _, rest = name.partition(".")
    return name == "mid_block" or (kind in ("in_blocks", "out_blocks") and rest.isdigit())
