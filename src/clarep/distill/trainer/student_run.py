"""Train a student by any method: resumable, its randomness a function of seed, epoch and step."""

import copy
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep.audit.audit import Audit
from clarep.clarid.canonical_set import CanonicalSet
from clarep.data.fits import check_data
from clarep.data.held_out import Indices, held_out_record, save_held_out, split_off
from clarep.data.labelled import LabelledImages, readable_indices
from clarep.distill.distill_config import DistillConfig, check_distill, settled
from clarep.distill.methods import Batch, Ingredients, Method
from clarep.distill.trainer.run_folder import whole
from clarep.distill.trainer.sources import Sources
from clarep.distill.trainer.start_student import start_student
from clarep.distill.trainer.train_images import TrainImages, check_weights, seed_of
from clarep.distill.trainer.train_state import GIGAOPS, TrainState, learning_rate
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.distill.trainer.validation import ACCURACIES, Validation
from clarep.distill.trainer.views import check_views, draw_views, to_student_range
from clarep.engine.artefacts import sha256_file, versions
from clarep.engine.identity import recorded
from clarep.engine.processes import make_accelerator
from clarep.engine.tracker import Tracker, curves
from clarep.engine.training_folder import TrainingFolder
from clarep.errors import check_type
from clarep.students.student import Student
from clarep.students.student_files import STUDENT_NAME, save_student
from clarep.teachers.teacher import Teacher

_REPORT_EVERY = 10.0  # seconds between reports within an epoch


class StudentRun:
    """A training run in a folder; made anew, it goes on where the killed one stopped.

    Under `out` it keeps `checkpoint.pt`, `config.json` and `history.jsonl` (a record an epoch);
    `finish` adds `student.safetensors`. Under `accelerate launch` or torchrun every process makes
    the same run, and the main one writes.

    Args:
        data: the training images.
        out: the folder.
        method: a name of `METHODS`, or a `Method` of your own.
        options: of the method, an instance of its `Config`; without them those in `config`, of
            your own its defaults.
        student: a name of `STUDENTS`, timm:NAME, or a `Student`, of `from_module` say, of which a
            copy is trained on from the weights that it has.
        layer: of the student, which meets the teacher; None is the penultimate.
        config: how to train.
        canonical: the canonical set or its folder, for methods that take one; others pass over it.
        teacher: the diffusion model; where a method needs none, only checked against the set.
        classifier: a stronger student, for kd and rkd.
        audit: what a diffusion model said of the data, or its folder, for methods that read it.
        activation: relu, silu or gelu in place of the architecture's own.
        data_options: how the data were read, as the canonical set's manifest holds it.
        skip_bad: train without the images that cannot be read, instead of refusing them.
        alone_on: train there in this process alone, whatever was launched beside it.

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
        method: str | type[Method] = "vanilla",
        options: Any = None,
        student: str | Student = "resnet8",
        layer: str | None = None,
        config: DistillConfig | None = None,
        canonical: CanonicalSet | Path | str | None = None,
        teacher: Teacher | None = None,
        classifier: Student | None = None,
        audit: Audit | Path | str | None = None,
        activation: str | None = None,
        data_options: Mapping[str, Any] | None = None,
        skip_bad: bool = False,
        alone_on: torch.device | None = None,
    ) -> None:
        check_data(data)
        check_type("out", out, Path, "a folder")
        check_type("student", student, (str, Student), "a name, or what Student.from_module makes")
        self.config = config = DistillConfig() if config is None else config
        check_distill(config)
        kind, options = settled(method, config, options)
        sources = Sources.of(canonical, teacher, classifier, audit).used_by(kind, config)
        sources.check(kind, data, data_options)
        channels, height, width = data.images([0]).shape[1:]
        check_views(config, (channels, height, width))
        built, begun = start_student(student, data, layer, activation, config.seed)
        readable, self.skipped = readable_indices(data, np.arange(len(data)), skip_bad)
        kept, apart = split_off(data, config.validation_share, readable)
        self._validation = Validation.of(data, apart, config, sources.audit)

        self.out, self._noted = out, data.noted()
        self.described = {
            "method": kind.name,
            "seed": config.seed,
            "student": built.info.name,
            "layer": layer,
            **({} if activation is None else {"activation": activation}),
            "data": data.name,
            "data_options": None if data_options is None else dict(data_options),
            "data_sha256": data.sha256(readable),
            "held_out": held_out_record(data, apart),
            "skipped": self.skipped,
            "train": recorded(config, TrainingConfig),
            "options": recorded(options),
            **begun,
            **sources.described(kind, data, config),
        }
        self._accelerator = make_accelerator(config.mixed_precision, alone_on)
        self._folder = TrainingFolder(
            out, self.described, partial(whole, options=kind.Config), writes=self.is_main
        )
        device = self._accelerator.device
        parts = sources.placed(device, config, apart)
        images = TrainImages.of(data, kept, config.memory_mb, config.workers)
        built.to(memory_format=torch.channels_last)
        given = Ingredients(config, options, images, out, device, *parts)
        with self._accelerator.main_process_first():
            made = kind(built, given)
        check_weights(made.weights, len(made.images))
        self.images, self._canonical = made.images, made.canonical
        self._state = TrainState(made.to(device), self._accelerator)
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
        self, report: Callable[..., None] = lambda *told: None, tracker: Tracker | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Train to the end, yielding what is logged, a record an epoch.

        report: is told how many images more were trained on, and after an epoch how it went.
        tracker: of curves; None is TensorBoard where it is installed, in `tensorboard/`.
        Raises UserError if the loss or its gradient is not finite; the last checkpoint is whole.
        """
        is_drawn = self.is_main and self.epoch < self.config.epochs
        tracker = tracker if is_drawn else "none"
        with curves(self.out, self.epoch, tracker, self.described) as draw:
            while self.epoch < self.config.epochs:
                record = self._epoch(report)
                self._state.history.append(record)
                if self.is_main:
                    self._folder.append(record)
                    draw(record)
                    self._folder.save(self._state.as_dict())
                self._accelerator.wait_for_everyone()
                yield record

    def finish(self) -> dict[str, Any]:
        """Write the picked weights and the whole configuration; returns what the latter holds."""
        state, best = self._state, self.config.pick != "last"
        epoch = state.best_epoch if best else self.epoch
        record = next(entry for entry in state.history if entry["epoch"] == epoch)
        done = self.described | {
            "picked_epoch": epoch,
            **{name: record[name] for name in ACCURACIES if name in record},
            **state.spent(),
            "versions": versions(),
            **self._noted,
        }
        if self.is_main:
            student = copy.deepcopy(self.student)
            student.load_state_dict(state.best if best else self.student.state_dict())
            path = self.out / STUDENT_NAME
            save_student(student, path, {"method": str(self.described["method"])})
            self._folder.write_config(done | {"student_sha256": sha256_file(path)})
        self._accelerator.wait_for_everyone()
        return done

    def _epoch(self, report: Callable[..., None]) -> dict[str, Any]:
        """Train one epoch and validate; the record of it."""
        config, state = self.config, self._state
        started = reported = time.perf_counter()
        cut = state.method.batches_of(state.epoch)
        decoded = iter(self._decoded(cut))
        sums: dict[str, float] = {}
        loading, unreported, device = 0.0, 0, self._accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for step, positions in enumerate(cut):
                before = time.perf_counter()
                batch = self._batch(next(decoded), positions, step, len(cut))
                loading += time.perf_counter() - before
                for name, value in state.step(self._wrapped, batch, count=step == 0).items():
                    sums[name] = sums.get(name, 0.0) + value
                unreported += len(positions)
                if time.perf_counter() - reported > _REPORT_EVERY:
                    report(unreported)
                    reported, unreported = time.perf_counter(), 0
        seconds = time.perf_counter() - started
        state.epoch += 1
        accuracies = self._validation.accuracies(state.student, device)
        deciding = self._validation.deciding(accuracies)
        if deciding is not None:
            state.note_accuracy(deciding)
        accuracy = accuracies["validation_accuracy"]
        means = {name: round(value / len(cut), 5) for name, value in sums.items()}
        note = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        report(unreported, f"epoch {state.epoch}, loss {means['loss']:.4f}{note}")
        return {
            "epoch": state.epoch,
            "train": means,
            **accuracies,
            "learning_rate": learning_rate(config, state.epoch - 0.5 / len(cut)),
            "images_per_s": round(len(self.images) / seconds, 1),
            "loader_share": round(loading / seconds, 4),
            GIGAOPS: round(state.operations * len(self.images) / len(cut[0]) / 1e9, 6),
            "seconds": round(time.perf_counter() - started, 3),
        }

    def _decoded(self, cut: list[Indices]) -> Iterator[Tensor]:
        """Yield the images of each batch; of several processes each decodes a share of them."""
        shares, device = self._state.method.shares, self._accelerator.device
        if shares is None or self.images.stored is not None:
            yield from self.images.batches(cut)
            return
        parts = self.images.batches([batch[shares.of(len(batch))] for batch in cut])
        for batch, part in zip(cut, parts, strict=True):
            yield shares.whole(part.to(device), len(batch)).cpu()

    def _batch(self, images: Tensor, positions: Indices, step: int, steps: int) -> Batch:
        """Return step `step` of `steps` of the epoch, by seed and step alone.

        images, positions: uint8 (B, C, H, W), and which of the training images they are.
        """
        config, epoch, device = self.config, self.epoch, self._accelerator.device
        key = (config.seed, epoch, step, 0)  # the last was a process's number
        seed = seed_of("views", *key)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # what dropout inside a student draws from
        canonical = views = None
        if self._canonical is not None:
            count = max(2, config.canonical_batch)
            index = self.images.index[positions]
            canonical = self._canonical.draw(index, count, seed_of("canonical", *key))
            views = to_student_range(draw_views(canonical.images, config, generator))
        images = self._state.method.prepare(images, positions, generator)
        return Batch(
            to_student_range(draw_views(images.to(device), config, generator)),
            self.images.labels[torch.from_numpy(positions)].to(device),
            torch.from_numpy(positions).to(device),
            epoch + (step + 0.5) / steps,
            generator,
            canonical,
            views,
        )
