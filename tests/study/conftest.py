"""Runs whose numbers are made up."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.robustness.evaluation import Evaluation, Measurement, mean_of


class MakeRun:
    """Writes run folders; each keyword of `__call__` is one thing that may be wrong with a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels = torch.arange(400) % 10

    def __call__(
        self,
        method: str = "vanilla",
        seed: int = 0,
        accuracy: float = 0.8,
        *,
        name: str | None = None,
        correlation: float = 0.9,
        epochs: int = 3,
        test_correlation: float = 0.0,
        labels: torch.Tensor | None = None,
        untrustworthy: str = "",
        more: list[Measurement] | None = None,
    ) -> Path:
        run = self.folder / f"{name or method}-{seed}"
        (run / "student").mkdir(parents=True)
        config = {
            "method": method,
            "seed": seed,
            "student": "resnet8",
            "data": "backdrops",
            "data_options": {"correlation": correlation, "split": "train"},
            "train": {"epochs": epochs, "seed": seed},
            "canon": None,
            "seconds": 1.5 + seed,
        }
        (run / "student" / "config.json").write_text(json.dumps(config))
        if name:
            (run / "study.json").write_text(json.dumps({"name": name}))
        generator = torch.Generator().manual_seed(17)  # the same images are hard for everyone
        hard = torch.rand(400, generator=generator)
        own = torch.Generator().manual_seed(1000 * seed + len(method))
        correct = (hard + 0.05 * torch.randn(400, generator=own) < accuracy).float()
        attacked = correct[:100] * (hard[:100] < 0.5)
        pgd = "attack/pgd-linf/eps_255=1"
        measurements = [
            mean_of("clean/accuracy", correct),
            mean_of(pgd, attacked, untrustworthy),
            Measurement("calibration/ece", 0.1 - accuracy / 20, (0.01, 0.2), 400),
            *(more or []),
        ]
        arrays = {
            "clean/accuracy": correct,
            pgd: attacked,
            "label": self.labels if labels is None else labels,
        }
        config = {
            "student": {"method": method, "sha256": f"{method}{seed}"},
            "data_options": {"correlation": test_correlation, "split": "test"},
            "seed": 0,
        }
        Evaluation(config, measurements, arrays).save(run / "robustness")
        return run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return MakeRun(tmp_path / "runs")


QUICK = """
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


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_teacher_path: Path, garments_path: Path):
    """Write the quick recipe, with single lines replaced, and return its path."""

    def write(name: str = "quick", **lines: str) -> Path:
        text = QUICK.format(teacher=tiny_teacher_path, data=garments_path)
        for key, value in lines.items():
            changed = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert changed != text, key
            text = changed
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write
