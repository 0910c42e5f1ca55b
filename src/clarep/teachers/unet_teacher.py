"""Our U-Net behind the `Teacher` interface, saved and loaded as safetensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.torch_version import TorchVersion

from clarep.engine.artefacts import check_recorded, parse_json
from clarep.engine.devices import Device, check_device
from clarep.engine.hub import checkpoint_folder
from clarep.engine.tensors import (
    check_size,
    check_weights,
    note_file,
    read_tensors,
    save_tensors,
    weights_hash,
)
from clarep.errors import UserError, refusing
from clarep.teachers.parametrisation import Levels
from clarep.teachers.stored_setting import assets
from clarep.teachers.teacher import Features, Maps, Teacher
from clarep.teachers.unet import UNet, UNetConfig, sigma_from_t

# Channels last: convolutions and their Jacobian products take a fifth less time on a CPU. The
# group_norm of torch 2.11 has no derivative there; of the versions before 2.14 it alone was tried.
_MEMORY_FORMAT = (
    torch.channels_last if TorchVersion(torch.__version__) >= "2.14" else torch.contiguous_format
)
WEIGHTS_NAME = "teacher.safetensors"
CARD_NAME = "card.json"


class UNetTeacher(Teacher):
    """A trained U-Net; its time axis is the cosine schedule's, sigma = tan(pi t / 2)."""

    default_tap = "mid"

    def __init__(
        self, net: UNet, class_names: tuple[str, ...], sigma_min: float, sigma_max: float
    ) -> None:
        """Take a network of as many classes as there are names."""
        config = net.config
        self.device = next(net.parameters()).device
        self.net = net.eval().requires_grad_(False).to(memory_format=_MEMORY_FORMAT)
        self.image_shape = (config.image_channels, config.image_size, config.image_size)
        self.latent_shape = self.image_shape
        self.class_names = class_names
        self.null_label = config.num_classes
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        (self.fingerprint,) = weights_hash(net).values()

    @staticmethod
    def from_pretrained(place: str) -> "UNetTeacher":
        """Return a teacher of the Hugging Face hub that `push_to_hub` put there.

        Args:
            place: OWNER/NAME or OWNER/NAME@REVISION, or a folder.

        Raises:
            UserError: without huggingface_hub, or if there is none, or a damaged one.
        """
        return load_unet(checkpoint_folder(place) / WEIGHTS_NAME)

    def taps(self) -> dict[str, tuple[int, int]]:
        return self.net.taps()

    def condition(self, labels: Int64[Tensor, " batch"]) -> Tensor:
        return labels

    def denoise(self, x: Maps, sigma: Levels, cond: Tensor) -> Maps:
        denoised: Tensor = self.net(x, sigma, cond)
        return denoised

    def features(self, x: Maps, sigma: Levels, cond: Tensor, tap: str) -> Features:
        self.check_tap(tap)
        return self.net.features(x, sigma, cond, tap)

    def sigma_from_t(self, t: float) -> float:
        self.check_t(t)
        sigma = float(sigma_from_t(torch.tensor(t, dtype=torch.float64)))
        self.check_sigma(sigma)
        return sigma

    def to(self, device: Device) -> "UNetTeacher":
        """Move it to a device, in place. Raises UserError if there is none of that name here."""
        self.device = check_device(device)
        self.net.to(self.device)
        return self


def save_unet(
    net: UNet, path: Path, class_names: tuple[str, ...], sigma_min: float, sigma_max: float
) -> None:
    """Write weights as fp16 safetensors, with all that `load_unet` needs in the metadata."""
    weights = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    metadata = {
        "unet": json.dumps(asdict(net.config)),
        "class_names": json.dumps(class_names),
        "sigma_range": json.dumps([sigma_min, sigma_max]),
    }
    save_tensors(path, weights, metadata)


def load_unet(path: Path) -> UNetTeacher:
    """Load what `save_unet` wrote; computing in fp32.

    Raises UserError if the file is missing, damaged, not the one that the card beside it tells of,
    or no clarep U-Net of this version, or if its weights are not finite.
    """
    weights, metadata = read_tensors(path, "a teacher")
    mend = "give a teacher.safetensors that clarep train-teacher wrote"
    if "unet" not in metadata:
        raise UserError(f"{path} holds no clarep teacher (no 'unet' in its metadata): {mend}")
    check_recorded(path, card_of(path), "weights", "sha256")
    with refusing(f"{path} holds no teacher that this clarep can build", mend, BROKEN):
        config, names, sigma_range = (
            parse_json(metadata[name]) for name in ("unet", "class_names", "sigma_range")
        )
        return rebuilt(path, weights, config, names, sigma_range)


BROKEN = (LookupError, TypeError, ValueError, RuntimeError)
"""What `rebuilt` raises for parts that do not fit each other."""


def rebuilt(
    path: Path,
    weights: dict[str, Tensor],
    config: Mapping[str, Any],
    class_names: Sequence[object],
    sigma_range: Sequence[Any],
) -> UNetTeacher:
    """Return the teacher of these weights, which are a file's, and what is written of it."""
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    shape = UNetConfig(**own | {"widths": tuple(own["widths"])})
    if max(shape.encoder_blocks, shape.decoder_blocks, len(shape.widths)) > len(weights):
        raise ValueError(f"{len(weights)} tensors are fewer than the blocks of {shape}")
    check_size(weights, lambda: UNet(shape))
    net = UNet(shape)
    net.load_state_dict(weights)
    if len(class_names) != net.config.num_classes:
        raise ValueError(f"{len(class_names)} class names for {net.config.num_classes} classes")
    sigma_min, sigma_max = (float(sigma) for sigma in sigma_range)
    check_weights(weights, net, str(path))
    note_file(net, path)
    return UNetTeacher(net, tuple(map(str, class_names)), sigma_min, sigma_max)


def card_of(path: Path) -> Path:
    """Return where the card of a teacher's file lies: card.json in a run, else NAME.json.

    The cards of bundled teachers come with clarep, also of those whose weights do not.
    """
    if path.name == WEIGHTS_NAME:
        return path.with_name(CARD_NAME)
    beside, ours = path.with_suffix(".json"), assets() / f"{path.stem}.json"
    return ours if path.parent.name == "clarep_weights" and not beside.exists() else beside
