"""`Threat`: what an attacker may do to an image, and the geometry of that set."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.errors import UserError, unknown_name
from clarep.robustness.attacks.shapes import Batch, Values

Norm = Literal["linf", "l2"]
NORMS: tuple[Norm, ...] = ("linf", "l2")
_ROUNDS = 32  # of the L2 projection; it ends by itself after three or so


@dataclass(frozen=True)
class Threat:
    """All images within `eps` of the original in one norm, and within [0, 1]."""

    norm: Norm
    """linf: largest change of a value; l2: Euclidean length of the change over all values."""
    eps: float
    """Radius, in units of pixel values in [0, 1]; 0 leaves the image as it is."""

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS)
        _check_radius("eps", self.eps)
        if self.norm == "linf" and self.eps > 1:
            raise UserError(
                f"eps {self.eps:g} is above 1, the whole range of a pixel: its unit is that of "
                f"pixels in [0, 1], so give {self.eps:g}/255, or Threat.of_eps_255({self.eps:g})"
            )

    @classmethod
    def of_eps_255(cls, eps_255: float) -> "Threat":
        """Build the L-infinity threat of a radius in steps of 1/255; raises UserError."""
        check_eps_255(eps_255)
        return cls("linf", eps_255 / 255)

    @classmethod
    def of_eps_l2(cls, eps_l2: float, image_shape: tuple[int, ...]) -> "Threat":
        """Build the L2 threat of a radius in units of [0, 1] pixels; raises UserError."""
        check_eps_l2(eps_l2, image_shape)
        return cls("l2", eps_l2)

    @property
    def setting(self) -> str:
        """The radius as a measurement's key has it: eps_255=2, or eps_l2=0.5."""
        if self.norm == "linf":
            return f"eps_255={self.eps * 255:g}"
        return f"eps_l2={self.eps:g}"

    def project(self, moved: Batch, x: Batch) -> Batch:
        """Return the nearest point (Euclidean) of the set around x in [0, 1] to each `moved`."""
        if self.norm == "linf":
            # The least and the most of every value.
            return moved.maximum((x - self.eps).clamp_min(0)).minimum((x + self.eps).clamp_max(1))
        change = moved - x
        room = torch.where(change > 0, 1 - x, x)  # up to the wall of [0, 1]
        scale = _largest_scale(change.flatten(1).abs(), room.flatten(1), self.eps)
        return (x + scale.view(-1, 1, 1, 1) * change).clamp(0, 1)

    def random_start(self, x: Batch, generator: torch.Generator) -> Batch:
        """Return a random point around each x: uniform in the ball, then into [0, 1].

        The noise is drawn on the generator's device: the same on every machine for one on the CPU.
        """
        if self.norm == "linf":
            noise = torch.rand(x.shape, generator=generator, device=generator.device) * 2 - 1
        else:
            noise = torch.randn(x.shape, generator=generator, device=generator.device)
            radius = torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device)
            noise = steepest(noise, "l2") * radius ** (1 / max(1, x[0].numel()))
        return self.project(x + self.eps * noise.to(x), x)

    def size(self, x_adv: Batch, x: Batch) -> Values:
        """Return the norm of each change, in float64."""
        change = (x_adv.double() - x.double()).flatten(1)
        if self.norm == "linf":
            return change.abs().amax(dim=1)
        length: Tensor = torch.linalg.vector_norm(change, dim=1)
        return length


def steepest(grad: Batch, norm: Norm) -> Batch:
    """Return the change of norm 1 along which the loss rises fastest; 0 where grad is 0."""
    if norm == "linf":
        return grad.sign()
    flat = grad.flatten(1)
    tiny = torch.finfo(grad.dtype).tiny
    # Squares of small gradients underflow: first to a largest value of 1.
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(tiny)
    length: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return (flat / length.clamp_min(tiny)).view_as(grad)


def _largest_scale(
    change: Float[Tensor, "batch n"], room: Float[Tensor, "batch n"], eps: float
) -> Values:
    """Return for each row the largest s <= 1 with || min(s * change, room) || <= eps.

    By the optimality conditions, x + that s * change, clipped, is the nearest point of ball and
    box at once. s rises: values that hit the wall leave length to the others, and every round
    solves exactly for the values that had not hit it in the last.
    """
    given, change, room = change.dtype, change.double(), room.double()
    scale = _solve(change.square().sum(dim=1), torch.zeros_like(change[:, 0]), eps)
    for _ in range(_ROUNDS):
        stopped = scale[:, None] * change > room
        free = torch.where(stopped, 0, change).square().sum(dim=1)
        taken = torch.where(stopped, room, 0).square().sum(dim=1)
        further = _solve(free, taken, eps).maximum(scale)
        if torch.equal(further, scale):
            break
        scale = further
    return scale.to(given)


def _solve(free: Values, taken: Values, eps: float) -> Values:
    """Return the s in [0, 1] at which s^2 * free + taken = eps^2, or 1 if there is no such s."""
    left = (eps**2 - taken).clamp_min(0)
    return torch.where(free > left, left / free.clamp_min(1e-300), 1).sqrt()


def check_eps_255(eps_255: float) -> None:
    """Raise UserError unless eps_255 is an L-infinity radius in steps of 1/255."""
    _check_radius("eps_255", eps_255)
    if eps_255 > 255:
        raise UserError(
            f"`eps_255={eps_255:g}` is above 255, the whole range of a pixel: its unit is one step "
            "of 0-255, so give 2, say"
        )


def check_eps_l2(eps_l2: float, image_shape: tuple[int, ...] | None = None) -> None:
    """Raise UserError unless eps_l2 is a radius that images of that shape have room for."""
    _check_radius("eps_l2", eps_l2)
    if image_shape is None:
        return
    diameter = math.sqrt(math.prod(image_shape))
    if eps_l2 > diameter:
        shape = "x".join(str(size) for size in image_shape)
        raise UserError(
            f"`eps_l2={eps_l2:g}` is above {diameter:.1f}, the distance of a black {shape} image "
            "from a white one: its unit is that of pixels in [0, 1], so give 0.5, say"
        )


def _check_radius(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise UserError(f"`{name}={value}` is no radius: give a finite number from 0 up")
