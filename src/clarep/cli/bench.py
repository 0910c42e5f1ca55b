"""`clarep bench`: measure clarep on this machine."""

import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from torch import Tensor

from clarep.cli.bench_distill import BenchDistill
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import versions, write_json
from clarep.engine.lock import hold
from clarep.engine.seeds import check_seed
from clarep.errors import UserError
from clarep.geometry import benchmark, profiling
from clarep.geometry.benchmark import Case, Features, Problem
from clarep.geometry.jacobian import probe_engine
from clarep.geometry.subspace import Measure
from clarep.report.benchmark import case_line, print_subspace
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

RESULT_NAME = "bench_subspace.json"
_MEASURES: tuple[Measure, ...] = ("energy", "angle")


@dataclass(frozen=True)
class BenchSubspace:
    """Time the subspace solver beside the field's scheme, against the exact SVD.

    On a teacher and the first images of a data set, noised with seeded noise (inversion is not
    what is measured). The field's scheme works on one image at a time, so its cost an image is
    the same at every batch.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    """Which images; they must fit the teacher."""
    out: Path = Path("runs/bench")
    """Folder for bench_subspace.json."""
    teacher_options: Annotated[TeacherOptions, tyro.conf.arg(name="")] = field(
        default_factory=TeacherOptions
    )
    """How the teacher is loaded and run."""
    teacher: str = "backdrops"
    """A bundled teacher's name, a path to a teacher.safetensors or its folder, or FAMILY:PLACE such
    as dit:PATH."""
    tap: str | None = None
    """Layer whose Jacobian is taken; without it, the teacher's middle."""
    t: float = 0.85
    """Noise level, as a share of the teacher's time axis."""
    ks: tuple[int, ...] = (8, 32, 128)
    """Numbers of directions."""
    batches: tuple[int, ...] = (1, 16)
    """Images that our solver takes at once."""
    images: int = 2
    """Images with an exact SVD, on which the reference is timed; others only fill a batch."""
    max_iterations: int = 100
    """Where the reference gives up; 100 is its own limit."""
    seed: int = 0
    """Seed of the noise and of the solvers' starts."""
    json: bool = False
    """Print the result as one JSON object instead of a table."""

    def run(self) -> None:
        """Measure, print, save."""
        for name in ("ks", "batches"):
            if not getattr(self, name):
                raise UserError(f"--{name} is empty: give at least one number")
        for name in ("images", "max_iterations"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UserError(f"--{option} {getattr(self, name)} is below 1: give at least 1")
        if min(self.batches) < 1:
            raise UserError(f"--batches {min(self.batches)} is below 1: give at least 1")
        check_seed(self.seed)
        if self.teacher_options.device != "cpu":
            raise UserError(
                f"--device {self.teacher_options.device} cannot be timed, as seconds are taken on "
                "the CPU alone: leave it out; clarep doctor times a basis on a GPU"
            )
        _lock = hold(self.out)
        result = self._measure()
        path = self.out / RESULT_NAME
        write_json(path, result)
        if self.json:
            print(json.dumps(result, indent=2))
            return
        print_subspace(result)
        print(f"wrote {path}")

    def _measure(self) -> dict[str, Any]:
        started = time.perf_counter()
        note = Console(stderr=True, highlight=False).print
        problem, sigma = self._problem(note)
        one = slice(0, 1)
        flops = profiling.forward_flops(problem.features(one), problem.x[one])
        cases = []
        for case in self._cases(problem):
            note(f"{time.perf_counter() - started:5.0f} s  {case_line(case)}", soft_wrap=True)
            cases.append(case)
        k, batch = max(self.ks), max(self.batches)
        return {
            "what": "top k right singular vectors of J, to 0.99 of the optimal energy or a worst "
            "angle of 1e-2; costs an image, truths from the exact SVD",
            "config": self._config() | {"sigma": sigma},
            "problem": {
                "n": problem.truths[0].jacobian.shape[1],
                "m": problem.truths[0].jacobian.shape[0],
                "engine": problem.engine,
                "forward_mflop": flops / 1e6,
                "singular_values": {
                    str(k): float(problem.truths[0].values[k - 1]) for k in (1, *self.ks)
                },
            },
            "cases": [asdict(case) | {"gflops": _gflops(case, flops)} for case in cases],
            "ratios": benchmark.ratios(cases),
            "time_shares": {"k": k, "batch": batch, **_time_shares(problem, k, batch)},
            "machine": {
                "platform": platform.platform(),
                "processor": profiling.processor(),
                "cpus": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "matmul_gflops": profiling.matmul_gflops(),
            },
            "versions": versions(),
            "seconds": time.perf_counter() - started,
        }

    def _config(self) -> dict[str, Any]:
        given = asdict(self) | {"out": str(self.out)}
        given["teacher_options"] = recorded(self.teacher_options) | {
            "device": self.teacher_options.device
        }
        file = self.data.classes_file
        given["data"] |= {"classes_file": None if file is None else str(file)}
        return given

    def _problem(self, note: Any) -> tuple[Problem, float]:
        teacher = load_teacher(self.teacher, self.teacher_options)
        tap = self.tap or teacher.default_tap
        teacher.check_tap(tap)
        sigma = teacher.sigma_from_t(self.t)
        images = _first_images(load_data(self.data), max(self.images, *self.batches))
        features, x = _noisy_features(teacher, tap, sigma, images, self.seed)
        one = slice(0, 1)
        with torch.no_grad():
            m = features(one)(x[one]).numel()
        benchmark.check_ks(self.ks, (m, x[0].numel()))
        engine, _ = probe_engine(features(one), x[one])
        note(f"exact SVD of {self.images} Jacobians of {m} x {x[0].numel()}")
        truths = tuple(
            benchmark.exact_truth(features, x, image, max(self.ks), engine)
            for image in range(self.images)
        )
        return Problem(features, x, engine, truths, self.seed, self.max_iterations), sigma

    def _cases(self, problem: Problem) -> Iterator[Case]:
        # Once beforehand, so that nobody's time holds what is loaded at first use.
        benchmark.measure_clarep(problem, min(self.ks), 1, "energy")
        for k in self.ks:
            for batch in self.batches:
                for measure in _MEASURES:
                    yield benchmark.measure_clarep(problem, k, batch, measure)
            yield from benchmark.measure_reference(problem, k)


@dataclass(frozen=True)
class Bench:
    """Measure clarep on this machine."""

    # A new benchmark is one line here. The suppressed None makes a table of one a union too.
    action: (
        Annotated[BenchSubspace, tyro.conf.subcommand("subspace")]
        | Annotated[BenchDistill, tyro.conf.subcommand("distill")]
        | Annotated[None, tyro.conf.Suppress]
    )

    def run(self) -> None:
        """Do what the subcommand says."""
        if self.action is not None:
            self.action.run()


def _first_images(data: LabelledImages, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` images, in [-1, 1], and their labels."""
    if count > len(data):
        raise UserError(
            f"{data.name} holds {len(data)} images, fewer than the {count} of --images and "
            "--batches: give smaller ones"
        )
    indices = np.arange(count)
    return to_unit_range(data.images(indices)), torch.from_numpy(data.labels[indices])


def _noisy_features(
    teacher: Teacher, tap: str, sigma: float, labelled: tuple[Tensor, Tensor], seed: int
) -> tuple[Features, Tensor]:
    """Return the features as functions of x alone, and x = x_0 + sigma eps of the images."""
    images, labels = (tensor.to(teacher.device) for tensor in labelled)
    teacher.accept_images(images)
    teacher.check_labels(labels)
    with torch.no_grad():
        x = teacher.encode(images)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    x = x + sigma * noise.to(x)

    def features(part: slice) -> Any:
        cond = teacher.condition(labels[part])

        def function(x: Tensor) -> Tensor:
            given = cond.expand(len(x), *cond.shape[1:])  # the reference repeats its one image
            return teacher.features(x, x.new_full((len(x),), sigma), given, tap)

        return function

    return features, x


def _time_shares(problem: Problem, k: int, batch: int) -> dict[profiling.Kind, float]:
    jacobian = problem.jacobian(slice(0, batch))
    return profiling.time_shares(lambda: benchmark.solve(jacobian, k, "energy", problem.seed))


def _gflops(case: Case, forward_flops: int) -> float:
    return case.products_per_image * forward_flops / case.seconds_per_image / 1e9
