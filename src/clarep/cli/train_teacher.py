"""`clarep train-teacher`: train our U-Net on a labelled data set."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image

from clarep.cli.shared import describe, note, told, warn
from clarep.data.files import NoSplitError
from clarep.data.held_out import (
    HELD_OUT,
    SHARE,
    Indices,
    save_held_out,
    seen_before,
    split_off,
)
from clarep.data.labelled import LabelledImages, in_memory, subset, to_uint8
from clarep.data.load import DataConfig, load_data, load_test
from clarep.engine.artefacts import atomic_path, sha256_file, write_json
from clarep.engine.bounds import Within
from clarep.engine.progress import announce, progress
from clarep.report.model_card import training_card
from clarep.report.quality import sample_classes
from clarep.teachers.options import check_device
from clarep.teachers.teacher_config import TrainConfig, check_train
from clarep.teachers.teacher_run import TeacherRun, is_due
from clarep.teachers.unet_teacher import CARD_NAME, WEIGHTS_NAME, UNetTeacher, save_unet

_COMPOSED = ("garments", "backdrops", "noise-backdrops")
_GRID_COLUMNS = 8
_GRID_ROWS = 20  # of more classes, the first
_GRID_GUIDANCE = 2.0
_GRID_STEPS = 20


@dataclass(frozen=True)
class TrainTeacher:
    """Train a class-conditional U-Net; killed at any moment, the same command goes on.

    The network's image size and number of classes are those of the data.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    """What to train on; the held-out loss is measured on its test split or, of a set that is not
    divided, on a tenth of every class, which is not trained on."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How to train."""
    out: Path = Path("runs/teacher")
    """Folder of the run: checkpoint, history.jsonl, samples, teacher.safetensors, card.json."""
    device: str = "cpu"
    """Where it trains: cpu, cuda, cuda:1 ...; a stopped run may go on elsewhere."""
    sample_every: Annotated[int, Within(1)] = 1_000
    """Steps between sample grids, 8 images a class at guidance 2; drawn with a record."""
    skip_bad: bool = False
    """Go on without unreadable images, and list them."""
    json: bool = False
    """Print the last record as one JSON object; progress goes to stderr."""

    def run(self) -> None:
        """Train to the end, then write the weights and their card."""
        check_train(self.train)
        check_device(self.device)
        record = self._train(self._splits())
        if self.json:
            print(json.dumps(record))
            return
        for reason in record["skipped"]:
            print(f"skipped {reason}")
        print(f"teacher in {record['teacher']}")
        print(f"card in {record['card']}")
        print(f"samples in {record['samples']}")

    def _splits(self) -> "_Splits":
        data, kept, bad = self._readable(told(load_data(self.data)))
        try:
            test = told(load_test(self.data)[1])
        except NoSplitError:
            rest, apart = split_off(data, SHARE, kept)
            note(
                f"{data.name} has no test split: {len(apart)} of its {len(data)} images, a tenth "
                "of every class, are held out for the loss and not trained on"
            )
            trained, held_out = subset(data, rest, "without a tenth"), subset(data, apart, HELD_OUT)
            save = partial(save_held_out, data=data, kept=rest, apart=apart)
            return _Splits(trained, held_out, bad, save)
        test, test_kept, test_bad = self._readable(test)
        trained, held_out = _all_but(data, kept, bad), _all_but(test, test_kept, test_bad)
        marks = set(trained.marks(range(len(trained))))
        if said := seen_before(marks, held_out, np.arange(len(held_out)))[1]:
            warn(f"{said}: its held-out loss is not that on new images, so remove them there")
            trained = replace(trained, notes=(*trained.notes, said))
        save = partial(save_held_out, data=data, kept=kept, apart=kept[:0])
        return _Splits(trained, held_out, bad + test_bad, save)

    def _readable(self, data: LabelledImages) -> tuple[LabelledImages, Indices, list[str]]:
        """Return a set, what can be read of it, and what cannot; what is composed all can."""
        if self.data.data in _COMPOSED:
            return data, np.arange(len(data)), []
        announce(f"reading the {len(data)} images of {data.name} once")
        return in_memory(data, self.skip_bad)

    def _train(self, splits: "_Splits") -> dict[str, Any]:
        options = _data_options(self.data)
        data, held_out = splits.trained, splits.held_out
        run = TeacherRun(data, held_out, self.train, self.out, self.device, data_options=options)
        splits.save(self.out)
        sigma_range = (self.train.sigma_min, self.train.sigma_max)
        teacher = UNetTeacher(run.ema, data.class_names, *sigma_range)
        step = run.step
        with progress("training", "steps", self.train.steps, step) as advance:
            for record in run.records():
                advance(record["step"] - step, _note(record))
                step = record["step"]
                if is_due(step, self.sample_every):
                    _write_grid(teacher, self.out / f"samples/step_{step:06d}.png")
        weights, card = self.out / WEIGHTS_NAME, self.out / CARD_NAME
        grid = self.out / "samples/final.png"
        _write_grid(teacher, grid)
        card.unlink(missing_ok=True)  # of an earlier run: it tells of other weights
        save_unet(run.ema, weights, data.class_names, *sigma_range)
        description = training_card(self.out)
        write_json(card, description)
        return {
            "steps": run.step,
            "held_out": description["held_out_loss"],
            "seconds": description["training"]["seconds"],
            "teacher": str(weights),
            "card": str(card),
            "samples": str(grid),
            "skipped": splits.bad,
        }


@dataclass(frozen=True)
class _Splits:
    """What is trained on, what the loss is measured on, and what could not be read."""

    trained: LabelledImages
    held_out: LabelledImages
    bad: list[str]
    save: Callable[[Path], None]
    """Store in the run which images of the whole are trained on and held out."""


def _all_but(data: LabelledImages, kept: Indices, bad: list[str]) -> LabelledImages:
    return subset(data, kept, f"without {len(bad)} unreadable") if bad else data


def _data_options(config: DataConfig) -> dict[str, Any]:
    """Return what was given of the data; of a classes file its contents too, as their hash."""
    options: dict[str, Any] = describe("", config)["data_options"]
    if config.classes_file is None:
        return options
    return options | {"classes_file_sha256": sha256_file(config.classes_file)}


def _note(record: dict[str, Any]) -> str:
    text = f"loss {record['loss']:.4f}, {record['images_per_s']:.0f} images/s"
    if "held_out" in record:
        text += ", held-out " + " ".join(f"{value:.4f}" for value in record["held_out"].values())
    return text


def _write_grid(teacher: UNetTeacher, path: Path) -> None:
    """Write a PNG of samples: a row a class, always of the same noise."""
    rows = min(teacher.num_classes, _GRID_ROWS)
    labels = torch.arange(rows).repeat_interleave(_GRID_COLUMNS)
    images = to_uint8(sample_classes(teacher, labels, _GRID_GUIDANCE, steps=_GRID_STEPS, seed=0))
    channels, height, width = images.shape[1:]
    grid = images.unflatten(0, (rows, _GRID_COLUMNS)).permute(0, 3, 1, 4, 2)  # (R, H, C, W, 3)
    pixels = grid.reshape(rows * height, _GRID_COLUMNS * width, channels)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.cpu().numpy()).save(temporary, format="PNG")
