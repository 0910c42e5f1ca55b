"""The model card of a teacher: how it was trained, how good it is, in JSON.

Layout: name, weights, images, recipe, training, held_out_loss, quality, versions. A bundled
teacher NAME has its card in NAME.json and its whole log in NAME_history.jsonl.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clarep.clarid.clarid import Clarid
from clarep.data.backdrops import load_backdrops
from clarep.data.files import NoSplitError
from clarep.data.fits import check_alike, kind_of
from clarep.data.garments import CLASS_NAMES
from clarep.data.held_out import SHARE, load_held_out, marks_of_trained, seen_before
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.data.load import load_data, load_test
from clarep.engine.artefacts import read_json, sha256_file, versions
from clarep.engine.tensors import weights_hash
from clarep.engine.training_folder import HISTORY_NAME, read_records
from clarep.errors import UserError, refusing
from clarep.report.quality import SampleSettings, classify_all, frechet_distance, teacher_quality
from clarep.robustness.student_and_data import test_options, trained_on
from clarep.students.student import Student
from clarep.students.student_files import judge_card, load_judge, load_student, student_path
from clarep.teachers.teacher import Teacher
from clarep.teachers.unet_teacher import WEIGHTS_NAME, load_unet

_CURVE_POINTS = 20
_MOST_PER_CLASS = 100
_DOUBLES = 0.1  # share of the test images: more are no mishap


def training_card(folder: Path) -> dict[str, Any]:
    """Return the card of a finished run, quality not yet measured.

    Raises UserError if the folder lacks the run's config, log or weights.
    """
    mend = "give the folder that clarep train-teacher wrote"
    faults = (OSError, ValueError, LookupError, TypeError)
    with refusing(f"{folder} holds no finished training run", mend, faults):
        recipe = read_json(folder / "config.json")
        steps, batch_size = (int(recipe["train"][name]) for name in ("steps", "batch_size"))
    history = read_records(folder, "step")
    if not history or history[-1]["step"] != steps or "held_out" not in history[-1]:
        raise UserError(
            f"{folder} holds no {HISTORY_NAME} of all {steps} steps: run clarep train-teacher "
            "again, which writes it anew from its checkpoint, or give the folder that it wrote"
        )
    teacher = load_unet(folder / WEIGHTS_NAME)
    return {
        "name": folder.name,
        "what": "class-conditional U-Net with EDM preconditioning",
        "weights": {
            "sha256": sha256_file(folder / WEIGHTS_NAME),
            "bytes": (folder / WEIGHTS_NAME).stat().st_size,
            "parameters": sum(p.numel() for p in teacher.net.parameters()),
            "stored_as": "fp16, moving average",
        },
        "images": {"shape": list(teacher.image_shape), "class_names": list(teacher.class_names)},
        "sigma_range": [teacher.sigma_min, teacher.sigma_max],
        "recipe": recipe,
        "training": _summary(history, batch_size),
        "held_out_loss": history[-1]["held_out"],
        "quality": None,
        "versions": versions(),
    }


def measured_card(
    folder: Path,
    settings: SampleSettings,
    given: dict[str, Any],
    *,
    classifier: Path | None,
    images_per_class: int | None,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Return the card of a finished run with its quality and round trip.

    Args:
        folder: that clarep train-teacher wrote.
        settings: which samples, but for their number.
        given: fields of `DataConfig` that differ from what the teacher was trained on.
        classifier: run of a student, which measures instead of the bundled judge.
        images_per_class: number of samples; None takes 100, or as many as there are images.
        warn: is told of a few test images that a run has seen; more raise UserError.
    """
    started = time.perf_counter()
    card = training_card(folder)
    # Not load_teacher, to which a folder called backdrops is the bundled teacher's name.
    teacher = load_unet(folder / WEIGHTS_NAME)
    data = train, test = _sides(folder, given)
    for run in (folder, classifier and student_path(classifier).parent):
        if run is not None:
            _check_unseen(run, test, warn)
    check_alike("the teacher's", kind_of(teacher), test.name, kind_of(test))
    if images_per_class is None:
        most = _MOST_PER_CLASS
        if classifier is not None:
            most = min(most, min(len(train), len(test)) // teacher.num_classes)
        images_per_class = max(1, most)
    settings = replace(settings, images_per_class=images_per_class)
    if classifier is None:
        quality = garment_quality(teacher, settings)
    else:
        quality = student_quality(teacher, load_student(classifier), data, settings)
    card["quality"] = quality | {"seconds": round(time.perf_counter() - started, 1)}
    card["round_trip"] = round_trip(teacher, test)
    return card


def _sides(folder: Path, given: dict[str, Any]) -> tuple[LabelledImages, LabelledImages]:
    """Return what a teacher was trained on, and images of the same data that it was not."""
    options = test_options(trained_on(folder / WEIGHTS_NAME), given)
    trained = load_data(options)
    try:
        return trained, load_test(options)[1]
    except NoSplitError:
        return load_held_out(folder, trained)


def _check_unseen(run: Path, tested: LabelledImages, warn: Callable[[str], None]) -> None:
    """Raise UserError if a run has seen what it is to be measured on; warn of a few doubles."""
    seen, said = seen_before(marks_of_trained(run) or (), tested, np.arange(len(tested)))
    if seen > _DOUBLES * len(tested):
        raise UserError(
            f"{run}: {said}: give other images with `data`; of classifiers, give one of "
            f"`clarep distill --train.validation-share {SHARE}`"
        )
    if seen:
        warn(f"{run}: {said}: figures on them are too good")


def _summary(history: list[dict[str, Any]], batch_size: int) -> dict[str, Any]:
    steps = [record["step"] for record in history]
    images = np.diff([0, *steps]) * batch_size
    seconds = float(sum(images / np.array([record["images_per_s"] for record in history])))
    stride = max(1, -(-len(history) // _CURVE_POINTS))
    return {
        "steps": steps[-1],
        "images": steps[-1] * batch_size,
        "seconds": round(seconds, 3),
        "images_per_s": round(steps[-1] * batch_size / seconds, 1),
        "loss_curve": {str(r["step"]): r["loss"] for r in history[stride - 1 :: stride]},
        "held_out_curve": {str(r["step"]): r["held_out"] for r in history if "held_out" in r},
    }


def garment_quality(teacher: Teacher, settings: SampleSettings) -> dict[str, Any]:
    """Measure a teacher of backdrops by the bundled judge, as `student_quality`.

    Raises UserError if the teacher's classes or image size are not the judge's, or if there
    are not as many test images (1,000).
    """
    if teacher.class_names != CLASS_NAMES or teacher.image_shape != (3, 32, 32):
        raise UserError(
            f"the bundled judge knows 32x32 garments only, and the teacher draws "
            f"{teacher.image_shape[1]}x{teacher.image_shape[2]} images of "
            f"{len(teacher.class_names)} other classes: give `classifier=RUN`, "
            "a student that clarep distill trained on its data"
        )
    data = load_backdrops("train"), load_backdrops("test")
    known = {key: judge_card()[key] for key in ("sha256", "test_accuracy")}
    return {"judge": known} | _sample_quality(teacher, load_judge(), data, settings)


def student_quality(
    teacher: Teacher,
    student: Student,
    data: tuple[LabelledImages, LabelledImages],
    settings: SampleSettings,
) -> dict[str, Any]:
    """Measure class-conditional samples beside the training and test images of `data`.

    Three sets of as many images, classes * images_per_class: test images, which are the
    reference; samples, as many of every class; training images. The Fréchet distance is measured
    from samples to test images, at each guidance, and from training to test images, all in the
    student's features. The latter is the floor: no sampler can be asked for less.

    Raises UserError if the student's classes or image shape are not the teacher's, or if there
    are not as many test or training images.
    """
    check_alike("the classifier's", kind_of(student.info), "the teacher", kind_of(teacher))
    test = data[1]
    _, logits = classify_all(student, to_unit_range(test.images(np.arange(len(test)))))
    right = logits.argmax(dim=1) == torch.from_numpy(test.labels)
    known: dict[str, Any] = {"student": student.info.name, **weights_hash(student)}
    known["test_accuracy"] = round(float(right.float().mean()), 4)
    return {"classifier": known} | _sample_quality(teacher, student, data, settings)


def _sample_quality(
    teacher: Teacher,
    student: Student,
    data: tuple[LabelledImages, LabelledImages],
    settings: SampleSettings,
) -> dict[str, Any]:
    count = teacher.num_classes * settings.images_per_class
    # Test images first: they are the fewer, and what is said of too few names them.
    test, train = (_real_images(some, count, settings.seed) for some in reversed(data))
    of_train, of_test = (classify_all(student, some)[0] for some in (train, test))
    return {
        "reference": f"{count:,} test images",
        "frechet_distance_of_train_images": round(frechet_distance(of_train, of_test), 4),
        "sampler": {"solver": "heun", "steps": settings.steps, "seed": settings.seed},
        "images_per_class": settings.images_per_class,
        "samples": teacher_quality(teacher, student, test, settings),
    }


def round_trip(teacher: Teacher, data: LabelledImages, count: int = 100) -> dict[str, Any]:
    """Invert and decode the first images of `data` with `clarep identify`'s own defaults.

    Returns median and least PSNR in dB, number of images and the noise level.
    """
    clarid = Clarid(teacher, kind="none")
    chosen = np.arange(min(count, len(data)))
    labels = torch.from_numpy(data.labels[chosen])
    _, quality = clarid.invert(data.images(chosen), labels)
    return {
        "psnr_median": round(float(torch.quantile(quality, 0.5)), 2),
        "psnr_least": round(float(quality.min()), 2),
        "images": len(chosen),
        "sigma": clarid.sigma_te,
        "steps": clarid.config.steps,
        "solver": clarid.config.solver,
    }


def _real_images(data: LabelledImages, count: int, seed: int) -> torch.Tensor:
    """Return `count` images of `data` chosen at random, in [-1, 1]."""
    if not 1 <= count <= len(data):
        raise UserError(
            f"{count} images cannot be drawn from the {len(data)} of {data.name}: "
            f"give between 1 and {len(data) // len(data.class_names)} images per class"
        )
    chosen = np.random.default_rng(seed).permutation(len(data))[:count]
    return to_unit_range(data.images(chosen))
