"""`clarep doctor`: what clarep makes of a teacher, and what CLARID with it will cost here."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.trial import (
    attention_calls,
    example_image,
    extrapolate,
    noisy_latent,
    parameter_counts,
    try_basis,
    try_engines,
    try_round_trip,
)
from clarep.engine.progress import duration
from clarep.errors import UserError
from clarep.teachers.options import TeacherOptions
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

_POOR_PSNR = 20.0  # dB of a round trip

Found = tuple[str, dict[str, Any], list[tuple[str, str]]]
"""Key of the JSON answer, what was found, and the lines that say so: (name, text)."""


@dataclass(frozen=True)
class Doctor:
    """Load a teacher and try all that CLARID needs of it, on one image.

    Prints what it is, how it can be differentiated, its round trip, and what CLARID costs here.
    """

    teacher: str = "backdrops"
    """A bundled teacher's name, a path to a teacher.safetensors or its folder, or FAMILY:PLACE such
    as dit:PATH."""
    teacher_options: Annotated[TeacherOptions, tyro.conf.arg(name="")] = field(
        default_factory=TeacherOptions
    )
    """How the teacher is loaded and run."""
    image: Path | None = None
    """An image to try it on, as one of the first class; without it a bundled one."""
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
    for_images: int = 500
    """For how many images the cost of CLARID is extrapolated."""
    json: bool = False
    """Print one JSON object at the end instead of lines as they are found."""

    def run(self) -> None:
        """Try one thing after another, and say what was found."""
        if self.for_images < 1:
            raise UserError(f"--for-images {self.for_images} is below 1: give 500, say")
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
        yield _identity(self.teacher, teacher, time.perf_counter() - started)
        with _telling("listing its taps"):
            taps = teacher.taps()
        yield _taps(teacher, taps)
        with _telling("choosing t, tap and k"):
            clarid = Clarid(teacher, self._config(teacher))
        yield _noise(clarid)
        images, labels, what = example_image(teacher, self.image)
        with _telling("encoding an image and denoising it"):
            x = noisy_latent(clarid, images, labels)
        with _telling("differentiating its features"):
            engines = try_engines(clarid, x, labels)
        yield _engines(engines)
        with _telling("inverting an image and decoding it again"):
            x_te, trip = try_round_trip(clarid, images, labels)
        yield _round_trip(trip | {"image": what})
        with _telling("finding a basis of its Jacobian"):
            latents, basis = try_basis(clarid, x_te, labels)
        yield _basis(basis)
        if self.teacher_options.attention == "flash":
            yield _attention(attention_calls(teacher))
        with _telling("decoding it"):
            cost = extrapolate(clarid, latents, labels, self.for_images)
        yield _cost(cost | {"guidance": clarid.config.guidance}, teacher.has_null)

    def _config(self, teacher: Teacher) -> ClaridConfig:
        """Return CLARID's setting; without a null class it is one without guidance."""
        default = ClaridConfig().guidance if teacher.has_null else 1.0
        guidance = default if self.guidance is None else self.guidance
        return ClaridConfig(t=self.t, sigma=self.sigma, tap=self.tap, k=self.k, guidance=guidance)


@contextmanager
def _telling(doing: str) -> Iterator[None]:
    """Turn whatever a model raises meanwhile into one sentence."""
    try:
        yield
    except UserError:
        raise
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise UserError(
            f"the memory does not suffice for {doing}: give a smaller --k, --offload, "
            "--vae-slicing, or another --device"
        ) from error
    except Exception as error:  # a foreign model may raise anything
        lines = str(error).strip().splitlines() or ["no more is said"]
        raise UserError(
            f"the teacher fails in {doing} ({type(error).__name__}: {lines[0][:200]}): check that "
            "its checkpoint is whole and of its family"
        ) from error


def _identity(spec: str, teacher: Teacher, seconds: float) -> Found:
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


def _taps(teacher: Teacher, taps: dict[str, tuple[int, int]]) -> Found:
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


def _noise(clarid: Clarid) -> Found:
    low, high = clarid.teacher.sigma_min, clarid.teacher.sigma_max
    t, sigma_te = clarid.config.t, clarid.sigma_te
    found = {"sigma_min": low, "sigma_max": high, "t": t, "sigma_te": sigma_te}
    share = "the default t is" if t is None else f"t = {t:g} is"
    if clarid.config.sigma is not None:
        share = "given is"
    return "noise", found, [("sigma", f"{low:.4g} to {high:.4g}; {share} {sigma_te:.4g}")]


def _engines(found: dict[str, Any]) -> Found:
    lines = [
        ("features", f"{_times(found['features'])} at {found['tap']}"),
        ("J V by", f"{found['engine']}, the first way that passes the adjoint test"),
        *(("", f"{name}: {said}") for name, said in found["findings"].items()),
    ]
    return "differentiation", found, lines


def _round_trip(found: dict[str, Any]) -> Found:
    text = (
        f"{found['psnr']:.1f} dB, {found['image']} as '{found['class']}', {found['steps']} steps "
        "each way"
    )
    if found["psnr"] < _POOR_PSNR:
        text += f"; below {_POOR_PSNR:g} dB: the teacher does not know such an image"
    return "round_trip", found, [("round trip", text)]


def _basis(found: dict[str, Any]) -> Found:
    memory = "" if found["memory_mb"] is None else f", {found['memory_mb']:.0f} MiB of memory"
    if found["gpu_memory_mb"] is not None:
        memory += f", {found['gpu_memory_mb']:.0f} MiB on the GPU"
    text = f"k = {found['k']}: {found['seconds']:.2f} s, {found['products']} products{memory}"
    peak = f"{found['process_peak_memory_mb']} MiB at the peak of this process"
    return "basis", found, [("one basis", text), ("memory", peak)]


def _attention(found: list[dict[str, Any]]) -> Found:
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


def _cost(found: dict[str, Any], has_null: bool) -> Found:
    parts = found["seconds_an_image"]
    listed = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in parts.items())
    lines = [
        ("CLARID", f"{sum(parts.values()):.2f} s for one image ({listed})"),
        ("guidance", f"{found['guidance']:g}{'' if has_null else ', as there is no null class'}"),
        (
            f"{found['images']} images",
            f"about {duration(found['seconds'])} here, extrapolated from one image taken alone; "
            "clarep identify takes 25 at once (--batch-size), which changes the time an image",
        ),
    ]
    return "clarid", found, lines


def _times(shape: Any) -> str:
    return " x ".join(map(str, shape))
