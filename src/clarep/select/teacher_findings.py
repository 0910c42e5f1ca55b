"""What is found where all that CLARID needs of a teacher is tried: as JSON, and in lines."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.diffusion_classifier import Recognition, evenly, recognise
from clarep.clarid.round_trip import POOR_PSNR, RoundTrip
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data
from clarep.engine.progress import duration
from clarep.errors import UserError
from clarep.select.class_match import of_the_datas_classes
from clarep.select.teacher_check import (
    attention_calls,
    example_data,
    example_image,
    extrapolate,
    noisy_latent,
    parameter_counts,
    try_basis,
    try_engines,
    try_round_trip,
)
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

Finding = tuple[str, dict[str, Any], list[tuple[str, str]]]
"""Key of the JSON answer, what was found, and the lines that say so: (name, text)."""


def examine(
    spec: str,
    options: TeacherOptions,
    config: ClaridConfig,
    *,
    guidance: float | None = None,
    data: DataConfig | None = None,
    image: Path | None = None,
    for_images: int = 500,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Finding]:
    """Try one thing after another of a teacher, yielding what was found.

    Args:
        spec, options: as `load_teacher` takes them.
        config: the setting that is tried, but for its guidance.
        guidance: of the decoding; None takes the default, or 1 where there is no null class.
        data: images of its classes; None takes bundled ones, if there are any.
        image: instead, an image file, as one of the first class.
        for_images: how many images the cost is extrapolated for.
        tell: is told which classes the teacher is tried on, if not all of its own.

    Raises:
        UserError: for what does not fit, and for whatever the model itself raises.
    """
    started = time.perf_counter()
    with _telling("loading it"):
        teacher = load_teacher(spec, options)
        teacher.check_attributes()
    yield _identity(spec, teacher, time.perf_counter() - started)
    with _telling("listing its taps"):
        taps = teacher.taps()
    yield _taps(teacher, taps)
    usual = ClaridConfig.guidance if teacher.has_null else 1.0
    config = replace(config, guidance=usual if guidance is None else guidance)
    with _telling("choosing t, tap and k"):
        clarid = Clarid(teacher, config)
    yield _noise(clarid)
    labelled = None
    if data is not None:
        labelled = load_data(data)
    elif image is None:
        labelled = example_data(teacher)
    if labelled is not None:
        teacher, chosen_by_name = of_the_datas_classes(teacher, labelled)
        if tell is not None:
            tell(chosen_by_name)
        clarid = Clarid(teacher, config)
    images, labels, what = _batch(teacher, labelled, image, config.batch_size)
    one, its = images[:1], labels[:1]
    with _telling("encoding an image and denoising it"):
        x = noisy_latent(clarid, one, its)
    with _telling("differentiating its features"):
        engines = try_engines(clarid, x, its)
    yield _engines(engines)
    with _telling("inverting an image and decoding it again"):
        x_te, trip = try_round_trip(clarid, one, its)
    yield _round_trip(trip | {"image": what})
    known = None
    if labelled is not None:
        with _telling("denoising images given several labels"):
            everything = np.arange(len(labelled))
            known = recognise(teacher, labelled, everything, batch_size=config.batch_size)
    yield _recognition(known, tried=labelled is not None)
    with _telling("finding a basis of its Jacobian"):
        latents, basis = try_basis(clarid, x_te, its)
    yield _basis(basis)
    if options.attention == "flash":
        yield _attention(attention_calls(teacher))
    with _telling("CLARID of a batch"):
        cost = extrapolate(clarid, latents, images, labels, for_images)
    yield _cost(cost | {"guidance": config.guidance}, teacher.has_null)


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


def _identity(spec: str, teacher: Teacher, seconds: float) -> Finding:
    """What the teacher is."""
    family, colon, _ = spec.partition(":")
    family = family if colon and not Path(spec).exists() else "clarep's own U-Net"
    parameters = parameter_counts(teacher)
    counted = ", ".join(f"{n:,} in {part}" for part, n in parameters.items())
    images, latents = teacher.image_shape, teacher.latent_shape
    found = {
        "spec": spec,
        "family": family,
        "class": type(teacher).__name__,
        "fingerprint": teacher.fingerprint,
        "device": str(teacher.device),
        "parameters": parameters,
        "image_shape": list(images),
        "latent_shape": list(latents),
        "class_names": list(teacher.class_names),
        "null_label": teacher.null_label,
        "has_null": teacher.has_null,
        "load_seconds": seconds,
    }
    few = ", ".join(teacher.class_names[:3])
    more = ", ..." if teacher.num_classes > 3 else ""
    null = f"label {teacher.null_label} is no class" if teacher.has_null else "no null class"
    lines = [
        ("teacher", f"{spec}, on {teacher.device}, loaded in {seconds:.1f} s"),
        ("family", f"{family} ({type(teacher).__name__})"),
        ("fingerprint", teacher.fingerprint),
        ("parameters", counted or "not known"),
        ("images", f"{_times(images)}, channels x height x width"),
        ("latents", f"{_times(latents)}, dimension {math.prod(latents):,}"),
        ("classes", f"{teacher.num_classes}: {few}{more}; {null}"),
    ]
    return "teacher", found, lines


def _taps(teacher: Teacher, taps: dict[str, tuple[int, int]]) -> Finding:
    """Which layers can be tapped."""
    found = {
        "default": teacher.default_tap,
        "all": {name: {"channels": c, "stride": stride} for name, (c, stride) in taps.items()},
    }
    width = max(len(name) for name in taps)
    lines = [
        (
            "" if i else "taps",
            f"{name:<{width}}  {channels} channels, stride {stride}"
            f"{', the default' if name == teacher.default_tap else ''}",
        )
        for i, (name, (channels, stride)) in enumerate(taps.items())
    ]
    return "taps", found, lines


def _noise(clarid: Clarid) -> Finding:
    """Which noise levels it knows, and the one that is tried."""
    low, high = clarid.teacher.sigma_min, clarid.teacher.sigma_max
    t, sigma_te = clarid.config.t, clarid.sigma_te
    found = {"sigma_min": low, "sigma_max": high, "t": t, "sigma_te": sigma_te}
    share = "the default t is" if t is None else f"t = {t:g} is"
    if clarid.config.sigma is not None:
        share = "given is"
    return "noise", found, [("sigma", f"{low:.4g} to {high:.4g}; {share} {sigma_te:.4g}")]


def _engines(found: dict[str, Any]) -> Finding:
    """How its features are differentiated."""
    lines = [
        ("features", f"{_times(found['features'])} at {found['tap']}"),
        ("J V by", f"{found['engine']}, the first way that passes the adjoint test"),
        *(("", f"{name}: {said}") for name, said in found["findings"].items()),
    ]
    return "differentiation", found, lines


def _round_trip(found: dict[str, Any]) -> Finding:
    """What one image is after inversion and decoding."""
    alone = found["autoencoder_psnr"]
    trip = RoundTrip(found["psnr"], math.inf if alone is None else alone)
    text = f"{trip}, {found['image']} as '{found['class']}', {found['steps']} steps each way"
    if trip.poor:
        text += f"; below {POOR_PSNR:g} dB: the teacher does not know such an image"
    return "round_trip", found, [("round trip", text)]


def _recognition(found: Recognition | None, tried: bool) -> Finding:
    """Whether the teacher knows the images' classes; None where it was not or cannot be tried."""
    if found is None:
        why = "it has one class" if tried else "give images of its classes with `data`"
        return "recognition", {}, [("recognition", f"not tried: {why}")]
    verdict = {
        "known": "it knows them",
        "near chance": "near chance: what CLARID finds says little of these classes",
        "too few": "too few images or classes to tell",
    }[found.verdict]
    cost = f"{found.denoiser_evaluations} denoiser evaluations"
    return "recognition", found.as_dict(), [("recognition", f"{found}; {verdict} ({cost})")]


def _basis(found: dict[str, Any]) -> Finding:
    """What one image's directions take."""
    memory = "" if found["memory_mb"] is None else f", {found['memory_mb']:.0f} MiB of memory"
    if found["gpu_memory_mb"] is not None:
        memory += f", {found['gpu_memory_mb']:.0f} MiB on the GPU"
    text = f"k = {found['k']}: {found['seconds']:.2f} s, {found['products']} products{memory}"
    peak = f"{found['process_peak_memory_mb']} MiB at the peak of this process"
    return "basis", found, [("one basis", text), ("memory", peak)]


def _attention(found: list[dict[str, Any]]) -> Finding:
    """Which kernels its attention ran by."""
    parts = []
    for kernel in ("flash", "math"):
        calls = [
            f"{one['kind']} {one['tokens']} x {one['channels']} ({one['calls']})"
            for one in found
            if one["kernel"] == kernel
        ]
        parts.append(f"by {kernel} {', '.join(calls) or 'none'}")
    text = f"tokens x channels of a head (calls): {'; '.join(parts)}"
    return "attention", {"calls": found}, [("attention", text)]


def _cost(found: dict[str, Any], has_null: bool) -> Finding:
    """What CLARID costs."""
    parts = found["seconds_an_image"]
    listed = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in parts.items())
    at_once = found["at_once"]
    taken = f"{at_once} taken at once (`batch_size`)" if at_once > 1 else "one taken alone"
    lines = [
        ("CLARID", f"{sum(parts.values()):.2f} s for one image ({listed})"),
        ("guidance", f"{found['guidance']:g}{'' if has_null else ', as there is no null class'}"),
        (
            f"{found['images']} images",
            f"about {duration(found['seconds'])} here, extrapolated from {taken}; measures and "
            "pictures come on top",
        ),
    ]
    return "clarid", found, lines


def _times(shape: Any) -> str:
    return " x ".join(map(str, shape))
