"""`clarep bench`: measure clarep on this machine, as ratios against a reference in the same run."""

import json
import tempfile
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from clarep.cli.bench_output import machine, write_result
from clarep.cli.bench_scale import BenchScale
from clarep.cli.option_groups import DataGroup, TeacherGroup, TeacherSpec
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.distill.distill_config import DistillConfig, check_distill
from clarep.distill.methods import Method, method_named
from clarep.distill.overhead import summarise, synthetic_audit, synthetic_set, time_epochs
from clarep.engine.bounds import Seed, Within
from clarep.engine.lock import hold
from clarep.engine.progress import progress
from clarep.errors import UserError
from clarep.geometry.benchmark import MEASURES, Case, Problem, ratios
from clarep.geometry.jacobian import probe_engine
from clarep.report.tables import plain_table
from clarep.select.teacher_check import noisy_features
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.zoo import load_teacher


@dataclass(frozen=True)
class BenchSubspace:
    """Time the subspace solver beside the field's scheme, against the exact SVD.

    On a teacher and the first images of a data set, noised with seeded noise (inversion is not
    what is measured). The field's scheme works on one image at a time, so its cost an image is
    the same at every batch.
    """

    data: DataGroup = field(default_factory=DataConfig)
    out: Path = Path("runs/bench")
    """Folder for bench_subspace.json."""
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    teacher: TeacherSpec = "backdrops"
    tap: str | None = None
    """Layer whose Jacobian is taken; without it, the teacher's middle."""
    t: float = 0.85
    """Noise level, as a share of the teacher's time axis."""
    ks: tuple[Annotated[int, Within(1)], ...] = (8, 32, 128)
    """Numbers of directions."""
    batches: tuple[Annotated[int, Within(1)], ...] = (1, 16)
    """Images that our solver takes at once."""
    images: Annotated[int, Within(1)] = 2
    """Images with an exact SVD, on which the reference is timed; others only fill a batch."""
    max_iterations: Annotated[int, Within(1)] = 100
    """Where the reference gives up; 100 is its own limit."""
    compiled: bool = False
    """Time our solver with compiled products too, beside eager ones; their compile, a minute or two
    for each k and batch, is in no time."""
    seed: Seed = 0
    """Seed of the noise and of the solvers' starts."""
    json: bool = False
    """Print the result as one JSON object instead of a table."""

    def run(self) -> None:
        """Measure, print, save."""
        if not (self.ks and self.batches):
            raise UserError("`ks` or `batches` is empty: give at least one number")
        if self.teacher_options.device != "cpu":
            raise UserError(
                f"`device={self.teacher_options.device}` cannot be timed, as seconds are taken on "
                "the CPU alone: leave it out; clarep doctor times a basis on a GPU"
            )
        _lock = hold(self.out)
        result = self._measure()
        write_result(self.out / "bench_subspace.json", result, _subspace_text(result), self.json)

    def _measure(self) -> dict[str, Any]:
        teacher = load_teacher(self.teacher, self.teacher_options)
        tap = self.tap or teacher.default_tap
        teacher.check_tap(tap)
        sigma = teacher.sigma_from_t(self.t)
        data, count = load_data(self.data), max(self.images, *self.batches)
        features, x = noisy_features(teacher, tap, sigma, data, count=count, seed=self.seed)
        engine, _ = probe_engine(features(slice(0, 1)), x[:1])
        problem = Problem(
            features,
            x,
            engine,
            truths=self.images,
            ks=self.ks,
            seed=self.seed,
            max_iterations=self.max_iterations,
        )
        problem.clarep(min(self.ks), 1, "energy")  # so that no time holds what is loaded first
        cases: list[Case] = []
        with progress("bench", "k", len(self.ks), even=False) as advance:
            for k in self.ks:
                for batch in self.batches if self.compiled else ():
                    advance(0, f"compiling for k = {k}, batch {batch}")
                    problem.compile(k, batch)
                ways = (False, True) if self.compiled else (False,)
                for measure, b, way in product(MEASURES, self.batches, ways):
                    cases.append(problem.clarep(k, b, measure, compiled=way))
                cases += problem.reference(k)
                advance(1)
        teacher_options = recorded(self.teacher_options)
        return {
            "what": "top k right singular vectors of J, to 0.99 of the optimal energy or a worst "
            "angle of 1e-2; costs an image, truths from the exact SVD",
            "config": json.loads(json.dumps(asdict(self), default=str))
            | {"sigma": sigma, "tap": tap, "teacher_options": teacher_options},
            "problem": {
                "n": problem.shape[1],
                "m": problem.shape[0],
                "engine": engine,
                "flop_a_pass": problem.flop_a_pass,
                "singular_values": {
                    str(k): float(problem.truths[0].values[k - 1]) for k in (1, *self.ks)
                },
            },
            "cases": [asdict(case) for case in cases],
            "ratios": ratios(cases),
        } | machine()


@dataclass(frozen=True)
class BenchDistill:
    """Time an epoch of methods beside one of plain training, in turn, of the same student.

    What they learn from beside the images is made of noise, of the shapes of a real one.
    """

    data: DataGroup = field(default_factory=DataConfig)
    train: DistillConfig = field(default_factory=lambda: DistillConfig(epochs=3))
    """How to train; its epochs are those timed, after one to warm up."""
    student: str = "resnet8"
    """Architecture: resnet8, resnet8-half, resnet18, wrn16-2, vit-tiny, or timm:NAME."""
    activation: Literal["relu", "silu", "gelu"] | None = None
    """In place of the architecture's own."""
    methods: tuple[str, ...] = ("cadistill",)
    """Methods to time beside vanilla, of those that ask no other model while they train."""
    fraction: Annotated[float, Within(0, 1, "(]")] = 0.1
    """Share of every class that has a canonical sample, and of class evidence."""
    out: Path = Path("runs/bench")
    """Folder for bench_distill.json."""
    json: bool = False
    """Print the result as one JSON object instead of a table."""

    def run(self) -> None:
        """Measure, print, save."""
        check_distill(self.train)
        methods = {name: method_named(name) for name in dict.fromkeys(("vanilla", *self.methods))}
        for name, method in methods.items():
            if method.needs_classifier or method.needs_teacher:
                raise UserError(
                    f"{name} asks another model, whose cost would depend on which: leave it out of "
                    "`methods`"
                )
        _lock = hold(self.out)
        result = self._measure(methods)
        write_result(
            self.out / "bench_distill.json", result, _distill_text(result["result"]), self.json
        )

    def _measure(self, methods: dict[str, type[Method]]) -> dict[str, Any]:
        data = load_data(self.data)
        canonical = synthetic_set(data, self.fraction, self.train.seed)
        audited = any(method.needs_audit for method in methods.values())
        parts = {
            "student": self.student,
            "activation": self.activation,
            "canonical": canonical,
            "audit": synthetic_audit(data, self.fraction, self.train.seed) if audited else None,
        }
        epochs = []
        total = len(methods) * (self.train.epochs + 1)
        with tempfile.TemporaryDirectory() as folder, progress("bench", "epochs", total) as advance:
            for epoch in time_epochs(data, list(methods), self.train, Path(folder), **parts):
                epochs.append(epoch)
                advance(1, f"{epoch['method']} {epoch['seconds']:.2f} s")
        return {
            "what": "seconds an epoch of each method over vanilla, in turn in one process, after "
            "an epoch to warm up; the loader's share is reading, views and canonical batches",
            "config": {
                "data": stored_options(self.data),
                "train": asdict(self.train),
                "student": self.student,
                "activation": self.activation,
                "images": len(data),
                "canonical_images": len(canonical),
                "canonical_batch": self.train.canonical_batch,
            },
            "result": summarise(epochs),
            "epochs": epochs,
        } | machine()


@dataclass(frozen=True)
class Bench:
    """Measure clarep on this machine."""

    action: (
        Annotated[BenchSubspace, tyro.conf.subcommand("subspace")]
        | Annotated[BenchDistill, tyro.conf.subcommand("distill")]
        | Annotated[BenchScale, tyro.conf.subcommand("scale")]
    )

    def run(self) -> None:
        """Do what the subcommand says."""
        self.action.run()


def _subspace_text(result: dict[str, Any]) -> str:
    costs = [
        [
            case["method"].replace("_", " "),
            str(case["k"]),
            str(case["batch"]),
            case["measure"].replace("_", " "),
            f"{case['products']:.0f}",
            f"{'' if case['reached'] else '>'}{case['seconds']:.3f}",
            f"{case['captured']:.4f}",
            f"{case['angle']:.4f}",
            f"{case['seconds'] / case['arithmetic']:.1f}x" if case["arithmetic"] else "",
        ]
        for case in result["cases"]
    ]
    times = [
        [
            ratio["ours"].replace("_", " "),
            ratio["against"].replace("_", " "),
            "told by the exact SVD" if ratio["reference_stop"] == "truth" else "by itself",
            str(ratio["k"]),
            str(ratio["batch"]),
            ratio["measure"] + ("" if ratio["ours_reached"] else " (ours missed)"),
            *(f"{'>' * ratio['at_least']}{ratio[cost]:.1f}" for cost in ("seconds", "products")),
        ]
        for ratio in result["ratios"]
    ]
    note = (
        "Costs are an image's. Energy and angle are true ones, of the worst image. > gave up. "
        "Arithmetic: times the seconds of as much of it in plain matrix products."
    )
    headings = ["method", "k", "batch", "to", "products", "s", "energy", "angle", "arithmetic"]
    table = plain_table(headings, costs, note)
    note = "Times our cost; ours always stops by itself."
    headings = ["ours", "reference", "stopped", "k", "batch", "ours to", "seconds", "products"]
    return f"{table}\n\n{plain_table(headings, times, note)}"


_COUNTED = "(counted: operations of convolutions and matrix products over vanilla's)"
_DISTILL_HEADINGS = ("method", "s an epoch", "images/s", "loader", "overhead", "counted")


def _distill_text(measured: dict[str, Any]) -> str:
    rows = [
        [
            method,
            f"{found['seconds']:.2f}",
            f"{found['images_per_s']:.0f}",
            f"{found['loader_share']:.1%}",
            "{median:.2f}x ({lowest:.2f} to {highest:.2f})".format(**found["overhead"])
            if "overhead" in found
            else "",
            f"{found['overhead']['counted']:.2f}x" if "overhead" in found else "",
        ]
        for method, found in measured.items()
    ]
    return plain_table(_DISTILL_HEADINGS, rows, _COUNTED)
