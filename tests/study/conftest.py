"""Runs whose numbers are made up."""

import json
from pathlib import Path

import pytest
import torch

from clarep.robustness.evaluation import Evaluation, Measurement, mean_of
from clarep.robustness.measures import measure_of
from clarep.robustness.suite.suite_config import GROUPS


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
        official: str | None = None,
        content: str = "",
        place: str = "",
        more: list[Measurement] | None = None,
        groups: tuple[str, ...] | None = None,
        suite: dict[str, object] | None = None,
        caveat: str = "",
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
        if content:
            config |= {"data": place, "data_sha256": content}
            config["data_options"]["data"] = place
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
            "official_corruptions": official,
            "caveat": caveat,
        }
        config["suite"] = {"groups": list(groups or GROUPS), **(suite or {})}
        if groups is not None:
            measurements = [m for m in measurements if measure_of(m.key).group in groups]
        if content:
            config |= {"data": {"name": place}, "data_sha256": {"clean": content}}
            config["data_options"]["data"] = place
        Evaluation(config, measurements, arrays).save(run / "robustness")
        return run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    return MakeRun(tmp_path / "runs")
