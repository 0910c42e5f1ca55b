"""Every test runs with the shapes and types of clarep's signatures enforced."""

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("clarep", "beartype.beartype")


@pytest.fixture(scope="session")
def tiny_teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained 32-pixel U-Net of ten garments, none of whose layers is zero."""
    import torch

    from clarep.data.garments import CLASS_NAMES
    from clarep.teachers import UNet, UNetConfig, save_unet

    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    net = UNet(UNetConfig(widths=(8, 16), embed_dim=16))
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # freshly made, these hide the layers before them
                parameter.normal_(std=0.1)
    torch.set_rng_state(torch_state)
    path = tmp_path_factory.mktemp("tiny") / "teacher.safetensors"
    save_unet(net, path, CLASS_NAMES, 0.01, 80.0)
    return path
