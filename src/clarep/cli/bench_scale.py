"""`clarep bench scale`: what workers cost and gain on this machine, and hours on many GPUs."""

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig
from clarep.clarid.scaling import Projection, compared_rates, projected, time_shards
from clarep.cli.bench_output import machine, write_result
from clarep.cli.option_groups import ClaridGroup, DataGroup, TeacherGroup, TeacherSpec
from clarep.data.class_balance import class_balanced_choice
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.engine.bounds import Within
from clarep.engine.fan_out import LOCAL, EngineConfig, check_engine
from clarep.engine.lock import hold
from clarep.engine.progress import progress
from clarep.errors import UserError
from clarep.report.tables import plain_table
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

_GPUS = (1, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class BenchScale:
    """Time the making of a canonical set here and on one and two workers of Ray, in turn.

    Then hours on 1 to 512 GPUs follow by a calculation whose assumptions are options.
    """

    data: DataGroup = field(default_factory=DataConfig)
    clarid: ClaridGroup = field(default_factory=ClaridConfig)
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    assumed: Annotated[Projection, tyro.conf.arg(name="")] = field(default_factory=Projection)
    teacher: TeacherSpec = "backdrops"
    shards: Annotated[int, Within(4)] = 8
    """Shards of each timed set, an even number; what is timed are those after each worker's
    first."""
    shard_size: Annotated[int, Within(1)] = 16
    """Images a shard."""
    rounds: Annotated[int, Within(1)] = 3
    """How often each is timed, in turn."""
    address: str | None = None
    """Of a Ray cluster; without it, Ray is started on this machine."""
    gpus_per_worker: Annotated[float, Within(0)] = 0.0
    """GPUs that each worker takes."""
    out: Path = Path("runs/bench")
    """Folder for bench_scale.json."""
    json: bool = False
    """Print the result as one JSON object instead of a table."""

    def run(self) -> None:
        """Measure, calculate, print, save."""
        if self.shards % 2:
            raise UserError(
                f"`shards={self.shards}` is odd, and two workers are to make as many each: give "
                f"{self.shards + 1}"
            )
        on_ray = EngineConfig("ray", self.address, gpus_per_worker=self.gpus_per_worker)
        check_engine(on_ray, self.teacher_options.device)
        engines = {"local": LOCAL} | {f"ray {n}": replace(on_ray, workers=n) for n in (1, 2)}
        _lock = hold(self.out)
        data, teacher = load_data(self.data), load_teacher(self.teacher, self.teacher_options)
        count = self.shards * self.shard_size
        chosen = class_balanced_choice(data.labels, min(1.0, 2 * count / len(data)), 0)[:count]
        if len(chosen) < count:
            raise UserError(
                f"{data.name} has {len(chosen)} images and {count} are timed: give fewer `shards` "
                "or a smaller `shard_size`"
            )
        rounds = self._timed(teacher, data, chosen, engines)
        result = {
            "what": "images a second of a canonical set made in this process, and on workers of "
            "Ray once each has made a shard; overhead is the time of an image on one worker over "
            "that here, less 1; start_seconds is what the first shard waits for longer",
            "config": {
                "data": stored_options(self.data),
                "clarid": asdict(self.clarid),
                "teacher": self.teacher,
                "shards": self.shards,
                "shard_size": self.shard_size,
            },
            "result": compared_rates(rounds),
            "rounds": rounds,
            "assumed": asdict(self.assumed),
            "projected": projected(self.assumed, _GPUS),
        } | machine()
        write_result(self.out / "bench_scale.json", result, _text(result), self.json)

    def _timed(
        self,
        teacher: Teacher,
        data: LabelledImages,
        chosen: NDArray[np.int64],
        engines: dict[str, EngineConfig],
    ) -> list[dict[str, dict[str, float]]]:
        """Return the times of each round by the name of its engine."""
        rounds: list[dict[str, dict[str, float]]] = []
        with progress("bench", "sets", self.rounds * len(engines), even=False) as advance:
            for _ in range(self.rounds):
                rounds.append({})
                for name, engine in engines.items():
                    clarid, size = Clarid(teacher, self.clarid), self.shard_size
                    with tempfile.TemporaryDirectory(dir=self.out) as folder:
                        where = Path(folder)
                        timed = time_shards(
                            clarid, data, where, chosen, shard_size=size, engine=engine
                        )
                    rounds[-1][name] = timed
                    advance(1, f"{name}: {timed['images_per_s']:.2f} images/s")
        return rounds


def _text(result: dict[str, Any]) -> str:
    found = result["result"]

    def told(name: str, form: str) -> str:
        middle, low, high = (
            format(found[name][key], form) for key in ("median", "lowest", "highest")
        )
        return f"{middle} ({low} to {high})"

    rates = found["images_per_s"].items()
    rows = [
        [name, *(f"{rate[key]:.2f}" for key in ("median", "lowest", "highest"))]
        for name, rate in rates
    ]
    below = (
        f"Overhead of one worker {told('overhead', '.1%')}; two workers over one "
        f"{told('speed_up', '.2f')}, over this process {told('two_workers_over_local', '.2f')}. "
        f"The first shard waits {told('start_seconds', '.1f')} s longer."
    )
    table = plain_table(["images/s", "median", "lowest", "highest"], rows, below)
    hours = [
        [str(row["gpus"]), f"{row['hours']:.1f}", f"{row['share']:.0%}"]
        for row in result["projected"]
    ]
    assumed = ", ".join(f"{name} {value:g}" for name, value in result["assumed"].items())
    return f"{table}\n\n" + plain_table(
        ["GPUs", "hours", "of ideal"], hours, f"Calculated from: {assumed}."
    )
