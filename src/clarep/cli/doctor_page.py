"""What `clarep doctor` says of each thing that it found: as JSON, and in lines for people."""

import math
from pathlib import Path
from typing import Any

from clarep.clarid.clarid import Clarid
from clarep.clarid.diffusion_classifier import Recognition
from clarep.clarid.round_trip import POOR_PSNR, RoundTrip
from clarep.engine.progress import duration
from clarep.select.teacher_check import parameter_counts
from clarep.teachers.teacher import Teacher

Found = tuple[str, dict[str, Any], list[tuple[str, str]]]
"""Key of the JSON answer, what was found, and the lines that say so: (name, text)."""


def identity_lines(spec: str, teacher: Teacher, seconds: float) -> Found:
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


def taps_lines(teacher: Teacher, taps: dict[str, tuple[int, int]]) -> Found:
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


def noise_lines(clarid: Clarid) -> Found:
    """Which noise levels it knows, and the one that is tried."""
    low, high = clarid.teacher.sigma_min, clarid.teacher.sigma_max
    t, sigma_te = clarid.config.t, clarid.sigma_te
    found = {"sigma_min": low, "sigma_max": high, "t": t, "sigma_te": sigma_te}
    share = "the default t is" if t is None else f"t = {t:g} is"
    if clarid.config.sigma is not None:
        share = "given is"
    return "noise", found, [("sigma", f"{low:.4g} to {high:.4g}; {share} {sigma_te:.4g}")]


def engines_lines(found: dict[str, Any]) -> Found:
    """How its features are differentiated."""
    lines = [
        ("features", f"{_times(found['features'])} at {found['tap']}"),
        ("J V by", f"{found['engine']}, the first way that passes the adjoint test"),
        *(("", f"{name}: {said}") for name, said in found["findings"].items()),
    ]
    return "differentiation", found, lines


def round_trip_lines(found: dict[str, Any]) -> Found:
    """What one image is after inversion and decoding."""
    alone = found["autoencoder_psnr"]
    trip = RoundTrip(found["psnr"], math.inf if alone is None else alone)
    text = f"{trip}, {found['image']} as '{found['class']}', {found['steps']} steps each way"
    if trip.poor:
        text += f"; below {POOR_PSNR:g} dB: the teacher does not know such an image"
    return "round_trip", found, [("round trip", text)]


def recognition_lines(found: Recognition | None, tried: bool) -> Found:
    """Whether the teacher knows the images' classes; None where it was not or cannot be tried."""
    if found is None:
        why = "it has one class" if tried else "give images of its classes with --data"
        return "recognition", {}, [("recognition", f"not tried: {why}")]
    verdict = {
        "known": "it knows them",
        "near chance": "near chance: what CLARID finds says little of these classes",
        "too few": "too few images or classes to tell",
    }[found.verdict]
    cost = f"{found.denoiser_evaluations} denoiser evaluations"
    return "recognition", found.as_dict(), [("recognition", f"{found}; {verdict} ({cost})")]


def basis_lines(found: dict[str, Any]) -> Found:
    """What one image's directions take."""
    memory = "" if found["memory_mb"] is None else f", {found['memory_mb']:.0f} MiB of memory"
    if found["gpu_memory_mb"] is not None:
        memory += f", {found['gpu_memory_mb']:.0f} MiB on the GPU"
    text = f"k = {found['k']}: {found['seconds']:.2f} s, {found['products']} products{memory}"
    peak = f"{found['process_peak_memory_mb']} MiB at the peak of this process"
    return "basis", found, [("one basis", text), ("memory", peak)]


def attention_lines(found: list[dict[str, Any]]) -> Found:
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


def cost_lines(found: dict[str, Any], has_null: bool) -> Found:
    """What CLARID costs."""
    parts = found["seconds_an_image"]
    listed = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in parts.items())
    at_once = found["at_once"]
    taken = f"{at_once} taken at once (--batch-size)" if at_once > 1 else "one taken alone"
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
