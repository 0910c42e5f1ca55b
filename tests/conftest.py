"""Every test runs with the shapes and types of clarep's signatures enforced."""

import gc
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from forked import Programs
from signatures import enforce

enforce()
gc.disable()  # nothing that is imported or collected goes away

LONG = ("test_ray.py", "test_golden.py")
"""Files whose tests share what is made once, at length."""
QUICK_RECIPE = """
methods = ["vanilla", "cadistill", "guidance-only"]
seeds = [0]
teacher = "{teacher}"
[data]
data = "{data}"
[canonical]
fraction = 0.25
[clarid]
k = 4
steps = 2
tolerance = 0.9
[train]
epochs = 2
warmup_share = 0
validation_share = 0.25
batch_size = 16
learning_rate = 0.05
[evaluate]
groups = ["clean", "calibration"]
images = 20
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes a worker a minute: at the end the others would wait for it."""
    items.sort(key=lambda item: (*LONG, item.path.name).index(item.path.name))


def pytest_collection_finish() -> None:
    """Let the garbage collector walk what the tests make alone: a walk of all takes 0.3 s."""
    gc.set_threshold(10_000, 20, 20)
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained 32-pixel U-Net of ten garments, none of whose layers is zero."""
    from tiny_teacher import save_tiny_teacher

    path = tmp_path_factory.mktemp("tiny") / "teacher.safetensors"
    save_tiny_teacher(path)
    return path


@pytest.fixture(scope="session")
def garments_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive of ten classes: four images of each to train on, two to test."""
    from clarep.data.backdrops import load_backdrops
    from clarep.data.garments import CLASS_NAMES

    arrays: dict[str, np.ndarray] = {"classes": np.array(CLASS_NAMES)}
    for split, count in (("train", 4), ("test", 2)):
        data = load_backdrops(split)
        chosen = np.concatenate([np.flatnonzero(data.labels == c)[:count] for c in range(10)])
        arrays[f"x_{split}"] = data.images(chosen).permute(0, 2, 3, 1).numpy()
        arrays[f"y_{split}"] = data.labels[chosen]
    path = tmp_path_factory.mktemp("garments") / "garments.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Starts Python programs in processes of their own, which need not import clarep."""
    started = Programs(tmp_path_factory.mktemp("programs"))
    yield started
    started.close()


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_teacher_path: Path, garments_path: Path):
    """Write the quick recipe, with single lines replaced, and return its path."""

    def write(name: str = "quick", **lines: str) -> Path:
        text = QUICK_RECIPE.format(teacher=tiny_teacher_path, data=garments_path)
        for key, value in lines.items():
            changed = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert changed != text, key
            text = changed
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write


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
        gc.collect()  # a lock that a caught error still refers to is an open file
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


@pytest.fixture
def ddim_sigmas() -> Callable[..., object]:
    """The levels of x / sqrt(alpha_bar) that DDIM visits at timesteps of a DDPM schedule."""

    def levels(alphas_cumprod, timesteps):
        return (1 / alphas_cumprod.double()[list(map(int, timesteps))] - 1).sqrt()

    return levels
