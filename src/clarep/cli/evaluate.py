"""`clarep evaluate`: a student through the robustness suite."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from clarep.cli.shared import describe, note
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data
from clarep.distill.student import Student
from clarep.distill.students import load_student, student_path
from clarep.engine.artefacts import sha256_file
from clarep.engine.progress import progress
from clarep.errors import UserError, unknown_name
from clarep.report.tables import plain_table
from clarep.robustness.attacks.threat import unit_note
from clarep.robustness.boxes import has_boxes, load_boxed
from clarep.robustness.challenge import is_challenge, load_challenge
from clarep.robustness.evaluation import Evaluation, Measurement
from clarep.robustness.suite import SuiteRun
from clarep.robustness.suite_beyond import BEYOND
from clarep.robustness.suite_config import SuiteConfig

_SHOWN = (
    (r"clean/accuracy", "clean accuracy"),
    (r"attack/pgd-(.*)", "PGD {}"),
    (r"attack/autoattack-(.*)", "AutoAttack {}"),
    (r"attack/worst-(.*)", "worst attack {}"),
    (r"attack/(cw-l2/median_l2)", "{}"),
    (r"corruption/mean", "corruptions, mean"),
    (r"corruption/mce", "corruptions, mCE"),
    (r"beyond/(.*)/accuracy", "{}"),
    (r"background/mixed_rand", "other backgrounds (mixed_rand)"),
    (r"background/gap", "BG-gap"),
    (r"background/flipped", "flipped by some background"),
    (r"calibration/ece", "ECE"),
    (r"ood/(.*)/auroc", "AUROC against {}"),
    (r"focus/input_gradient", "gradient energy on the object"),
    (r"focus/area", "area of the object"),
)


@dataclass(frozen=True)
class Evaluate:
    """Measure how robust a student is: attacks, corruptions, backgrounds, calibration, focus.

    Killed at any moment, the same command goes on; what is measured already and was asked for
    with the same settings is not measured again.
    """

    student: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder that clarep distill wrote, or a student.safetensors."""
    suite: Annotated[SuiteConfig, tyro.conf.arg(name="")] = field(default_factory=SuiteConfig)
    """What is measured."""
    data: str | None = None
    """Test data: garments, backdrops, or a path; an .npz with boxes and the Backgrounds
    Challenge's folders too. Without it, what the student was trained on."""
    split: str = "test"
    """Split that is measured; an undivided path has train alone."""
    image_size: int | None = None
    """Side that images are brought to; without it, as the student was trained."""
    correlation: float | None = None
    """Backdrops only: share of images on their class's own scene; without it, the student's."""
    data_seed: int | None = None
    """Backdrops only: seed of placement, scene, crop and tint; without it, the student's."""
    reference: Path | None = None
    """Run of another student, vanilla say: attacks made for it must not be the stronger ones."""
    baseline: Path | None = None
    """Evaluated run whose corruption errors are the measure of mCE."""
    ood: tuple[str, ...] = ()
    """Sets of images of none of the classes, names or paths, for AUROC."""
    official_corruptions: Path | None = None
    """Folder of NAME.npy and labels.npy, CIFAR-10-C's say, made from the test data: corrupted
    images are read there instead of made."""
    beyond: tuple[str, ...] = ()
    """Natural test sets, NAME=PATH each: cifar10.1, imagenet-a, imagenet-r, imagenet-v2 and their
    folders; real and real.json of ImageNet-ReaL, new labels for the test data."""
    out: Path | None = None
    """Folder of the evaluation; without it, RUN/robustness."""
    json: bool = False
    """Print one JSON object instead of a table; progress goes to stderr."""

    def run(self) -> None:
        """Measure, store, and print a short table."""
        file = student_path(self.student)
        student = load_student(file)
        beyond = _named_paths(self.beyond)
        options = self._data_options(file)
        data = load_test_data(options)
        out = _home(file) / "robustness" if self.out is None else self.out
        suite = SuiteRun(
            student,
            data,
            self.suite,
            folder=out,
            described=self._described(file, options),
            reference=None if self.reference is None else load_student(self.reference),
            baseline=None if self.baseline is None else _load_evaluation(self.baseline),
            ood=self._ood(student),
            official_corruptions=self.official_corruptions,
            beyond=beyond,
        )
        self._note_units()
        steps = suite.steps()
        start = next(steps)
        with progress("evaluate", "passes", start.total, start.done) as advance:
            for step in steps:
                advance(step.new)
        self._print(suite.evaluation(), out)

    def _note_units(self) -> None:
        """Say so where a radius looks as if another unit were meant."""
        attack = self.suite.attack
        if "attacks" in self.suite.groups:
            for eps_255 in dict.fromkeys((*attack.eps_255, *attack.autoattack_eps_255)):
                if text := unit_note(eps_255):
                    note(text)

    def _data_options(self, file: Path) -> DataConfig:
        """Return how the test data are read: as the student's own, but for what is given."""
        trained = _trained_on(file)
        if self.data is not None and trained is not None and self.data != trained.data:
            trained = None  # options of other data do not apply
        base = DataConfig() if trained is None else trained
        names = ("data", "image_size", "correlation", "data_seed")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(base, split=self.split, **given)

    def _described(self, file: Path, options: DataConfig) -> dict[str, Any]:
        """Return what an evaluation's configuration holds beside student and suite."""
        others = {"reference": self.reference, "baseline": self.baseline}
        return {
            "run": _home(file).name,
            "student_file_sha256": sha256_file(file),
            "data_options": describe("", options)["data_options"],
        } | {name: None if path is None else str(path) for name, path in others.items()}

    def _ood(self, student: Student) -> dict[str, LabelledImages]:
        """Read the sets of other images; raises UserError for one of another size."""
        sets: dict[str, LabelledImages] = {}
        _, height, width = student.info.image_shape
        for given in self.ood:
            name = re.sub(r"[^\w.-]+", "_", Path(given).stem) or "set"
            if name in sets:
                raise UserError(f"two sets of --ood are called {name}: rename one of them")
            data = _load_any_split(given, height)
            shape = data.read(0).shape
            if shape[:2] != (height, width):
                raise UserError(
                    f"images of --ood {given} are {shape[1]}x{shape[0]} and the student takes "
                    f"{width}x{height}: give a set of that size"
                )
            sets[name] = data
        return sets

    def _print(self, evaluation: Evaluation, out: Path) -> None:
        cost = evaluation.config["cost"]
        if self.json:
            answer = {
                "measurements": [asdict(one) for one in evaluation.measurements],
                "cost": cost,
                "wrote": str(out),
            }
            print(json.dumps(answer, indent=2))
            return
        print(evaluation_table(evaluation))
        seconds, passes = sum(cost["seconds"].values()), sum(cost["forward_passes"].values())
        print(f"{seconds:.0f} s, {passes} forward passes, peak memory {cost['peak_memory_mb']} MiB")
        print(f"evaluation in {out}")


def evaluation_table(evaluation: Evaluation) -> str:
    """Return the figures that tell most, as plain text; what must not be trusted says why."""
    rows = []
    for pattern, words in _SHOWN:
        for one in evaluation.measurements:
            if found := re.fullmatch(pattern, one.key):
                rows.append([words.format(*found.groups()), *_cells(one)])
    return plain_table(("", "value", "95 %", "images", ""), rows, "")


def _cells(one: Measurement) -> list[str]:
    low, high = one.interval
    doubt = f"not trustworthy: {one.untrustworthy}" if one.untrustworthy else ""
    return [f"{one.value:.3f}", f"{low:.3f} to {high:.3f}", str(one.images), doubt]


def load_test_data(options: DataConfig) -> LabelledImages:
    """Load a test set, with its boxes or other variants where the path has them."""
    path = Path(options.data).expanduser()
    if is_challenge(path):
        return load_challenge(path, options.image_size)
    if has_boxes(path) and options.image_size is None:
        return load_boxed(path, options.split)
    return load_data(options)


def _load_any_split(given: str, image_size: int) -> LabelledImages:
    """Load a set by its test images, or whatever split it has."""
    is_path = Path(given).expanduser().exists()
    config = DataConfig(data=given, split="test", image_size=image_size if is_path else None)
    for split in ("test", "val"):
        try:
            return load_data(replace(config, split=split))
        except UserError:
            continue
    return load_data(replace(config, split="train"))


def _named_paths(given: Sequence[str]) -> dict[str, Path]:
    """Read the NAME=PATH of --beyond; raises UserError."""
    paths: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if name not in BEYOND:
            raise unknown_name("set of --beyond", name, BEYOND)
        if not equals or not path:
            raise UserError(f"--beyond {text} names no path: give {name}=PATH")
        if name in paths:
            raise UserError(f"--beyond gives {name} twice: name each set once")
        paths[name] = Path(path)
    return paths


def _home(file: Path) -> Path:
    """Return the run that a student's file belongs to."""
    folder = file.absolute().parent
    return folder.parent if folder.name == "student" else folder


def _trained_on(file: Path) -> DataConfig | None:
    """Return the data options that are stored beside a student; None if none are."""
    path = file.parent / "config.json"
    try:
        stored = json.loads(path.read_text())["data_options"]
        known = {one.name for one in fields(DataConfig)}
        options = {name: value for name, value in stored.items() if name in known}
        if options.get("classes_file") is not None:
            options["classes_file"] = Path(options["classes_file"])
        return DataConfig(**options)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {path} ({type(error).__name__}: {error}): train that student again, or "
            "give the student's file alone in another folder, with --data"
        ) from error


def _load_evaluation(path: Path) -> Evaluation:
    """Load the evaluation of a run, or one in the folder itself."""
    inner = path / "robustness"
    return Evaluation.load(inner if inner.is_dir() else path)
