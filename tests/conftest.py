"""Every test runs with the shapes and types of clarep's signatures enforced."""

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given size ("200k"), or change its size; skip without the right."""
    disk = tmp_path / "disk"

    def of_size(size: str) -> Path:
        options = f"remount,size={size}" if disk.exists() else f"size={size}"
        disk.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
        return disk

    yield of_size
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def no_file_above() -> Callable[[int], AbstractContextManager[None]]:
    """Limit the size of a file that can be written, in bytes, while a block runs.

    The kernel then fails a write (EFBIG) as it does on a full disk, and needs no right for it.
    """

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
