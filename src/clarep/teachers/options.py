"""What a user may say of a foreign checkpoint, whichever family it is of."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from clarep.engine.artefacts import open_regular
from clarep.engine.devices import check_device
from clarep.engine.identity import plain, shortened
from clarep.errors import UserError, refusing
from clarep.teachers.flash import check_flash

_WHERE = ("device", "offload", "vae_slicing", "attention")  # where and how, not what


@dataclass(frozen=True)
class TeacherOptions:
    """How a teacher is loaded and run; what a family has no use for, it refuses."""

    device: str = "cpu"
    """Where the teacher runs: cpu, cuda, cuda:1 ..."""
    bf16: bool = False
    """The teacher denoises, encodes and decodes in bfloat16; Jacobians and features stay fp32."""
    class_names: Path | None = None
    """Text file, a class name a line in the order of the teacher's labels; without it, those of
    its checkpoint. For all but sd fewer lines, names or numbers, choose these."""
    template: str = "a photo of a {name}"
    """For sd: prompt of a class; {name} stands for its name."""
    guided_channels: Literal["all", "first3"] = "all"
    """For dit: channels that guidance acts on; first3 is what its authors' own sampler does."""
    offload: bool = False
    """Keep text encoder and VAE on the CPU while they are not in use."""
    vae_slicing: bool = False
    """For latent teachers: decode image by image, which needs less memory."""
    attention: Literal["math", "flash"] = "math"
    """How attention is computed in features and Jacobian products: math, or, on a GPU, flash, which
    needs less memory where there are many tokens (extra flash; dit, sd, sit and diffusers)."""

    def __post_init__(self) -> None:
        """Take a torch.device as its name, which is what is stored and compared."""
        if isinstance(self.device, torch.device):
            object.__setattr__(self, "device", str(self.device))


def check_options(options: TeacherOptions, family: str, takes: Collection[str]) -> None:
    """Raise UserError if an option is set that a family has no use for, or cannot be had here.

    family: its name in front of the colon; empty for clarep's own U-Nets, which have none.
    """
    kind = f"a {family}: teacher" if family else "a U-Net of clarep's own"
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in takes:
            raise UserError(
                f"`{field.name}={value}` means nothing to {kind}: leave it out "
                f"(it takes {', '.join(f'`{name}`' for name in sorted(takes))})"
            )
    device = check_device(options.device)
    if options.attention == "flash":
        check_flash(device)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names, a line each. Raises UserError if the file cannot be read or is empty."""
    what, faults = f"cannot read class names from {path}", (OSError, ValueError)
    with refusing(what, "give a text file", faults), open_regular(path) as stream:
        lines = stream.read().decode("utf-8-sig").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UserError(f"{path} holds no class names: write one a line")
    return names


def recorded(options: TeacherOptions) -> dict[str, Any]:
    """Return the given options that change what a teacher computes, as JSON values.

    Device, offload, vae_slicing and attention are left out: they change results by rounding
    alone, as another processor does.
    """
    given = shortened(TeacherOptions, plain(options))
    return {name: value for name, value in given.items() if name not in _WHERE}


def fingerprint_with(
    options: TeacherOptions, weights_sha256: str, class_names: Sequence[str]
) -> str:
    """Return what tells a teacher of these weights and options from another.

    The weights' SHA-256, unless an option was given that changes what is computed.
    """
    given = recorded(options)
    if not given:
        return weights_sha256
    if "class_names" in given:
        given["class_names"] = list(class_names)  # the names count, not where they are written
    text = json.dumps({"weights": weights_sha256, **given}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def joint_fingerprint(*parts: str) -> str:
    """Return the SHA-256 of several texts, in order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
