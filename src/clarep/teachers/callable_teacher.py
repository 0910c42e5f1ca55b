"""A teacher of a user's own functions: what `Teacher.from_callable` makes."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clarep.engine.arrays import as_names
from clarep.engine.devices import check_device
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError, check_type, unknown_name
from clarep.teachers.parametrisation import Levels
from clarep.teachers.teacher import Features, Maps, Teacher

_SHAPE, _TAP = "(channels, height, width)", "(channels, stride)"
_KINDS: tuple[tuple[str, Any, str], ...] = (
    ("denoise features", Callable, "a function, as docs/teachers.md shows"),
    ("encode decode sigma_from_t", (Callable, NoneType), "a function, as docs/teachers.md shows"),
    ("latent_shape", Sequence, _SHAPE),
    ("sigma_min sigma_max", (Real, Tensor), "a number"),
    ("has_null", bool, "True or False"),
    ("null_label image_channels", (Integral, NoneType), "a whole number"),
    ("taps", Mapping, f"name -> {_TAP}"),
    ("default_tap", (str, NoneType), "a name of taps"),
    ("fingerprint", (str, nn.Module), "a module or a text"),
    ("dtype", torch.dtype, "torch.float32 or torch.float64"),
)
"""Arguments, what each is, and what to give instead."""


class CallableTeacher(Teacher):
    """Functions behind the `Teacher` interface; `Teacher.from_callable` documents each."""

    def __init__(self, **given: Any) -> None:
        """Take the arguments of `Teacher.from_callable`, every one."""
        for names, kind, mend in _KINDS:
            for name in names.split():
                check_type(name, given[name], kind, mend)
        self._denoise, self._features = given["denoise"], given["features"]
        self._encode, self._decode = given["encode"], given["decode"]
        self._sigma_from_t = given["sigma_from_t"] or (lambda t: math.tan(math.pi * t / 2))
        self._taps = dict(given["taps"])
        self.latent_shape = tuple(given["latent_shape"])
        seen = given["image_shape"] or self.latent_shape
        self.image_shape = tuple(seen) if isinstance(seen, Sequence) else seen
        if given["image_channels"] is not None:
            self._take_colour(given["image_channels"])
        self.class_names = as_names(given["class_names"], each_once=False)
        null_label = given["null_label"]
        self.null_label = len(self.class_names) if null_label is None else null_label
        self.has_null = given["has_null"]
        self.sigma_min, self.sigma_max = float(given["sigma_min"]), float(given["sigma_max"])
        self._check()
        taps, tap = list(self._taps), given["default_tap"]
        self.default_tap = taps[len(taps) // 2] if tap is None else tap
        if self.default_tap not in taps:
            raise unknown_name("default_tap", self.default_tap, taps)
        self.fingerprint = _fingerprint(given["fingerprint"])
        if isinstance(given["fingerprint"], nn.Module):
            self.network = given["fingerprint"]  # clarep.doctor counts its parameters
        self.device, self.dtype = check_device(given["device"]), given["dtype"]

    def _take_colour(self, channels: int) -> None:
        """Take RGB images, of which the model sees the mean channel."""
        if self._encode or self._decode or self.image_shape != self.latent_shape:
            raise UserError(
                "image_channels is for a model of grey pixels without encode, decode and "
                "image_shape: give these or image_channels"
            )
        if (channels, self.latent_shape[0]) != (3, 1):
            raise UserError(
                f"image_channels {channels} for a model of {self.latent_shape[0]} channels: 3 for "
                "a model of 1 is known; give encode and decode for any other"
            )
        self.image_shape = (3, *self.latent_shape[1:])
        self._encode = lambda images: images.mean(1, keepdim=True)
        self._decode = lambda grey: grey.expand(-1, 3, -1, -1)

    def _check(self) -> None:
        """Raise UserError for what would only fail once the teacher is at work."""
        shapes = {f"taps[{name!r}]": (shape, _TAP, 2) for name, shape in self._taps.items()}
        for name in ("latent_shape", "image_shape"):
            shapes[name] = getattr(self, name), _SHAPE, 3
        for name, (shape, mend, length) in shapes.items():
            whole = isinstance(shape, Sequence) and all(isinstance(one, Integral) for one in shape)
            if not whole or len(shape) != length or min(shape) < 1:
                raise UserError(f"{name} {shape!r} is none: give {mend}, each at least 1")
        if not self._taps:
            raise UserError(f"taps is empty: give name -> {_TAP} of at least one layer")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(
                f"sigma_min {self.sigma_min:g} and sigma_max {self.sigma_max:g} are no range: "
                "give 0 < sigma_min < sigma_max"
            )
        if 0 <= self.null_label < self.num_classes:
            raise UserError(
                f"null_label {self.null_label} is the class "
                f"'{self.class_names[self.null_label]}': give the label that stands for no class"
            )
        if (self._encode is None) != (self._decode is None):
            given, lacking = ("encode", "decode") if self._encode else ("decode", "encode")
            raise UserError(f"{given} is given and {lacking} is not: a latent model needs both")
        if self._encode is None and self.image_shape != self.latent_shape:
            raise UserError(
                f"image_shape {self.image_shape} is not latent_shape {self.latent_shape}: "
                "give encode and decode with it"
            )

    def taps(self) -> dict[str, tuple[int, int]]:
        return self._taps

    def condition(self, labels: Int64[Tensor, " batch"]) -> Tensor:
        return labels.to(self.device)

    def denoise(self, x: Maps, sigma: Levels, cond: Tensor) -> Maps:
        found = self._denoise(x, sigma, cond)
        if not isinstance(found, Tensor) or found.shape != x.shape:
            raise UserError(
                f"denoise gave {_kind(found)} for x of shape {tuple(x.shape)}: "
                "let it return the estimate of x_0, of x's shape"
            )
        return found

    def features(self, x: Maps, sigma: Levels, cond: Tensor, tap: str) -> Features:
        self.check_tap(tap)
        found = self._features(x, sigma, cond, tap)
        if not isinstance(found, Tensor) or found.shape[:1] != x.shape[:1]:
            raise UserError(
                f"features gave {_kind(found)} at {tap} for {len(x)} latents: "
                "let it return the activations, batch first"
            )
        channels = self._taps[tap][0]
        if found.ndim > 2 and channels not in found.shape[1:]:
            raise UserError(
                f"features gave {_kind(found)} at {tap}, where taps gives it {channels} channels: "
                "mend it there, and try the teacher with clarep.doctor"
            )
        return found

    def sigma_from_t(self, t: float) -> float:
        self.check_t(t)
        sigma = self._sigma_from_t(t)
        self.check_sigma(sigma)
        return sigma

    def encode(self, images: Maps) -> Float[Tensor, "batch c2 h2 w2"]:
        return self._encode(images) if self._encode else images

    def decode(self, latents: Maps) -> Float[Tensor, "batch c2 h2 w2"]:
        return self._decode(latents) if self._decode else latents


def _fingerprint(given: str | nn.Module) -> str:
    if isinstance(given, nn.Module):
        if given.training:
            raise UserError(
                "the module of fingerprint is in training mode, in which dropout and batch norms "
                "change from call to call: give module.eval()"
            )
        return sha256_state(given)
    if not given:
        raise UserError(
            "fingerprint is empty: give the module whose weights denoise and features use, or a "
            "text that changes with them"
        )
    return given


def _kind(found: object) -> str:
    """Say what a function returned."""
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)}"
    return f"a {type(found).__name__}"
