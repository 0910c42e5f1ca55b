"""The robustness suite: every part measured on one student, stored as it comes, gone on with."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clarep.data.labelled import LabelledImages
from clarep.distill.student import Student
from clarep.distill.students import check_classes
from clarep.engine.artefacts import (
    Progressed,
    as_read,
    first_difference,
    remove_left_temporaries,
    versions,
)
from clarep.engine.cost import peak_memory_mb
from clarep.errors import UserError
from clarep.robustness.corruptions import Baseline, baseline_of, mean_corruption_error
from clarep.robustness.corruptions.official import OfficialSets, load_official_sets
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.subject import data_fingerprint, fingerprint, under_test
from clarep.robustness.suite_bench import PARTS_NAME, Bench, Part
from clarep.robustness.suite_beyond import load_beyond
from clarep.robustness.suite_config import SuiteConfig, check_suite
from clarep.robustness.suite_joint import joined
from clarep.robustness.suite_parts import all_parts


class SuiteRun:
    """An evaluation in a folder; made anew, it goes on where the killed one stopped.

    Every part (an attack's threat, a corruption, the backgrounds ...) is stored in
    `folder`/parts when it is done: a kill loses the one that was being measured. A part of
    another student, other data or other settings is measured again.
    """

    def __init__(
        self,
        student: Student,
        data: LabelledImages,
        config: SuiteConfig | None = None,
        *,
        folder: Path | None = None,
        described: dict[str, Any] | None = None,
        reference: Student | None = None,
        baseline: Evaluation | None = None,
        ood: Mapping[str, LabelledImages] | None = None,
        official_corruptions: Path | None = None,
        beyond: Mapping[str, Path] | None = None,
    ) -> None:
        """Take what is measured.

        Args:
            student: is put in evaluation mode while it is measured.
            data: the test set; foregrounds are known of `Backdrops`, boxed images and the
                Backgrounds Challenge.
            config: what is measured; None takes the defaults.
            folder: where the parts and the evaluation are stored; None stores nothing.
            described: what the caller knows of student and data; it enters the evaluation's
                configuration. JSON values.
            reference: another student, for the transfer check of the attacks.
            baseline: evaluation of the student that corruption errors are divided by (mCE).
            ood: name -> images of no class of the student's.
            official_corruptions: folder in CIFAR-10-C's layout that the corrupted images are
                read from; None makes them.
            beyond: name of BEYOND -> where that natural test set lies.

        Raises:
            UserError: if the student does not fit the data or a set beyond them, for a setting
                out of range, and for what the sets' readers refuse.
        """
        self.config = SuiteConfig() if config is None else config
        check_suite(self.config)
        for one in (student, reference):
            if one is not None:
                check_fit(one, data)
        self.student, self.folder, self.described = student, folder, described or {}
        sha256 = fingerprint(student)
        official = official_corruptions if "corruptions" in self.config.groups else None
        scale = None if baseline is None else _baseline(baseline, self.config, official)
        self._bench = Bench(
            data,
            self.config,
            reference=reference,
            baseline=scale,
            ood=dict(ood or {}),
            official=None if official is None else _official(official, self.config, data),
            beyond=load_beyond(beyond or {}, student, data),
            student_sha256=sha256,
            folder=folder,
        )
        self._sets = {
            "official_corruptions": None if official is None else str(official),
            "beyond": {name: str(path) for name, path in (beyond or {}).items()},
        }
        self._common = {
            "student_sha256": sha256,
            "data": data_fingerprint(data, self._bench.indices),
            "seed": self.config.seed,
            "clarep": versions()["clarep"],
        }
        self.parts = all_parts(self._bench)
        self._measured: dict[str, Evaluation] = {}

    def steps(self) -> Iterator[Progressed]:
        """Measure what is not stored yet, yielding at the start and after each part.

        The unit is about one forward pass of one image.
        """
        total = sum(part.passes for part in self.parts)
        if self.folder is not None:
            for part in self.parts:
                remove_left_temporaries(self._part_folder(part))
            self._measured = {
                part.name: found for part in self.parts if (found := self._stored(part)) is not None
            }
        for found in self._measured.values():
            self._bench.arrays |= found.arrays
        done = sum(part.passes for part in self.parts if part.name in self._measured)
        yield Progressed(done, 0, total)
        with under_test(self.student) as subject:
            self._bench.subject = subject
            for part in self.parts:
                if part.name not in self._measured:
                    self._measure(part)
                    done += part.passes
                    yield Progressed(done, part.passes, total)

    def _part_folder(self, part: Part) -> Path:
        assert self.folder is not None
        return self.folder / PARTS_NAME / part.name

    def _config_of(self, part: Part) -> dict[str, Any]:
        config: dict[str, Any] = as_read(self._common | {"part": part.name} | part.settings)
        return config

    def _stored(self, part: Part) -> Evaluation | None:
        """Return the part if it is whole and of this configuration."""
        try:
            found = Evaluation.load(self._part_folder(part))
        except UserError:
            return None
        kept = {key: value for key, value in found.config.items() if key != "cost"}
        return found if not first_difference(kept, self._config_of(part)) else None

    def _measure(self, part: Part) -> None:
        subject = self._bench.subject
        passes, started = subject.passes, time.perf_counter()
        measurements, arrays = part.measure()
        cost = {
            "seconds": round(time.perf_counter() - started, 3),
            "forward_passes": subject.passes - passes,
            "peak_memory_mb": peak_memory_mb(),
        }
        found = Evaluation(self._config_of(part) | {"cost": cost}, measurements, arrays)
        if self.folder is not None:
            found.save(self._part_folder(part))
        self._measured[part.name] = found
        self._bench.arrays |= arrays

    def evaluation(self) -> Evaluation:
        """Return the evaluation of all parts, measuring what is missing, and store it."""
        for _ in self.steps():
            pass
        found = [self._measured[part.name] for part in self.parts]
        measurements, arrays = joined(
            self._bench,
            [measurement for one in found for measurement in one.measurements],
            {name: values for one in found for name, values in one.arrays.items()},
        )
        costs = {part.name: self._measured[part.name].config["cost"] for part in self.parts}
        evaluation = Evaluation(
            config=self.described
            | self._sets
            | self._common
            | {
                "suite": as_read(asdict(self.config)),
                "versions": versions(),
                "cost": _summed(self.parts, costs),
            },
            measurements=measurements,
            arrays=arrays,
        )
        if self.folder is not None:
            evaluation.save(self.folder)
        return evaluation


def robustness_suite(
    student: Student,
    data: LabelledImages,
    config: SuiteConfig | None = None,
    *,
    folder: Path | None = None,
    described: dict[str, Any] | None = None,
    reference: Student | None = None,
    baseline: Evaluation | None = None,
    ood: Mapping[str, LabelledImages] | None = None,
    official_corruptions: Path | None = None,
    beyond: Mapping[str, Path] | None = None,
    report: Callable[[Progressed], None] | None = None,
) -> Evaluation:
    """Measure a student's robustness; killed, the same call goes on where it stopped.

    `report` is told how far it is, at the start and after each part. The other arguments and
    what is raised are those of `SuiteRun`, whose `steps` is the iterator of the same.
    """
    run = SuiteRun(
        student,
        data,
        config,
        folder=folder,
        described=described,
        reference=reference,
        baseline=baseline,
        ood=ood,
        official_corruptions=official_corruptions,
        beyond=beyond,
    )
    for step in run.steps():
        if report is not None:
            report(step)
    return run.evaluation()


def check_fit(student: Student, data: LabelledImages) -> None:
    """Raise UserError unless the student's classes and image shape are the data's."""
    check_classes(student, data.class_names)
    height, width, channels = data.read(0).shape
    given, wanted = (channels, height, width), student.info.image_shape
    if given != wanted:
        raise UserError(
            f"the student takes images of {wanted[2]}x{wanted[1]} with {wanted[0]} channels and "
            f"{data.name} holds {width}x{height} with {channels}: give --image-size {wanted[1]}, "
            "or the data that it was trained on"
        )


def _official(folder: Path, config: SuiteConfig, data: LabelledImages) -> OfficialSets:
    return load_official_sets(folder, config.corruptions, config.severities, data)


def _baseline(
    evaluation: Evaluation, config: SuiteConfig, official: Path | None
) -> Baseline | None:
    """Return what corruption errors are divided by.

    Raises UserError now for a baseline that would only be refused after all is measured.
    """
    if "corruptions" not in config.groups:
        return None
    there = evaluation.config.get("suite", {}).get("severities")
    if there != list(config.severities):
        raise UserError(
            f"the baseline was measured at the severities {there} and this student would be at "
            f"{list(config.severities)}: give both the same --severities"
        )
    was_official = evaluation.config.get("official_corruptions") is not None
    if was_official != (official is not None):
        ways = ("generated corruptions", "official files")
        raise UserError(
            f"the baseline was measured on {ways[was_official]} and this student would be on "
            f"{ways[not was_official]}: give both the same --official-corruptions, or neither"
        )
    baseline = baseline_of(evaluation, str(evaluation.config.get("run", "the baseline")))
    one_right = torch.ones(1, 1, dtype=torch.bool)
    mean_corruption_error({name: one_right for name in config.corruptions}, baseline)
    return baseline


def _summed(parts: Sequence[Part], costs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Add up the costs of the parts of each group."""
    seconds: dict[str, float] = {}
    passes: dict[str, int] = {}
    for part in parts:
        group, cost = part.name.split("/")[0], costs[part.name]
        seconds[group] = round(seconds.get(group, 0.0) + cost["seconds"], 3)
        passes[group] = passes.get(group, 0) + cost["forward_passes"]
    peak = max(cost["peak_memory_mb"] for cost in costs.values())
    return {"seconds": seconds, "forward_passes": passes, "peak_memory_mb": peak}
