"""`clarep card`: measure a trained teacher and complete its model card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from clarep.cli.terminal import warn
from clarep.engine.artefacts import write_json
from clarep.engine.bounds import Seed, Within
from clarep.errors import UserError
from clarep.report.model_card import measured_card
from clarep.report.quality import SampleSettings
from clarep.teachers.unet_teacher import CARD_NAME


@dataclass(frozen=True)
class Card:
    """Write a teacher's model card: recipe, training, held-out losses, quality of samples.

    Class-conditional samples are measured by the bundled judge, which knows the ten garments on
    backdrops; of other images, by a student trained on them (--classifier).
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder that clarep train-teacher wrote."""
    data: str | None = None
    """Images of the teacher's classes: a name or a path; without it, what it was trained on. Those
    that it was not trained on make the round trip, and with --classifier samples are compared with
    them; the judge compares with backdrops at correlation 0."""
    image_size: int | None = None
    """Side that images are brought to; without it, as the teacher was trained."""
    correlation: float | None = None
    """For backdrops: share of images on their class's own scene; without it, the teacher's."""
    data_seed: int | None = None
    """For backdrops: seed of placement, scene, crop and tint; without it, the teacher's."""
    classifier: Path | None = None
    """Run of a student trained on the same classes, which measures instead of the judge."""
    out: Path | None = None
    """The card, a JSON file; without it, card.json in the folder."""
    name: str | None = None
    """Name on the card; without it, the folder's."""
    guidances: tuple[Annotated[float, Within(0)], ...] = (1.0, 3.0)
    """Guidance strengths to measure samples at."""
    images_per_class: Annotated[int, Within(1)] | None = None
    """Samples of each class; as many test and training images are drawn, so that there must be
    as many. Without it 100, or as many as there are."""
    steps: Annotated[int, Within(1)] = 25
    """Heun steps a sample."""
    seed: Seed = 0
    """Seed of the noise, and of the choice of real images."""

    def run(self) -> None:
        """Measure, write, print what was measured."""
        if not self.guidances:
            raise UserError("--guidances is empty: give at least one strength, such as 1 3")
        names = ("data", "image_size", "correlation", "data_seed")
        card = measured_card(
            self.run_folder,
            SampleSettings(self.guidances, steps=self.steps, seed=self.seed),
            {name: value for name in names if (value := getattr(self, name)) is not None},
            classifier=self.classifier,
            images_per_class=self.images_per_class,
            warn=warn,
        )
        card["name"] = self.name or card["name"]
        out, quality = self.out or self.run_folder / CARD_NAME, card["quality"]
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
