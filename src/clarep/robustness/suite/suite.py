"""The robustness suite: every part measured on one student, stored as it comes, gone on with."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import Progressed, versions
from clarep.engine.cost import peak_memory_mb
from clarep.engine.fan_out import LOCAL, EngineConfig, check_engine, fan_out
from clarep.engine.identity import differences, plain
from clarep.engine.lock import hold
from clarep.engine.places import place_of
from clarep.engine.tensors import weights_hash
from clarep.errors import UserError, check_arguments, check_type
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import measure_of
from clarep.robustness.suite.aggregates import cost_of, is_joined, joined
from clarep.robustness.suite.attack_parts import CLEAN_PART
from clarep.robustness.suite.groups import beyond_parts, parts_of_groups, sets_of
from clarep.robustness.suite.suite_checks import (
    check_fit,
    check_folder,
    check_ood,
    check_reference,
    found_corrupted,
    found_late,
    left_out_of,
    load_beyond,
    told_apart,
)
from clarep.robustness.suite.suite_config import SuiteConfig, check_suite
from clarep.robustness.suite.suite_inputs import BACKWARD, PARTS_NAME, Part, SuiteInputs
from clarep.robustness.tested_student import NotFinite, fingerprint, under_test
from clarep.students.student import Student


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
        folder: Path | str | None = None,
        described: dict[str, Any] | None = None,
        reference: Student | None = None,
        baseline: Evaluation | None = None,
        ood: Mapping[str, LabelledImages] | None = None,
        official_corruptions: Path | None = None,
        beyond: Mapping[str, Path] | None = None,
        untrained: bool = False,
        engine: EngineConfig = LOCAL,
    ) -> None:
        """Take what is measured, and ask the student about a few of the images.

        Args:
            student: is put in evaluation mode while it is measured, on the device that it is on.
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
            untrained: the student stands for one that will be trained: its answers say nothing.
            engine: where the parts are measured; workers need a folder.

        Raises:
            UserError: for what `probe` refuses, if the student or the reference does not fit the
                data or a set beyond them, for a setting out of range, for groups that were named
                and cannot be measured, for a folder that cannot be written in or that another
                process writes in, and for what the sets' readers refuse.
        """
        self.config, self._engine = SuiteConfig() if config is None else config, engine
        check_suite(self.config)
        check_ood(ood or {}, self.config)
        check_fit(student, data)
        device = next((str(one.device) for one in student.parameters()), "cpu")
        check_engine(engine, device, folder is not None)
        folder = None if folder is None else Path(folder)
        if folder is not None:
            check_folder(folder)
        check_reference(reference, data)
        check_type("baseline", baseline, (Evaluation, type(None)), "what Evaluation.load gives")
        self.student, self.folder, self.described = student, folder, described or {}
        files, official, scale = found_corrupted(official_corruptions, baseline, self.config, data)
        self._sets: dict[str, Any] = {
            "student_sha256": weights_hash(student).get("sha256"),
            "data": {"name": data.name, "images": len(data)},
            "official_corruptions": official,
        }
        self._inputs = SuiteInputs(
            data,
            self.config,
            fingerprint=fingerprint(student),
            reference=reference,
            baseline=scale,
            ood=ood or {},
            official=files,
            beyond=load_beyond(beyond or {}, student, data),
        )
        self._common = {
            "student_fingerprint": self._inputs.fingerprint,
            "seed": self.config.seed,
            "clarep": versions()["clarep"],
        }
        if not untrained:
            self._inputs.ask(student)
        answers, grouped = self._inputs.answers, parts_of_groups(self._inputs)
        lacking, self.left_out = left_out_of(grouped, answers, self.config, data)
        """Which groups of the default list cannot be measured, and why; or empty."""
        self.warnings = [] if answers is None else answers.warnings
        """Why figures cannot be trusted."""
        self.notes = [*self._inputs.data_notes, *student.notes, *filter(None, [self.left_out])]
        """What is otherwise than one may expect."""
        self.parts = [part for n, parts in grouped.items() if n not in lacking for part in parts]
        self.parts += beyond_parts(self._inputs)
        self._measured: dict[str, Evaluation] = {}
        self._lock = None if folder is None else hold(folder)

    def steps(self) -> Iterator[Progressed]:
        """Measure what is not stored yet, yielding at the start and after each part.

        The unit is about one forward pass of one image. `total` is what would be taken if the
        images that are right as they are withstood all attacks; what a broken one spares the
        parts after it counts as skipped. To know which are right, that part comes first of all.
        """
        for part in self.parts:
            self._take(part)
        if CLEAN_PART in {part.name for part in self.parts} - self._measured.keys():
            self._work(CLEAN_PART)
        total, left = sum(map(self._expected, self.parts)), self._passes_left()
        yield Progressed(total - left, 0, total)
        missing = [part for part in self.parts if part.name not in self._measured]
        number = {part.name: i for i, part in enumerate(missing)}
        after = [[number[name] for name in part.after if name in number] for part in missing]
        written = None if self.folder is None else place_of(self.folder)
        for name, worked in fan_out(
            list(number), lambda: self._work, self._engine, after=after, written=written
        ):
            before = left
            self._take(missing[number[name]], is_measured=True)
            left = self._passes_left()
            new = before - left
            yield Progressed(total - left, new, total, skipped=new - worked)

    def _work(self, name: str) -> tuple[str, int]:
        """Measure a part, in whatever process; return its name and `_measure`'s passes."""
        parts = {part.name: part for part in self.parts}
        for earlier in parts[name].after:  # which another process may have measured
            self._take(parts[earlier], is_measured=True)
        with under_test(self.student) as self._inputs.subject:
            return name, self._measure(parts[name])

    def _take(self, part: Part, *, is_measured: bool = False) -> None:
        """Take what is stored of a part, unless it is known; `is_measured`: it has to be there."""
        if self.folder is not None and part.name not in self._measured:
            find = partial(self._stored, part, self.folder)
            found = found_late(find, self.folder, part.name) if is_measured else find()
            if found is not None:
                self._measured[part.name] = found
                self._inputs.arrays |= found.arrays

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to a worker: the folder's lock stays with this process."""
        return vars(self) | {"_lock": None}

    def _passes_left(self) -> int:
        """Return what the parts that are not measured will take, with what is known by now."""
        return sum(self._expected(part) for part in self.parts if part.name not in self._measured)

    def _expected(self, part: Part) -> int:
        return part.cost if isinstance(part.cost, int) else part.cost(self._inputs.arrays)

    def _config_of(self, part: Part) -> dict[str, Any]:
        read = {"data_sha256": self._inputs.sha256_read(part.name.split("/")[0])}
        config: dict[str, Any] = plain(self._common | read | {"part": part.name} | part.settings)
        return config

    def _stored(self, part: Part, folder: Path) -> Evaluation | None:
        """Return the part if it is whole, of this configuration, and from after its measures."""
        try:
            found = Evaluation.load(folder / PARTS_NAME / part.name)
        except UserError:
            return None
        kept = {key: value for key, value in found.config.items() if key not in ("cost", "doubts")}
        lacks = any(key not in found for key in part.keys if not is_joined(key))
        return None if lacks or differences(kept, self._config_of(part)) else found

    def _measure(self, part: Part) -> int:
        """Measure and store a part; return the passes that it took, in the unit of `steps`."""
        subject, expected = self._inputs.subject, self._expected(part)
        passes, started = subject.passes, time.perf_counter()
        try:
            measurements, arrays, doubts = part.measure()
        except NotFinite as error:
            raise self._inputs.unmeasured(part.name, error) from error
        forward = subject.passes - passes
        seconds = round(time.perf_counter() - started, 3)
        cost: dict[str, Any] = {"seconds": seconds, "forward_passes": forward}
        cost |= {"peak_memory_mb": peak_memory_mb(), "device": str(subject.device)}
        known = self._config_of(part) | {"cost": cost, "doubts": dict(doubts)}
        found = Evaluation(known, measurements, arrays)
        if self.folder is not None:
            found.save(self.folder / PARTS_NAME / part.name)
        self._measured[part.name] = found
        self._inputs.arrays |= arrays
        # An attack may have broken images half-way; nearly all of its passes go back, too.
        return expected if isinstance(part.cost, int) else min(expected, BACKWARD * forward)

    def replaced(self) -> str:
        """Name the settings in which a finished evaluation in the folder differs, or its images.

        As `differences` words it; empty if there is none, or none differs.
        """
        if self.folder is not None:
            with suppress(UserError):
                return told_apart(Evaluation.load(self.folder).config, self._settings())
        return ""

    def _settings(self) -> dict[str, Any]:
        """Return what the evaluation's figures follow from, as JSON values."""
        groups = dict.fromkeys(part.name.split("/")[0] for part in self.parts)
        suite = sets_of(self.parts) | {"suite": asdict(self.config)} | self._common
        suite["data_sha256"] = {group: self._inputs.sha256_read(group) for group in groups}
        settings: dict[str, Any] = plain(self.described | self._sets | suite)
        return settings

    def evaluation(self) -> Evaluation:
        """Return the evaluation of all parts, measuring what is missing, and store it."""
        for _ in self.steps():
            pass
        found = [self._measured[part.name] for part in self.parts]
        measurements, arrays, _ = joined(self._inputs, found)
        for one in measurements:
            measure_of(one.key)  # raises where the catalogue lacks it
        answers = self._inputs.answers
        found_out = {
            "answers": None if answers is None else asdict(answers),
            "classes": list(self.student.info.class_names),
            "said": self.warnings + self.notes,
            "versions": versions(),
            "cost": cost_of(found),
        }
        evaluation = Evaluation(self._settings() | found_out, measurements, arrays)
        if self.folder is not None:
            evaluation.save(self.folder)
        return evaluation


def robustness_suite(
    student: Student,
    data: LabelledImages,
    config: SuiteConfig | None = None,
    *,
    report: Callable[[Progressed], None] | None = None,
    **parts: Any,
) -> Evaluation:
    """Measure a student's robustness; killed, the same call goes on where it stopped.

    Args:
        student: of `SuiteRun`, whose `steps` is the iterator of the same.
        data: likewise.
        config: likewise.
        report: is told how far it is, at the start and after each part.
        parts: folder, described, reference, baseline, ood, official_corruptions, beyond of
            `SuiteRun`.

    Raises UserError as `SuiteRun` does, and for an argument that there is not.
    """
    check_arguments(parts, SuiteRun, SuiteConfig)
    run = SuiteRun(student, data, config, **parts)
    for step in run.steps():
        if report is not None:
            report(step)
    return run.evaluation()
