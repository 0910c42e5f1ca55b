"""An untrained U-Net of ten garments: the teacher of quick tests."""

from pathlib import Path

import torch

from clarep.data.garments import CLASS_NAMES
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet


def save_tiny_teacher(
    path: Path, image_size: int = 32, class_names: tuple[str, ...] = tuple(CLASS_NAMES)
) -> None:
    """Write one none of whose layers is zero; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(
            UNetConfig(
                image_size=image_size, num_classes=len(class_names), widths=(8, 16), embed_dim=16
            )
        )
        with torch.no_grad():
            for parameter in net.parameters():
                if not parameter.any():  # freshly made, these hide the layers before them
                    parameter.normal_(std=0.1)
    save_unet(net, path, class_names, 0.01, 80.0)
