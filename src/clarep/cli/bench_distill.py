"""`clarep bench distill`: what CaDistill costs over plain training on this machine."""

import json
import os
import platform
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.shared import describe
from clarep.data.load import DataConfig, load_data
from clarep.distill.benchmark import METHODS_TIMED, summarise, synthetic_set, time_epochs
from clarep.distill.distill_config import DistillConfig, check_distill
from clarep.engine.artefacts import versions, write_json
from clarep.engine.lock import hold
from clarep.engine.progress import progress
from clarep.errors import UserError

RESULT_NAME = "bench_distill.json"


@dataclass(frozen=True)
class BenchDistill:
    """Time an epoch of CaDistill beside one of plain training, in turn, of the same student."""

    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    """Which images."""
    train: DistillConfig = field(default_factory=lambda: DistillConfig(epochs=3))
    """How to train; its epochs are those timed, after one to warm up."""
    student: str = "resnet8"
    """Architecture: resnet8, resnet18, wrn16-2, vit-tiny, or timm:NAME."""
    fraction: float = 0.1
    """Share of every class that has a canonical sample."""
    canon: Path | None = None
    """Folder of a canonical set; without it one of noise, of the same shapes, is made."""
    out: Path = Path("runs/bench")
    """Folder for bench_distill.json."""
    json: bool = False
    """Print the result as one JSON object instead of a table."""

    def run(self) -> None:
        """Measure, print, save."""
        check_distill(self.train)
        _lock = hold(self.out)
        result = self._measure()
        path = self.out / RESULT_NAME
        write_json(path, result)
        if self.json:
            print(json.dumps(result, indent=2))
            return
        _print_result(result)
        print(f"wrote {path}")

    def _measure(self) -> dict[str, Any]:
        data = load_data(self.data)
        if self.canon is None:
            canonical = synthetic_set(data, self.fraction, self.train.seed)
        else:
            canonical = CanonicalSet.load(self.canon)
            self._check_kind(canonical)
        timings = []
        total = len(METHODS_TIMED) * (self.train.epochs + 1)
        with tempfile.TemporaryDirectory() as folder, progress("bench", "epochs", total) as advance:
            steps = time_epochs(data, canonical, self.student, self.train, Path(folder))
            for timing in steps:
                timings.append(timing)
                advance(1, f"{timing.method} {timing.seconds:.2f} s")
        return {
            "what": "seconds an epoch of cadistill over vanilla, in turn in one process, after an "
            "epoch to warm up; the loader's share is reading, views and canonical batches",
            "config": {
                "data": describe("", self.data)["data_options"],
                "train": asdict(self.train),
                "student": self.student,
                "images": len(data),
                "canonical_images": len(canonical),
                "canonical_batch": self.train.canonical_batch,
                "canonical": "synthetic" if self.canon is None else str(self.canon),
            },
            "result": summarise(timings),
            "epochs": [asdict(timing) for timing in timings],
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cpus": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            },
            "versions": versions(),
        }

    def _check_kind(self, canonical: CanonicalSet) -> None:
        kind = canonical.manifest["config"]["clarid"]["kind"]
        if kind != "top":
            raise UserError(f"--canon {self.canon} is of kind {kind}: give one of kind top")


def _print_result(result: dict[str, Any]) -> None:
    config, measured = result["config"], result["result"]
    table = Table(
        title=f"{config['student']}, {config['images']} images, "
        f"{config['canonical_images']} canonical, batch {config['train']['batch_size']} + "
        f"{config['canonical_batch']}"
    )
    for name in ("method", "s an epoch", "images/s", "loader"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method in METHODS_TIMED:
        row = measured[method]
        table.add_row(
            method,
            f"{row['seconds']:.2f}",
            f"{row['images_per_s']:.0f}",
            f"{100 * row['loader_share']:.1f} %",
        )
    console = Console(color_system=None)
    console.print(table)
    overhead = measured["overhead"]
    console.print(
        f"overhead {overhead['median']:.2f}x "
        f"({overhead['lowest']:.2f} to {overhead['highest']:.2f})",
        highlight=False,
    )
