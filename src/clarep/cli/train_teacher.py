"""`clarep train-teacher`: train our U-Net on a labelled data set."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clarep.data.labelled import LabelledImages, to_uint8
from clarep.data.load import DataConfig, load_data
from clarep.engine.artefacts import atomic_path, write_json
from clarep.errors import UserError
from clarep.teachers.card import training_card
from clarep.teachers.quality import sample_classes
from clarep.teachers.train import RECORD_EVERY, TeacherRun, TrainConfig
from clarep.teachers.unet_teacher import UNetTeacher, save_unet
from clarep.teachers.zoo import CARD_NAME, WEIGHTS_NAME

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
    """What to train on; the held-out loss is measured on its test split."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How to train."""
    out: Path = Path("runs/teacher")
    """Folder of the run: checkpoint, history.jsonl, samples, teacher.safetensors, card.json."""
    sample_every: int = 1_000
    """Steps between sample grids, 8 images a class at guidance 2."""
    json: bool = False
    """Print the last record as one JSON object; progress goes to stderr."""

    def run(self) -> None:
        """Train to the end, then write the weights and their card."""
        if self.sample_every < 1:
            raise UserError(f"--sample-every {self.sample_every} is below 1: give a step count")
        data = load_data(self.data)
        held_out = _held_out(self.data)
        try:
            record = self._train(data, held_out)
        except OSError as error:
            raise UserError(
                f"cannot write to {self.out} ({error.strerror or error}): "
                "mend that, and the same command goes on where it stopped"
            ) from error
        if self.json:
            print(json.dumps(record))
            return
        print(f"teacher in {record['teacher']}")
        print(f"card in {record['card']}")
        print(f"samples in {record['samples']}")

    def _train(self, data: LabelledImages, held_out: LabelledImages) -> dict[str, Any]:
        size = int(data.images([0]).shape[-1])
        unet = replace(self.train.unet, image_size=size, num_classes=len(data.class_names))
        config = replace(self.train, unet=unet)
        run = TeacherRun(data, held_out, config, self.out)
        sigma_range = (config.sigma_min, config.sigma_max)
        teacher = UNetTeacher(run.ema, data.class_names, *sigma_range)
        with _progress(config, run.step) as show:
            for record in run.records():
                show(record)
                if _is_due(record["step"], self.sample_every):
                    _write_grid(teacher, self.out / f"samples/step_{record['step']:06d}.png")
        weights, card = self.out / WEIGHTS_NAME, self.out / CARD_NAME
        grid = self.out / "samples/final.png"
        _write_grid(teacher, grid)
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
        }


def _held_out(config: DataConfig) -> LabelledImages:
    try:
        return load_data(replace(config, split="test"))
    except UserError as error:
        raise UserError(f"the held-out loss needs a test split, but {error}") from error


def _is_due(step: int, every: int) -> bool:
    """Say whether a multiple of `every` lies in the steps that the record at `step` covers."""
    return step // every > (step - RECORD_EVERY) // every


@contextmanager
def _progress(config: TrainConfig, step: int) -> Iterator[Any]:
    """Yield what shows a record: a bar on a terminal, a line a record elsewhere; on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda record: console.print(_line(record, config), highlight=False, soft_wrap=True)
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps  loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:.0f} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=config.steps, completed=step, loss=0.0, rate=0.0)
        yield lambda record: progress.update(
            task, completed=record["step"], loss=record["loss"], rate=record["images_per_s"]
        )


def _line(record: dict[str, Any], config: TrainConfig) -> str:
    left = (config.steps - record["step"]) * config.batch_size / record["images_per_s"]
    text = (
        f"step {record['step']}/{config.steps}  loss {record['loss']:.4f}  "
        f"{record['images_per_s']:.0f} images/s  {left / 60:.1f} min left"
    )
    if "held_out" in record:
        text += "  held-out " + " ".join(f"{value:.4f}" for value in record["held_out"].values())
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
        Image.fromarray(pixels.numpy()).save(temporary, format="PNG")
