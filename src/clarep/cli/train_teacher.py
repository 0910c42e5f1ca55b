"""`clarep train-teacher`: train our U-Net on a labelled data set."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from clarep.cli.option_groups import DataGroup, Json, SkipBad
from clarep.cli.terminal import note, warn
from clarep.data.held_out import TrainingSplits, training_splits
from clarep.data.load import DataConfig, stored_options
from clarep.engine.artefacts import sha256_file, write_json
from clarep.engine.bounds import Within
from clarep.engine.devices import check_device
from clarep.engine.processes import is_first
from clarep.engine.progress import progress
from clarep.engine.tracker import Tracker, check_tracker
from clarep.report.model_card import training_card
from clarep.report.quality import write_sample_grid
from clarep.teachers.teacher_config import TrainConfig, check_train
from clarep.teachers.teacher_run import TeacherRun, is_due
from clarep.teachers.unet_teacher import CARD_NAME, WEIGHTS_NAME, UNetTeacher, save_unet


@dataclass(frozen=True)
class TrainTeacher:
    """Train a class-conditional U-Net; killed at any moment, the same command goes on.

    Under accelerate launch -m clarep.cli.main train-teacher ... or torchrun, on many processes.
    The network's image size and number of classes are those of the data.
    """

    data: DataGroup = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    """How to train."""
    out: Path = Path("runs/teacher")
    """Folder of the run: checkpoint, history.jsonl, samples, teacher.safetensors, card.json."""
    device: str = "cpu"
    """Where it trains: cpu, cuda, cuda:1 ...; a stopped run may go on elsewhere. Of many
    processes each takes a GPU of its own, where there are any."""
    sample_every: Annotated[int, Within(1)] = 1_000
    """Steps between sample grids, 8 images a class at guidance 2; drawn with a record."""
    skip_bad: SkipBad = False
    tracker: Tracker | None = None
    """What draws curves: TensorBoard in the run's tensorboard/ (without this where it is
    installed), Weights & Biases, or none."""
    json: Json = False

    def run(self) -> None:
        """Train to the end, then write the weights and their card."""
        check_train(self.train)
        check_device(self.device)
        check_tracker(self.tracker)
        first = is_first()
        told = (note, warn) if first else (lambda text: None, lambda text: None)
        record = self._train(training_splits(self.data, self.skip_bad, *told))
        if not first:
            return
        if self.json:
            print(json.dumps(record))
            return
        for reason in record["skipped"]:
            print(f"skipped {reason}")
        print(f"teacher in {record['teacher']}")
        print(f"card in {record['card']}")
        print(f"samples in {record['samples']}")

    def _train(self, splits: TrainingSplits) -> dict[str, Any]:
        options = stored_options(self.data)
        if self.data.classes_file is not None:  # its contents count too
            options["classes_file_sha256"] = sha256_file(self.data.classes_file)
        data, held_out = splits.trained, splits.held_out
        run = TeacherRun(data, held_out, self.train, self.out, self.device, data_options=options)
        if not run.is_main:
            for _ in run.records():
                pass
            return {}
        splits.save(self.out)
        sigma_range = (self.train.sigma_min, self.train.sigma_max)
        teacher = UNetTeacher(run.ema, data.class_names, *sigma_range)
        step = run.step
        with progress("training", "steps", self.train.steps, step) as advance:
            for record in run.records(self.tracker):
                advance(record["step"] - step, _note(record))
                step = record["step"]
                if is_due(step, self.sample_every):
                    write_sample_grid(teacher, self.out / f"samples/step_{step:06d}.png")
        weights, card = self.out / WEIGHTS_NAME, self.out / CARD_NAME
        grid = self.out / "samples/final.png"
        write_sample_grid(teacher, grid)
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


def _note(record: dict[str, Any]) -> str:
    text = f"loss {record['loss']:.4f}, {record['images_per_s']:.0f} images/s"
    if "held_out" in record:
        text += ", held-out " + " ".join(f"{value:.4f}" for value in record["held_out"].values())
    return text
