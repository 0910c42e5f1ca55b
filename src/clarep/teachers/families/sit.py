"""`sit:FILE`: SiT and other flow-matching transformers with its architecture.

Ma et al. 2024 (arXiv 2401.08740); the network is DiT's with adaLN-Zero, Peebles & Xie 2023 (arXiv
2212.09748), section 3.2. Written from the papers; modules bear the published checkpoints' names.
"""

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint, read_checkpoint
from clarep.teachers.families import vit_parts as vit
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions
from clarep.teachers.parametrisation import Flow

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Width -> heads of SiT-S, B, L and XL: the one number that no shape tells."""
_PROJECTORS = "projectors."
"""Heads that REPA trains beside the network (Yu et al. 2025, arXiv 2410.06940): not run."""
_LATER_BLOCKS = re.compile(r"^decoder_blocks\.(\d+)")
"""Where older checkpoints of REPA have the blocks behind the one that its projectors read."""
_SUPPORTED = {"path_type": ("Linear", "linear"), "prediction": ("velocity", "v")}
"""Arguments of the training scripts of SiT and REPA, and what they may be here."""


@dataclass(frozen=True)
class SiTShape(vit.PatchShape):
    """What a SiT is built from."""

    depth: int
    out_channels: int  # twice the channels where there are outputs for a variance, not used
    time_channels: int = 256


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise tokens (B, N, width), then scale and shift them."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _modulation(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class _Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by time and class (adaLN-Zero)."""

    def __init__(self, shape: SiTShape) -> None:
        super().__init__()
        self.attn = vit.Attention(shape.width, shape.heads, qkv_bias=True)
        self.mlp = vit.Mlp(shape.width, shape.hidden, "tanh")
        self.adaLN_modulation = _modulation(shape.width, 6)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        parts = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)  # (B, 1, width) each
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        x = x + gate * self.attn(_modulated(x, shift, scale))
        out: Tensor = x + gate_mlp * self.mlp(_modulated(x, shift_mlp, scale_mlp))
        return out


class SiT(nn.Module):
    """Velocity (B, C, H, W) of x at the network's time (B,), given labels (B,)."""

    def __init__(self, shape: SiTShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.x_embedder = vit.PatchEmbed(shape)
        self.t_embedder = nn.ModuleDict({"mlp": vit.time_mlp(shape.time_channels, width, width)})
        table = nn.Embedding(shape.label_rows, width)
        self.y_embedder = nn.ModuleDict({"embedding_table": table})
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2, width))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        linear = nn.Linear(width, shape.patch**2 * shape.out_channels)
        end = {"linear": linear, "adaLN_modulation": _modulation(width, 2)}
        self.final_layer = nn.ModuleDict(end)

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        waves = vit.time_waves(time, self.shape.time_channels)
        c = self.t_embedder["mlp"](waves) + self.y_embedder["embedding_table"](labels)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, N, width)
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.final_layer["adaLN_modulation"](c)[:, None].chunk(2, dim=2)
        patches = self.final_layer["linear"](_modulated(tokens, shift, scale))
        return vit.patches_to_image(patches, self.shape)[:, : self.shape.channels]


def sit_shape(checkpoint: Checkpoint) -> SiTShape:
    """Read what a SiT is built from off the shapes of its weights."""
    table = "y_embedder.embedding_table"
    numbers = vit.patch_numbers(checkpoint, "x_embedder", table, "blocks.0", HEADS)
    pixels, channels = numbers["patch"] ** 2, numbers["channels"]
    outputs = checkpoint.shape("final_layer.linear.weight", 2)[0]
    if outputs not in (pixels * channels, 2 * pixels * channels):
        raise checkpoint.refusal(
            f"it has {outputs} outputs a patch, where patches of {pixels} pixels and {channels} "
            f"channels ask for {pixels * channels}, or twice that"
        )
    return SiTShape(
        **numbers,
        depth=checkpoint.count("blocks"),
        out_channels=outputs // pixels,
        time_channels=checkpoint.shape("t_embedder.mlp.0.weight", 2)[1],
    )


def load(place: str, options: TeacherOptions) -> ForeignTeacher:
    """Load a SiT that predicts the velocity of the straight path.

    Its time at the data is 1, as in SiT's own code, or 0, as in that of REPA, whose
    checkpoints are told by their projectors; the setting `data_at` says it of others.

    place: FILE or FILE?vae=PLACE&heads=N&data_at=0&num_classes=N. Raises UserError.
    """
    checkpoint = read_checkpoint(place, {**vit.SETTINGS, "data_at": int}, "SiT")
    for name, supported in _SUPPORTED.items():
        value = checkpoint.arguments.get(name, supported[0])
        if value not in supported:
            raise UserError(
                f"{checkpoint.path} was trained with {name} {value}: a sit: teacher takes "
                f"{' or '.join(supported)}, the velocity of the straight path"
            )
    names = list(checkpoint.weights)
    is_repa = any(name.startswith(_PROJECTORS) or _LATER_BLOCKS.match(name) for name in names)
    data_at = checkpoint.settings.get("data_at", 0 if is_repa else 1)
    if data_at not in (0, 1):
        raise UserError(f"data_at {data_at} is no end of the time axis: give 0 or 1")
    checkpoint = replace(checkpoint, weights=_own_weights(checkpoint))
    shape = sit_shape(checkpoint)
    return vit.patch_teacher(
        checkpoint,
        SiT,
        shape,
        Flow(data_at),
        options,
        family="sit",
        takes=("attention",),
        blocks=[f"blocks.{i}" for i in range(shape.depth)],
        default_tap=f"blocks.{(shape.depth - 1) // 2}",
        guess=shape.label_rows - 1,
        settings={"data_at": data_at},
    )


def _own_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the network's own weights, under the names that they have today."""
    first = checkpoint.count("blocks")
    return {
        _LATER_BLOCKS.sub(lambda block: f"blocks.{first + int(block[1])}", name): value
        for name, value in checkpoint.weights.items()
        if not name.startswith(_PROJECTORS)
    }
