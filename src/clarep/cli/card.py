"""`clarep card`: measure a trained teacher and complete its model card."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from clarep.cli.shared import warn
from clarep.cli.tested import test_options, trained_on
from clarep.data.files import NoSplitError
from clarep.data.held_out import SHARE, load_held_out, marks_of_trained, seen_before
from clarep.data.labelled import LabelledImages
from clarep.data.load import load_data, load_test
from clarep.distill.trainer.sources import check_fits
from clarep.engine.artefacts import write_json
from clarep.engine.bounds import Seed, Within
from clarep.errors import UserError
from clarep.report.model_card import garment_quality, round_trip, student_quality, training_card
from clarep.report.quality import SampleSettings
from clarep.students.student_files import load_student, student_path
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import CARD_NAME, WEIGHTS_NAME, load_unet

_MOST_PER_CLASS = 100
_DOUBLES = 0.1  # share of the test images: more are no mishap


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
        started = time.perf_counter()
        card = training_card(self.run_folder)
        # Not load_teacher, to which a folder called backdrops is the bundled teacher's name.
        teacher = load_unet(self.run_folder / WEIGHTS_NAME)
        data = self._sides()
        check_fits("the teacher's", teacher.class_names, teacher.image_shape, data[1])
        quality = self._quality(teacher, data)
        card["quality"] = quality | {"seconds": round(time.perf_counter() - started, 1)}
        card["round_trip"] = round_trip(teacher, data[1])
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

    def _sides(self) -> tuple[LabelledImages, LabelledImages]:
        """Return what the teacher was trained on, and images of the same data that it was not."""
        names = ("data", "image_size", "correlation", "data_seed")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        options = test_options(trained_on(self.run_folder / WEIGHTS_NAME), given)
        trained = load_data(options)
        try:
            sides = trained, load_test(options)[1]
        except NoSplitError:
            sides = load_held_out(self.run_folder, trained)
        for run in (self.run_folder, self.classifier and student_path(self.classifier).parent):
            self._check_unseen(run, sides[1])
        return sides

    def _check_unseen(self, run: Path | None, tested: LabelledImages) -> None:
        """Raise UserError if a run has seen what it is to be measured on; warn of a few doubles."""
        known = (run and marks_of_trained(run)) or ()
        seen, said = seen_before(known, tested, np.arange(len(tested)))
        if seen > _DOUBLES * len(tested):
            raise UserError(
                f"{run}: {said}: give other images with --data; of classifiers, give one "
                f"of clarep distill --train.validation-share {SHARE}"
            )
        if seen:
            warn(f"{run}: {said}: figures on them are too good")

    def _quality(
        self, teacher: Teacher, data: tuple[LabelledImages, LabelledImages]
    ) -> dict[str, Any]:
        fewest = _MOST_PER_CLASS
        if self.classifier is not None:
            fewest = min(fewest, min(map(len, data)) // teacher.num_classes)
        each = max(1, fewest) if self.images_per_class is None else self.images_per_class
        settings = SampleSettings(self.guidances, each, self.steps, self.seed)
        if self.classifier is None:
            return garment_quality(teacher, settings)
        return student_quality(teacher, load_student(self.classifier), data, settings)
