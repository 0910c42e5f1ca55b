"""`clarep card`: measure a trained teacher and complete its model card."""

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from clarep.clarid.config import check_guidance
from clarep.data.load import DataConfig, load_data
from clarep.distill.students import load_student
from clarep.engine.artefacts import write_json
from clarep.engine.seeds import check_seed
from clarep.errors import UserError
from clarep.report.card import garment_quality, round_trip, student_quality, training_card
from clarep.report.quality import SampleSettings
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import load_unet
from clarep.teachers.zoo import CARD_NAME, WEIGHTS_NAME


@dataclass(frozen=True)
class Card:
    """Write a teacher's model card: recipe, training, held-out losses, quality of samples.

    Class-conditional samples are measured by the bundled judge, which knows the ten garments on
    backdrops; of other images, by a student trained on them (--classifier).
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder that clarep train-teacher wrote."""
    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    """What the teacher was trained on: its test images make the round trip, and with --classifier
    samples are compared with its images; the judge compares with backdrops at correlation 0."""
    classifier: Path | None = None
    """Run of a student trained on the same classes, which measures instead of the judge."""
    out: Path | None = None
    """The card, a JSON file; without it, card.json in the folder."""
    name: str | None = None
    """Name on the card; without it, the folder's."""
    guidances: tuple[float, ...] = (1.0, 3.0)
    """Guidance strengths to measure samples at."""
    images_per_class: int = 100
    """Samples of each class; as many test and training images are drawn, so that it is at most
    the number of test images of a class."""
    steps: int = 25
    """Heun steps a sample."""
    seed: int = 0
    """Seed of the noise, and of the choice of real images."""

    def run(self) -> None:
        """Measure, write, print what was measured."""
        if self.images_per_class < 1:
            raise UserError(f"--images-per-class {self.images_per_class} is below 1: give 100")
        if self.steps < 1:
            raise UserError(f"--steps {self.steps} is below 1: give 25")
        if not self.guidances:
            raise UserError("--guidances is empty: give at least one strength, such as 1 3")
        for guidance in self.guidances:
            check_guidance(guidance)
        check_seed(self.seed)
        started = time.perf_counter()
        card = training_card(self.run_folder)
        # Not load_teacher, to which a folder called backdrops is the bundled teacher's name.
        teacher = load_unet(self.run_folder / WEIGHTS_NAME)
        quality = self._quality(teacher)
        card["quality"] = quality | {"seconds": round(time.perf_counter() - started, 1)}
        card["round_trip"] = round_trip(teacher, load_data(replace(self.data, split="test")))
        card["name"] = self.name or card["name"]
        out = self.out or self.run_folder / CARD_NAME
        write_json(out, card)
        floor = quality["frechet_distance_of_train_images"]
        print(
            f"training images: Fréchet distance {floor:.3f} to {quality['reference']} "
            "in the classifier's features"
        )
        for sample in quality["samples"]:
            print(
                f"guidance {sample['guidance']:g}: class accuracy {sample['class_accuracy']:.3f}, "
                f"Fréchet distance {sample['frechet_distance']:.3f}"
            )
        print(f"median round trip: {card['round_trip']['psnr_median']:.1f} dB")
        print(f"held-out loss: {json.dumps(card['held_out_loss'])}")
        print(f"card in {out}")

    def _quality(self, teacher: Teacher) -> dict[str, Any]:
        settings = SampleSettings(self.guidances, self.images_per_class, self.steps, self.seed)
        if self.classifier is None:
            return garment_quality(teacher, settings)
        train, test = (load_data(replace(self.data, split=split)) for split in ("train", "test"))
        return student_quality(teacher, load_student(self.classifier), (train, test), settings)
