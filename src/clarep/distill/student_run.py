"""Train a student by any method: resumable, its randomness a function of seed, epoch and step."""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.held_out import held_out_record, save_held_out, split_off
from clarep.data.labelled import LabelledImages, readable_indices
from clarep.distill.augment import check_views
from clarep.distill.distill_config import DistillConfig, check_distill
from clarep.distill.methods import Ingredients
from clarep.distill.run_checks import check_sources, method_named
from clarep.distill.run_files import Curves
from clarep.distill.run_parts import (
    Sources,
    accuracy,
    make_accelerator,
)
from clarep.distill.train_data import TrainImages, epoch_batches
from clarep.distill.train_state import TrainState, learning_rate
from clarep.distill.train_step import BatchDrawer, take_step
from clarep.engine.artefacts import sha256_file, versions
from clarep.engine.training_folder import TrainingFolder
from clarep.students.student import Student, StudentInfo
from clarep.students.student_files import build_student, save_student
from clarep.teachers.teacher import Teacher

STUDENT_FILE = "student.safetensors"
_REPORT_EVERY = 10.0  # seconds between reports within an epoch


class StudentRun:
    """A training run in a folder; made anew, it goes on where the killed one stopped.

    Under `out` it keeps `checkpoint.pt`, `config.json`, `history.jsonl` (a record an epoch) and
    `tensorboard/`; `finish` adds `student.safetensors`. Under `accelerate launch` or torchrun
    every process makes the same run, and the main one writes.

    Args:
        data: the training images.
        out: the folder.
        method: a name of `METHODS`.
        student: a name of `STUDENTS`, or timm:NAME.
        layer: of the student, which meets the teacher; None is the penultimate.
        config: how to train.
        canonical: the canonical set, for methods that take one; others pass over it.
        teacher: the diffusion model; where a method needs none, only checked against the set.
        classifier: a stronger student, for kd and rkd.
        data_options: how the data were read, as the canonical set's manifest holds it.
        skip_bad: train without the images that cannot be read, instead of refusing them.

    Raises:
        UserError: before anything is written, for a setting that cannot be trained with, for
            parts that do not belong together or are missing, and if `out` holds a run of another
            configuration, a checkpoint that cannot be read, or is written in by another process.
    """

    def __init__(
        self,
        data: LabelledImages,
        out: Path,
        *,
        method: str = "vanilla",
        student: str = "resnet8",
        layer: str | None = None,
        config: DistillConfig | None = None,
        canonical: CanonicalSet | None = None,
        teacher: Teacher | None = None,
        classifier: Student | None = None,
        data_options: Mapping[str, Any] | None = None,
        skip_bad: bool = False,
    ) -> None:
        spec = method_named(method)
        self.config = config = spec.configured(config or DistillConfig())
        check_distill(config)
        sources = Sources(canonical, teacher, classifier).used_by(spec)
        check_sources(method, data, sources, data_options)
        channels, height, width = data.images([0]).shape[1:]
        info = StudentInfo(student, tuple(data.class_names), (channels, height, width))
        check_views(config, info.image_shape)
        built = build_student(info, layer, config.seed)
        readable, self.skipped = readable_indices(data, np.arange(len(data)), skip_bad)
        kept, apart = split_off(data, config.validation_share, readable)

        self.out, self._layer, self._noted = out, layer, data.noted()
        self.described = {
            "method": method,
            "seed": config.seed,
            "student": student,
            "layer": layer,
            "data": data.name,
            "data_options": None if data_options is None else dict(data_options),
            "data_sha256": data.sha256(readable),
            "held_out": held_out_record(data, apart),
            "skipped": self.skipped,
            "train": asdict(config),
        } | sources.described(spec)
        self._accelerator = make_accelerator(config)
        self._folder = TrainingFolder(out, self.described, writes=self.is_main)
        device = self._accelerator.device
        images = TrainImages.of(data, kept, config.memory_mb, config.workers)
        given = Ingredients(config, images, out, device, **sources.on(device, apart, config))
        with self._accelerator.main_process_first():
            ingredients = spec.build.prepare(given)
        self.images, self._canonical = ingredients.images, ingredients.canonical
        self._validation = TrainImages.of(data, apart, config.memory_mb, config.workers)
        built.to(memory_format=torch.channels_last)
        self._state = TrainState(spec.build(built, ingredients).to(device), config)
        if self._folder.saved is not None:
            self._state.load(self._folder.saved)
        self._wrapped = self._accelerator.prepare_model(self._state.method)
        if self.is_main:
            self._folder.start({"versions": versions(), "seconds": None}, self._state.history)
            save_held_out(out, data, kept, apart)

    @property
    def epoch(self) -> int:
        """Epochs behind it."""
        return self._state.epoch

    @property
    def student(self) -> Student:
        """The student as trained so far; its moving average if one is kept."""
        return self._state.student

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._accelerator.is_main_process)

    def records(
        self, report: Callable[[int], None] | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Train to the end, yielding what is logged, a record an epoch.

        report: is told how many images more were trained on, in epochs of over 10 seconds.
        Raises UserError if the loss or its gradient is not finite; the last checkpoint is whole.
        """
        if self.epoch == self.config.epochs:
            return
        curves = Curves(self.out, self.epoch) if self.is_main else None
        try:
            while self.epoch < self.config.epochs:
                record = self._epoch(report)
                self._state.history.append(record)
                if curves is not None:
                    self._folder.append(record)
                    curves.add(record)
                    self._folder.save(self._state.as_dict())
                self._accelerator.wait_for_everyone()
                yield record
        finally:
            if curves is not None:
                curves.close()

    def finish(self) -> dict[str, Any]:
        """Write the picked weights and the whole configuration; returns what the latter holds."""
        history = self._state.history
        best = self.config.pick == "best"
        epoch = self._state.best_epoch if best else self.epoch
        record = next(entry for entry in history if entry["epoch"] == epoch)
        done = (
            self.described
            | {
                "picked_epoch": epoch,
                "validation_accuracy": record["validation_accuracy"],
                "seconds": round(sum(entry["seconds"] for entry in history), 2),
                "versions": versions(),
            }
            | self._noted
        )
        if self.is_main:
            student = build_student(self.student.info, self._layer, self.config.seed)
            student.load_state_dict(self._state.best if best else self.student.state_dict())
            path = self.out / STUDENT_FILE
            save_student(student, path, {"method": str(self.described["method"])})
            self._folder.write_config(done | {"student_sha256": sha256_file(path)})
        self._accelerator.wait_for_everyone()
        return done

    def _epoch(self, report: Callable[[int], None] | None) -> dict[str, Any]:
        """Train one epoch and validate; the record of it."""
        config, state = self.config, self._state
        started = reported = time.perf_counter()
        rank, processes = self._accelerator.process_index, self._accelerator.num_processes
        whole = epoch_batches(len(self.images), config.batch_size, config.seed, state.epoch)
        mine = [np.array_split(batch, processes)[rank] for batch in whole]
        decoded = self.images.batches(mine)
        drawn = BatchDrawer(config, self.images, self._canonical, self._accelerator)
        sums: dict[str, float] = {}
        loading, unreported = 0.0, 0
        with torch.random.fork_rng([drawn.device] if drawn.device.type == "cuda" else []):
            for step, positions in enumerate(mine):
                before = time.perf_counter()
                batch = drawn.batch(next(decoded), positions, state.epoch, step, len(mine))
                loading += time.perf_counter() - before
                losses = take_step(state, self._wrapped, batch, self._accelerator)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value
                unreported += len(whole[step])
                if report is not None and time.perf_counter() - reported > _REPORT_EVERY:
                    report(unreported)
                    reported, unreported = time.perf_counter(), 0
        seconds = time.perf_counter() - started
        self._share_buffers()
        state.epoch += 1
        accuracy = self._accuracy()
        if accuracy is not None and config.pick == "best":
            state.note_accuracy(accuracy)
        return {
            "epoch": state.epoch,
            "train": {name: round(value / len(mine), 5) for name, value in sums.items()},
            "validation_accuracy": accuracy,
            "learning_rate": learning_rate(config, state.epoch - 0.5 / len(mine)),
            "images_per_s": round(len(self.images) / seconds, 1),
            "loader_share": round(loading / seconds, 4),
            "seconds": round(time.perf_counter() - started, 3),
        }

    def _accuracy(self) -> float | None:
        if not len(self._validation):
            return None
        return accuracy(self._state.student, self._validation, self._accelerator.device)

    def _share_buffers(self) -> None:
        """Average the batch statistics over the processes; weights are the same anyhow."""
        if self._accelerator.num_processes > 1:
            for student in {self._state.method.student, self._state.student}:
                for buffer in student.buffers():
                    if buffer.is_floating_point():
                        buffer.copy_(self._accelerator.reduce(buffer, "mean"))
