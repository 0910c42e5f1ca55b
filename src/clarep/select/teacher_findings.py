"""What `examine` finds of a teacher: each as JSON, and in lines for people."""

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import FIXED_T
from clarep.clarid.diffusion_classifier import Recognition
from clarep.clarid.directions import project_out
from clarep.clarid.round_trip import POOR_PSNR, RoundTrip, autoencoder_psnr
from clarep.data.labelled import to_unit_range
from clarep.engine.cost import Ledger, peak_memory, peak_memory_mb
from clarep.engine.printable import counted
from clarep.engine.progress import duration
from clarep.geometry.jacobian import probe_engine
from clarep.teachers.flash import AttentionCall
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.teacher import Teacher

_STAGES = ("invert", "round trip", "directions", "features", "sample")  # of each image
_FAR_OFF = 1.5  # times the noise; 1 is what giving back the noisy image is off by
_BATCH_SECONDS = 60.0  # that a batch may take, judged by one image taken alone

Finding = tuple[str, dict[str, Any], list[tuple[str, str]]]
"""Key of the JSON answer, what was found, and the lines that say so: (name, text)."""


def identity(spec: str | None, teacher: Teacher, seconds: float) -> Finding:
    """What the teacher is. spec: what it was loaded from; None of one that was given itself."""
    family, colon, _ = (spec or "").partition(":")
    if spec is None:
        family = "given in Python"
    elif not colon or Path(spec).exists():
        family = "clarep's own U-Net"
    networks = {name: part for name, part in vars(teacher).items() if isinstance(part, nn.Module)}
    parameters = {n: sum(p.numel() for p in net.parameters()) for n, net in networks.items()}
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
    place = f"{spec}, on {teacher.device}, loaded in {seconds:.1f} s"
    lines = [
        ("teacher", f"on {teacher.device}" if spec is None else place),
        ("family", f"{family} ({type(teacher).__name__})"),
        ("fingerprint", teacher.fingerprint),
        ("parameters", counted or "not known"),
        ("images", f"{_times(images)}, channels x height x width"),
        ("latents", f"{_times(latents)}, dimension {math.prod(latents):,}"),
        ("classes", f"{teacher.num_classes}: {few}{more}; {null}"),
    ]
    return "teacher", found, lines


def taps(teacher: Teacher) -> Finding:
    """Which layers can be tapped."""
    known = teacher.taps()
    found = {
        "default": teacher.default_tap,
        "all": {name: {"channels": c, "stride": stride} for name, (c, stride) in known.items()},
    }
    width = max(len(name) for name in known)
    lines = [
        (
            "" if i else "taps",
            f"{name:<{width}}  {counted(channels, 'channel')}, stride {stride}"
            f"{', the default' if name == teacher.default_tap else ''}",
        )
        for i, (name, (channels, stride)) in enumerate(known.items())
    ]
    return "taps", found, lines


def noise(clarid: Clarid) -> Finding:
    """Which noise levels it knows, and the one that is tried."""
    low, high = clarid.teacher.sigma_min, clarid.teacher.sigma_max
    t, sigma_te = clarid.config.t, clarid.sigma_te
    found = {"sigma_min": low, "sigma_max": high, "t": t, "sigma_te": sigma_te}
    share = f"t = {FIXED_T if t is None else t:g} is"
    if clarid.config.sigma is not None:
        share = "given is"
    return "noise", found, [("sigma", f"{low:.4g} to {high:.4g}; {share} {sigma_te:.4g}")]


def engines(clarid: Clarid, x: Tensor, labels: Tensor) -> Finding:
    """How its features are differentiated at a noisy latent x (1, C, H, W).

    Raises UserError if no engine passes the adjoint test.
    """
    teacher = clarid.teacher
    cond = teacher.condition(labels.to(teacher.device))
    sigma = x.new_full((1,), clarid.sigma_te)

    def features(y: Tensor) -> Tensor:
        return teacher.features(y, sigma, cond, clarid.tap)

    clarid.engine, said = probe_engine(features, x)  # so that no later time holds the choice
    with torch.no_grad():
        shape = list(features(x).shape[1:])
    lines = [
        ("features", f"{_times(shape)} at {clarid.tap}"),
        ("J V by", f"{clarid.engine}, the first way that passes the adjoint test"),
        *(("", f"{name}: {text}") for name, text in said.items()),
    ]
    found = {"tap": clarid.tap, "features": shape, "engine": clarid.engine, "findings": said}
    return "differentiation", found, lines


def round_trip(clarid: Clarid, image: Tensor, labels: Tensor, what: str) -> tuple[Tensor, Finding]:
    """Return x_te (1, C, H, W), and what an image is after inversion and decoding.

    autoencoder_psnr: of the image encoded and decoded alone; None for a pixel teacher.
    latent_spread: standard deviation of x_te over that of the image with noise of sigma_te added.
    lowest_error: of the estimate at sigma_min, root mean square, over sigma_min.
    """
    x_te, quality = clarid.invert(image, labels)
    found_low, low_lines = _lowest_levels(clarid, image, labels, x_te)
    trip = RoundTrip(float(quality[0]), float(autoencoder_psnr(clarid.teacher, image)[0]))
    found = {
        "psnr": trip.psnr,
        "autoencoder_psnr": trip.autoencoder if math.isfinite(trip.autoencoder) else None,
        "class": clarid.teacher.class_names[int(labels[0])],
        "steps": clarid.config.steps,
        "image": what,
        **found_low,
    }
    text = f"{trip}, {what} as '{found['class']}', {found['steps']} steps each way"
    if trip.poor:
        text += f"; below {POOR_PSNR:g} dB: the teacher does not know such an image"
    return x_te, ("round_trip", found, [("round trip", text), *low_lines])


@torch.no_grad()
def _lowest_levels(
    clarid: Clarid, image: Tensor, labels: Tensor, x_te: Tensor
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Whether the inversion starts where the denoiser knows anything, and what it made of that.

    It starts at sigma_min, where an estimate that is off by more than the noise drives it astray.
    """
    teacher = clarid.teacher
    x0 = teacher.encode(teacher.accept_images(to_unit_range(image)).to(teacher.device))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)).to(x0)
    denoise = teacher.denoiser(labels.to(teacher.device))

    def error(sigma: float) -> float:
        estimate = denoise(x0 + sigma * noise, x0.new_full((1,), sigma))
        return float((estimate - x0).double().square().mean().sqrt()) / sigma

    low = teacher.sigma_min
    expected = (x0.double().var() + clarid.sigma_te**2).sqrt()
    found = {"lowest_error": error(low), "latent_spread": float(x_te.double().std() / expected)}
    lines = [("", f"x_te is spread {found['latent_spread']:.2f} times as noise of its level")]
    if found["lowest_error"] > _FAR_OFF:
        levels = [low * 2**i for i in range(1, 60) if low * 2**i < clarid.sigma_te]
        better = next((f"{sigma:.2g}" for sigma in levels if error(sigma) <= 1), "a level above t")
        off = (
            f"at sigma_min {low:.2g} its estimates are off by {found['lowest_error']:.2g} times the"
        )
        mend = f"noise, up to {better}: inversion starts there, so give a higher sigma_min"
        lines.append(("", f"{off} {mend}"))
    return found, lines


def recognition(found: Recognition | None, tried: bool) -> Finding:
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


def basis(clarid: Clarid, x_te: Tensor, labels: Tensor) -> tuple[Tensor, Finding]:
    """Return x_te (1, C, H, W) without its directions, and what these took.

    memory_mb: resident memory beyond what was held before; None where /proc does not tell it.
    gpu_memory_mb: most that torch held on the GPU; None on the CPU.
    """
    device = torch.device(clarid.teacher.device)
    k = clarid.resolve_k(x_te, labels)
    before = clarid.ledger.jacobian_products
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with peak_memory() as peak:
        subspace = clarid.directions(x_te, labels)
    assert subspace is not None  # kind is top
    on_gpu = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    found = {
        "k": k,
        "seconds": clarid.ledger.seconds["directions"],
        "products": clarid.ledger.jacobian_products - before,
        "memory_mb": peak(),
        "gpu_memory_mb": on_gpu,
        "process_peak_memory_mb": peak_memory_mb(),
    }
    memory = "" if found["memory_mb"] is None else f", {found['memory_mb']:.0f} MiB of memory"
    memory += "" if on_gpu is None else f", {on_gpu:.0f} MiB on the GPU"
    lines = [
        ("one basis", f"k = {k}: {found['seconds']:.2f} s, {found['products']} products{memory}"),
        ("memory", f"{found['process_peak_memory_mb']} MiB at the peak of this process"),
    ]
    return project_out(x_te, subspace.V), ("basis", found, lines)


def attention(teacher: Teacher) -> Finding:
    """Which kernels its attention ran by so far; none but a foreign family's teacher counts."""
    calls: Counter[AttentionCall] = Counter()
    if isinstance(teacher, ForeignTeacher):
        calls = teacher.attention_calls
    parts = []
    for kernel in ("flash", "math"):
        named = [
            f"{call.kind} {call.tokens} x {call.channels} ({calls[call]})"
            for call in sorted(calls)
            if call.kernel == kernel
        ]
        parts.append(f"by {kernel} {', '.join(named) or 'none'}")
    found = {"calls": [asdict(call) | {"calls": calls[call]} for call in sorted(calls)]}
    text = f"tokens x channels of a head (calls): {'; '.join(parts)}"
    return "attention", found, [("attention", text)]


def cost(clarid: Clarid, latents: Tensor, images: Tensor, labels: Tensor, count: int) -> Finding:
    """What CLARID costs: seconds of an image by stage, and `count` times their sum.

    Taken from a batch of the images, repeated where they are fewer; from as many of them as do not
    take too long, or from one alone.

    Args:
        clarid: has made the first image's round trip and found its directions, and nothing else.
        latents: the first image's, without its directions.
        images, labels: as CLARID takes them.
        count: of images, for which the cost is asked.
    """
    clarid.features(latents, labels[:1])
    clarid.sample(latents, labels[:1])
    each = {stage: clarid.ledger.seconds[stage] for stage in _STAGES}
    affordable = int(_BATCH_SECONDS / max(sum(each.values()), 1e-9))
    at_once = max(1, min(clarid.config.batch_size, count, affordable))
    if at_once > 1:
        some = torch.arange(at_once) % len(images)
        clarid.ledger = Ledger()
        clarid(images[some], labels[some])
        each = {stage: clarid.ledger.seconds[stage] / at_once for stage in _STAGES}
    one, guidance = sum(each.values()), clarid.config.guidance
    found = {
        "seconds_an_image": each,
        "images": count,
        "seconds": one * count,
        "at_once": at_once,
        "guidance": guidance,
    }
    listed = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in each.items())
    taken = f"{at_once} taken at once (`batch_size`)" if at_once > 1 else "one taken alone"
    without = "" if clarid.teacher.has_null else ", as there is no null class"
    lines = [
        ("CLARID", f"{one:.2f} s for one image ({listed})"),
        ("guidance", f"{guidance:g}{without}"),
        (
            f"{counted(count, 'image')}",
            f"about {duration(one * count)} here, extrapolated from {taken}; measures and "
            "pictures come on top",
        ),
    ]
    return "clarid", found, lines


def _times(shape: Any) -> str:
    return " x ".join(map(str, shape))
