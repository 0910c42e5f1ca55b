"""All that CLARID needs of a teacher, tried on a few images, one thing after another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.diffusion_classifier import evenly, recognise
from clarep.data.backdrops import load_backdrops
from clarep.data.decode_image import decode_image
from clarep.data.garments import CLASS_NAMES
from clarep.data.labelled import LabelledImages, UnreadableImage, to_unit_range
from clarep.data.load import DataConfig, load_data
from clarep.engine.arrays import check_finite
from clarep.engine.cost import Ledger
from clarep.errors import UserError
from clarep.geometry.benchmark import Features
from clarep.select import teacher_findings as find
from clarep.select.class_match import matched_by_number, of_the_datas_classes
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

_PHOTOGRAPH = ("skimage", "data/chelsea.png")


def examine(
    given: str | Teacher,
    options: TeacherOptions,
    config: ClaridConfig,
    *,
    guidance: float | None = None,
    data: DataConfig | LabelledImages | None = None,
    image: Path | None = None,
    for_images: int = 500,
    tell: Callable[[str], None] | None = None,
) -> Iterator[find.Finding]:
    """Try one thing after another of a teacher, yielding what was found.

    Args:
        given: a teacher, or what `load_teacher` takes, with `options`.
        config: the setting that is tried, but for its guidance.
        guidance: of the decoding; None takes the default, or 1 where there is no null class.
        data: images of its classes, or where they lie; None takes bundled ones, if there are any.
        image: instead, an image file, as one of the first class.
        for_images: how many images the cost is extrapolated for.
        tell: is told which classes the teacher is tried on, if not all of its own.

    Raises:
        UserError: for what does not fit, and for whatever the model itself raises.
    """
    with _telling("loading it"), (loading := Ledger()).stage("load"):
        teacher = given if isinstance(given, Teacher) else load_teacher(given, options)
        teacher.check_attributes()
    spec = None if isinstance(given, Teacher) else str(given)
    yield find.identity(spec, teacher, loading.seconds["load"])
    with _telling("listing its taps"):
        taps = find.taps(teacher)
    yield taps
    usual = ClaridConfig.guidance if teacher.has_null else 1.0
    config = replace(config, guidance=usual if guidance is None else guidance)
    with _telling("choosing t, tap and k"):
        clarid = Clarid(teacher, config)
    yield find.noise(clarid)
    labelled = _labelled(teacher, data, image)
    if labelled is not None:
        teacher, chosen_by_name = of_the_datas_classes(teacher, labelled)
        if tell is not None:
            tell(chosen_by_name)
            tell(matched_by_number(teacher, labelled, judged=True))
        clarid = Clarid(teacher, config)
    images, labels, what = _batch(teacher, labelled, image, config.batch_size)
    one, its = images[:1], labels[:1]
    with _telling("encoding an image and denoising it"):
        x = noisy_latent(clarid, one, its)
    with _telling("differentiating its features"):
        engines = find.engines(clarid, x, its)
    yield engines
    with _telling("inverting an image and decoding it again"):
        x_te, trip = find.round_trip(clarid, one, its, what)
    yield trip
    known = None
    if labelled is not None:
        with _telling("denoising images given several labels"):
            everything = np.arange(len(labelled))
            known = recognise(teacher, labelled, everything, batch_size=config.batch_size)
    yield find.recognition(known, tried=labelled is not None)
    with _telling("finding a basis of its Jacobian"):
        latents, basis = find.basis(clarid, x_te, its)
    yield basis
    if options.attention == "flash":
        yield find.attention(teacher)
    with _telling("CLARID of a batch"):
        cost = find.cost(clarid, latents, images, labels, for_images)
    yield cost


def _labelled(
    teacher: Teacher, data: DataConfig | LabelledImages | None, image: Path | None
) -> LabelledImages | None:
    """Return the images to try it on; without any bundled ones, if they are of its classes."""
    its_own = teacher.class_names == CLASS_NAMES and teacher.image_shape == (3, 32, 32)
    if data is None and image is None and its_own:
        return load_backdrops("test")
    return load_data(data) if isinstance(data, DataConfig) else data


def _batch(
    teacher: Teacher, data: LabelledImages | None, image: Path | None, count: int
) -> tuple[Tensor, Tensor, str]:
    """Return images, their labels, and what the first of them is."""
    if data is None:
        return example_image(teacher, image)
    few = evenly(data.labels, np.arange(len(data)), count, np.random.default_rng(0))
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
            f"the memory does not suffice for {doing}: give a smaller `k` or `batch_size`, "
            "`offload=True`, `vae_slicing=True`, or another `device`"
        ) from error
    except Exception as error:  # a foreign model may raise anything
        lines = str(error).strip().splitlines() or ["no more is said"]
        raise UserError(
            f"the teacher fails in {doing} ({type(error).__name__}: {lines[0][:200]}): check that "
            "its checkpoint is whole and of its family"
        ) from error


def example_image(
    teacher: Teacher, path: Path | None = None
) -> tuple[Tensor, Int64[Tensor, " 1"], str]:
    """Return an image (1, C, H, W) that fits the teacher, its label 0, and what it is.

    path: an image file, cropped to its central square and resized; without it a photograph of
    scikit-image's.

    Raises UserError if the file cannot be read, or the teacher's images are neither RGB nor grey.
    """
    channels, height, width = teacher.image_shape
    if channels not in (1, 3):
        raise UserError(
            f"the teacher takes images of {channels} channels, and clarep loads RGB and grey: "
            "give another teacher"
        )
    source = Path(str(files(_PHOTOGRAPH[0]) / _PHOTOGRAPH[1])) if path is None else path
    side = max(height, width)
    try:
        pixels = decode_image(source, str(source), side)
    except UnreadableImage as error:
        raise UserError(
            f"cannot read {error.source}: {error.reason}; give a whole image file"
        ) from error
    top, left = (side - height) // 2, (side - width) // 2
    cut = torch.from_numpy(pixels[top : top + height, left : left + width].copy())
    images = cut.permute(2, 0, 1)[None]
    if channels == 1:
        images = images.float().mean(1, keepdim=True) / 255
    return images, torch.tensor([0]), "scikit-image's cat" if path is None else str(path)


@torch.no_grad()
def noisy_latent(
    clarid: Clarid, image: Tensor, labels: Int64[Tensor, " 1"]
) -> Float[Tensor, "1 c2 h2 w2"]:
    """Return x_0 + sigma eps of an image, on the teacher's device, once it was denoised.

    Raises UserError if its latent is not of latent_shape, or the denoiser does not stay finite.
    """
    teacher = clarid.teacher
    x0 = teacher.encode(teacher.accept_images(to_unit_range(image)).to(teacher.device))
    if tuple(x0.shape[1:]) != tuple(teacher.latent_shape):
        raise UserError(
            f"the teacher encodes an image to {tuple(x0.shape[1:])} and its latent_shape is "
            f"{teacher.latent_shape}: mend the adapter"
        )
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
    x = x0 + clarid.sigma_te * noise
    sigma = x.new_full((1,), clarid.sigma_te)
    denoised = teacher.denoiser(labels.to(teacher.device), clarid.config.guidance)(x, sigma)
    what = f"the denoiser's estimates at sigma {clarid.sigma_te:g}"
    check_finite(denoised, what, "check the weights, give another t, or leave out bf16")
    return x


def noisy_features(
    teacher: Teacher, tap: str, sigma: float, data: LabelledImages, *, count: int, seed: int
) -> tuple[Features, Float[Tensor, "batch c h w"]]:
    """Return features at a tap as functions of x alone, and x = x_0 + sigma eps.

    Of the first `count` images; a slice of them gives the function of these. Raises UserError if
    there are fewer, or one does not fit the teacher.
    """
    if count > len(data):
        raise UserError(
            f"{data.name} holds {len(data)} images, fewer than the {count} of `images` and "
            "`batches`: give smaller ones"
        )
    indices = np.arange(count)
    labels = torch.from_numpy(data.labels[indices]).to(teacher.device)
    images = to_unit_range(data.images(indices)).to(teacher.device)
    teacher.accept_images(images)
    teacher.check_labels(labels)
    with torch.no_grad():
        x = teacher.encode(images)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))

    def features(part: slice) -> Any:
        cond = teacher.condition(labels[part])

        def function(x: Tensor) -> Tensor:
            given = cond.expand(len(x), *cond.shape[1:])  # the reference repeats its one image
            return teacher.features(x, x.new_full((len(x),), sigma), given, tap)

        return function

    return features, x + sigma * noise.to(x)
