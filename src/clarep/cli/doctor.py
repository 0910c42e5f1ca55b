"""`clarep doctor`: what clarep makes of a teacher, and what CLARID with it will cost here."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.diffusion_classifier import evenly, recognise
from clarep.cli.doctor_page import (
    Found,
    attention_lines,
    basis_lines,
    cost_lines,
    engines_lines,
    identity_lines,
    noise_lines,
    recognition_lines,
    round_trip_lines,
    taps_lines,
)
from clarep.cli.shared import flags, of_the_datas_classes
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, DataOptions, load_data
from clarep.engine.bounds import Within
from clarep.errors import UserError
from clarep.select.teacher_check import (
    attention_calls,
    example_data,
    example_image,
    extrapolate,
    noisy_latent,
    try_basis,
    try_engines,
    try_round_trip,
)
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher


@dataclass(frozen=True)
class Doctor:
    """Load a teacher and try all that CLARID needs of it, on a few images.

    Prints what it is, how it can be differentiated, its round trip, whether it knows its classes,
    and what CLARID costs here.
    """

    teacher: str = "backdrops"
    """A bundled teacher's name, a path to a teacher.safetensors or its folder, or FAMILY:PLACE such
    as dit:PATH."""
    teacher_options: Annotated[TeacherOptions, tyro.conf.arg(name="")] = field(
        default_factory=TeacherOptions
    )
    """How the teacher is loaded and run."""
    data: str | None = None
    """Images to try it on, of its classes: a name or a path as of clarep identify; without it
    bundled ones."""
    data_options: Annotated[DataOptions, tyro.conf.arg(name="")] = field(
        default_factory=DataOptions
    )
    """How these are read."""
    image: Path | None = None
    """Instead: an image to try it on, as one of the first class."""
    t: float | None = None
    """Noise level, as a share of the teacher's time axis; without it, CLARID's default."""
    sigma: float | None = None
    """Noise level as it is; instead of --t."""
    tap: str = "mid"
    """Layer whose Jacobian is taken; mid is the family's default."""
    k: int | float | str = 0.04
    """Directions: a number, a share of the latent's dimension, or energy:SHARE."""
    guidance: float | None = None
    """Guidance of the decoding; without it 3, CLARID's default, or 1 where the teacher has no null
    class."""
    for_images: Annotated[int, Within(1)] = 500
    """For how many images the cost of CLARID is extrapolated."""
    batch_size: Annotated[int, Within(1)] = 25
    """Images that clarep identify will take through the teacher at once."""
    json: bool = False
    """Print one JSON object at the end instead of lines as they are found."""

    def run(self) -> None:
        """Try one thing after another, and say what was found."""
        answer: dict[str, Any] = {}
        for key, found, lines in self._examine():
            answer[key] = found
            for name, text in () if self.json else lines:
                print(f"{name:<13}{text}", flush=True)
        if self.json:
            print(json.dumps(answer, indent=2))

    def _examine(self) -> Iterator[Found]:
        started = time.perf_counter()
        with _telling("loading it"):
            teacher = load_teacher(self.teacher, self.teacher_options)
            teacher.check_attributes()
        yield identity_lines(self.teacher, teacher, time.perf_counter() - started)
        with _telling("listing its taps"):
            taps = teacher.taps()
        yield taps_lines(teacher, taps)
        with _telling("choosing t, tap and k"):
            clarid = Clarid(teacher, self._config(teacher))
        yield noise_lines(clarid)
        data = self._data(teacher)
        if data is not None:
            teacher = of_the_datas_classes(teacher, data)
            clarid = Clarid(teacher, self._config(teacher))
        images, labels, what = self._images(teacher, data)
        one, its = images[:1], labels[:1]
        with _telling("encoding an image and denoising it"):
            x = noisy_latent(clarid, one, its)
        with _telling("differentiating its features"):
            engines = try_engines(clarid, x, its)
        yield engines_lines(engines)
        with _telling("inverting an image and decoding it again"):
            x_te, trip = try_round_trip(clarid, one, its)
        yield round_trip_lines(trip | {"image": what})
        with _telling("denoising images given several labels"):
            known = None
            if data is not None:
                everything = np.arange(len(data))
                known = recognise(teacher, data, everything, batch_size=self.batch_size)
        yield recognition_lines(known, tried=data is not None)
        with _telling("finding a basis of its Jacobian"):
            latents, basis = try_basis(clarid, x_te, its)
        yield basis_lines(basis)
        if self.teacher_options.attention == "flash":
            yield attention_lines(attention_calls(teacher))
        with _telling("CLARID of a batch"):
            cost = extrapolate(clarid, latents, images, labels, self.for_images)
        yield cost_lines(cost | {"guidance": clarid.config.guidance}, teacher.has_null)

    def _config(self, teacher: Teacher) -> ClaridConfig:
        """Return CLARID's setting; without a null class it is one without guidance."""
        default = ClaridConfig().guidance if teacher.has_null else 1.0
        guidance = default if self.guidance is None else self.guidance
        return ClaridConfig(
            t=self.t,
            sigma=self.sigma,
            tap=self.tap,
            k=self.k,
            guidance=guidance,
            batch_size=self.batch_size,
        )

    def _data(self, teacher: Teacher) -> LabelledImages | None:
        """Return the labelled images to try it on; None where there are none of its classes."""
        if self.data is None:
            if given := flags(self.data_options):
                raise UserError(f"{given.strip()} says how --data is read: give --data too")
            return example_data(teacher) if self.image is None else None
        if self.image is not None:
            raise UserError("--data and --image are both given: give one of them")
        return load_data(DataConfig(data=self.data, **vars(self.data_options)))

    def _images(self, teacher: Teacher, data: LabelledImages | None) -> tuple[Tensor, Tensor, str]:
        """Return a batch of images, their labels, and what the first of them is."""
        if data is None:
            return example_image(teacher, self.image)
        rng = np.random.default_rng(0)
        few = evenly(data.labels, np.arange(len(data)), self.batch_size, rng)
        labels = torch.from_numpy(data.labels[few])
        teacher.check_labels(labels)
        return data.images(few), labels, data.sources[int(few[0])]


@contextmanager
def _telling(doing: str) -> Iterator[None]:
    """Turn whatever a model raises meanwhile into one sentence."""
    try:
        yield
    except UserError:
        raise
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise UserError(
            f"the memory does not suffice for {doing}: give a smaller --k or --batch-size, "
            "--offload, --vae-slicing, or another --device"
        ) from error
    except Exception as error:  # a foreign model may raise anything
        lines = str(error).strip().splitlines() or ["no more is said"]
        raise UserError(
            f"the teacher fails in {doing} ({type(error).__name__}: {lines[0][:200]}): check that "
            "its checkpoint is whole and of its family"
        ) from error
