"""`clarep evaluate`: a student through the robustness suite."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from clarep.cli.option_groups import EngineGroup, Json
from clarep.cli.terminal import note, warn
from clarep.engine.devices import check_device, default_device
from clarep.engine.fan_out import EngineConfig
from clarep.engine.progress import progress
from clarep.engine.tensors import weights_hash
from clarep.errors import UserError
from clarep.report.tables import plain_table
from clarep.robustness.attacks.attack_config import unit_notes
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import MEASURES, heading_of, measure_of
from clarep.robustness.student_and_data import StudentAndData, load_ood, student_and_data
from clarep.robustness.suite.suite import SuiteRun
from clarep.robustness.suite.suite_checks import named_paths
from clarep.robustness.suite.suite_config import SuiteConfig, check_suite
from clarep.students.student import Outputs, Student
from clarep.students.student_files import load_student


@dataclass(frozen=True)
class Evaluate:
    """Measure how robust a student is: attacks, corruptions, backgrounds, calibration, focus.

    Killed at any moment, the same command goes on; what is measured already and was asked for
    with the same settings is not measured again.
    """

    student: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder that clarep distill wrote, or a student.safetensors; or a classifier of another
    library, hf:FOLDER_OR_HUB_ID, timm:NAME or torchscript:FILE, with --data and --out."""
    suite: Annotated[SuiteConfig, tyro.conf.arg(name="")] = field(default_factory=SuiteConfig)
    """What is measured."""
    data: str | None = None
    """Test data: garments, backdrops, or a path; an .npz with boxes and the Backgrounds
    Challenge's folders too. Without it, what the student was trained on."""
    split: str | None = None
    """Split that is measured; without it test, else val, else the images that the run held out
    (held-out). Other data than a run's own, undivided, have train alone."""
    image_size: int | None = None
    """Side that images are brought to; without it, as the student was trained."""
    correlation: float | None = None
    """For backdrops: share of images on their class's own scene; without it, the student's."""
    data_seed: int | None = None
    """For backdrops: seed of placement, scene, crop and tint; without it, the student's."""
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
    weights: Path | None = None
    """For timm:NAME: its state dict, as safetensors or a torch file; without it, timm's own."""
    class_names: str | None = None
    """For classifiers of other libraries whose own names are not the data's: text file, a class
    name a line in the order of the logits, or imagenet for its 1,000 classes, by wnid and name."""
    outputs: Outputs | None = None
    """For classifiers of other libraries: what they answer with, logits unless told otherwise."""
    out: Path | None = None
    """Folder of the evaluation; without it, RUN/robustness."""
    device: str | None = None
    """Where the student runs: cpu, cuda, cuda:1 ...; without it, on a GPU where there is one."""
    engine: EngineGroup = field(default_factory=EngineConfig)
    json: Json = False

    def run(self) -> None:
        """Measure, store, and print a short table."""
        beyond = named_paths(self.beyond)
        check_suite(self.suite)
        names = ("data", "split", "image_size", "correlation", "data_seed")
        tested = student_and_data(
            self.student,
            {name: value for name in names if (value := getattr(self, name)) is not None},
            self.out,
            self.suite,
            weights=self.weights,
            class_names=self.class_names,
            outputs=self.outputs,
        )
        device = default_device() if self.device is None else check_device(self.device)
        reference = self._reference(tested.student)
        others = {"reference": self.reference, "baseline": self.baseline}
        suite = SuiteRun(
            tested.student.to(device),
            tested.data,
            self.suite,
            folder=tested.out,
            described=tested.described
            | {name: path and str(path) for name, path in others.items()},
            reference=None if reference is None else reference.to(device),
            baseline=None if self.baseline is None else _load_evaluation(self.baseline),
            ood=load_ood(self.ood, tested.student),
            official_corruptions=self.official_corruptions,
            beyond=beyond,
            engine=self.engine,
        )
        self._tell(tested, suite)
        steps = suite.steps()
        start = next(steps)
        with progress("evaluate", "passes", start.total, start.done) as advance:
            for step in steps:
                advance(step.new, skipped=step.skipped)
        self._print(suite.evaluation(), tested.out)

    def _reference(self, student: Student) -> Student | None:
        """Load the reference; here alone, since two variants of a study may end alike."""
        if self.reference is None:
            return None
        reference = load_student(self.reference)
        if weights_hash(reference) == weights_hash(student):
            raise UserError(
                f"`reference={self.reference}` holds the weights of {self.student} itself, whose "
                "attacks check nothing: give the run of another student, or leave it out"
            )
        return reference

    def _tell(self, tested: StudentAndData, suite: SuiteRun) -> None:
        """Say on stderr what is otherwise than one may expect, before anything is measured."""
        for text in (tested.warning, *suite.warnings):
            warn(text)
        for text in (*tested.notes, *suite.notes):
            note(text)
        if replaced := suite.replaced():
            note(
                f"{tested.out} holds an evaluation of other settings ({replaced}), which this one "
                "replaces: what was measured with other settings is measured again"
            )
        if "attacks" in self.suite.groups:
            for text in unit_notes(self.suite.attack, tested.student.info.image_shape):
                note(text)

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
    """Return the figures that tell most, as plain text; what qualifies them stands below, once."""
    rows = []
    remarks: dict[str, int] = {}
    of_key = {one.key: measure_of(one.key) for one in evaluation.measurements}
    listed = [one for one in evaluation.measurements if of_key[one.key].shown != "report"]
    for one in sorted(listed, key=lambda one: MEASURES.index(of_key[one.key])):
        low, high = one.interval
        marks = [f"({remarks.setdefault(text, len(remarks) + 1)})" for text in one.remarks]
        doubt = "not trustworthy " if one.untrustworthy else ""
        figure = [f"{one.value:.3f}", f"{low:.3f} to {high:.3f}", of_key[one.key].unit]
        rows.append([heading_of(one.key), *figure, str(one.images), doubt + " ".join(marks)])
    below = "\n".join(f"({number}) {text}" for text, number in remarks.items())
    return plain_table(("", "value", "95 %", "unit", "images", ""), rows, below)


def _load_evaluation(path: Path) -> Evaluation:
    """Load the evaluation of a run, or one in the folder itself."""
    inner = path / "robustness"
    return Evaluation.load(inner if inner.is_dir() else path)
