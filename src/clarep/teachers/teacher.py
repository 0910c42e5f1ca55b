"""The one interface that clarep has to a class-conditional diffusion model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clarep.engine.arrays import Images, as_images, as_labels
from clarep.engine.devices import Device
from clarep.engine.printable import counted
from clarep.errors import UserError, unknown_name
from clarep.sampling.ode import Denoiser
from clarep.teachers.parametrisation import Levels

Maps = Float[Tensor, "batch c h w"]
"""Images, latents or maps of features."""
Features = Float[Tensor, "batch *feature"]
"""What a layer gives for each."""


class Teacher(ABC):
    """A class-conditional diffusion model, seen as a denoiser at noise level sigma.

    Inside clarep x_sigma = x_0 + sigma * eps, whatever the model itself calls its time. Images
    and latents are float (B, C, H, W); images lie in [-1, 1]. An adapter of a foreign model
    implements the abstract methods and sets the attributes that have no default; nothing else is
    asked of it. A latent model overrides `encode` and `decode` too. `Teacher.from_callable` makes
    one of functions.
    """

    latent_shape: tuple[int, int, int]
    """(C, H, W) of x."""
    image_shape: tuple[int, int, int]
    """(C, H, W) of the images that `encode` takes."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    null_label: int
    """The label that stands for no class."""
    sigma_min: float
    """Lowest noise level of the model."""
    sigma_max: float
    """Highest noise level of the model."""
    default_tap: str
    """The tap that `mid` of a U-Net or the middle block of a transformer stands for."""
    fingerprint: str
    """SHA-256 of the weights: tells one teacher from another in every artefact."""
    has_null: bool = True
    """Whether the model knows null_label; without it there is no guidance and no null branch."""
    device: torch.device = torch.device("cpu")
    """Where its methods take and give tensors; a teacher that sets nothing runs on the CPU."""
    dtype: torch.dtype = torch.float32
    """Of the images and latents that its methods take; half precision is its own affair."""

    def __repr__(self) -> str:
        classes = counted(len(getattr(self, "class_names", ())), "class")
        latents = "x".join(map(str, getattr(self, "latent_shape", ())))
        return f"{type(self).__name__}({classes}, latents {latents})"

    @property
    def num_classes(self) -> int:
        """Number of classes, the null label not counted."""
        return len(self.class_names)

    @property
    def latent_dim(self) -> int:
        """Dimension of x, C * H * W."""
        return math.prod(self.latent_shape)

    @abstractmethod
    def taps(self) -> dict[str, tuple[int, int]]:
        """Return name -> (channels, stride in pixels of x) of every layer that can be tapped."""

    @abstractmethod
    def condition(self, labels: Int64[Tensor, " batch"]) -> Tensor:
        """Return what `denoise` and `features` take as `cond`: one entry a label, batch first."""

    @abstractmethod
    def denoise(self, x: Maps, sigma: Levels, cond: Tensor) -> Maps:
        """Return the estimate of x_0 from x at noise level sigma."""

    @abstractmethod
    def features(self, x: Maps, sigma: Levels, cond: Tensor, tap: str) -> Features:
        """Return the activations at `tap`; the forward pass stops there."""

    @abstractmethod
    def sigma_from_t(self, t: float) -> float:
        """Return the noise level at share t in [0, 1] of the model's own time axis."""

    def encode(self, images: Maps) -> Float[Tensor, "batch c2 h2 w2"]:
        """Map images in [-1, 1] to clean latents; the identity for a pixel model."""
        return images

    def decode(self, latents: Maps) -> Float[Tensor, "batch c2 h2 w2"]:
        """Map clean latents to images, about [-1, 1]; the identity for a pixel model."""
        return latents

    @staticmethod
    def from_callable(
        denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
        features: Callable[[Tensor, Tensor, Tensor, str], Tensor],
        *,
        latent_shape: tuple[int, int, int],
        class_names: Sequence[str],
        sigma_min: float,
        sigma_max: float,
        taps: Mapping[str, tuple[int, int]],
        fingerprint: str | nn.Module,
        default_tap: str | None = None,
        null_label: int | None = None,
        has_null: bool = True,
        sigma_from_t: Callable[[float], float] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        encode: Callable[[Tensor], Tensor] | None = None,
        decode: Callable[[Tensor], Tensor] | None = None,
        image_channels: int | None = None,
        device: Device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Teacher":
        """Make a teacher of a model's functions, which work on x = x_0 + sigma * eps.

        Args:
            denoise: x (B, C, H, W), sigma (B,), labels (B,) int64 -> estimate of x_0.
            features: x, sigma, labels, tap -> activations there, batch first, differentiable in
                x; image b's must depend on x_b alone. Best it stops at the tap.
            latent_shape: (C, H, W) of x.
            class_names: in the order of the labels.
            sigma_min: the least noise level that the model knows.
            sigma_max: the greatest.
            taps: name -> (channels, stride in pixels of x) of each layer that features knows.
            fingerprint: the module whose weights the functions use, or a text that changes with
                them: a canonical set is bound to it.
            default_tap: the tap that `mid` stands for; without it the middle one of taps.
            null_label: the label of no class; without it, the number of classes.
            has_null: whether the model knows that label; False leaves guidance out.
            sigma_from_t: noise level at share t in (0, 1) of the model's time; without it
                tan(pi t / 2), as of the bundled teachers, whatever sigma_min and sigma_max.
            image_shape: of a latent model, (C, H, W) of its images.
            encode: of a latent model, images in [-1, 1] to clean latents.
            decode: of a latent model, clean latents to images.
            image_channels: 3 for a model of grey pixels in [-1, 1], latent_shape (1, H, W), that
                is to take RGB images, as clarep loads all data: it sees their mean channel.
            device: where the functions take and give tensors; the model must be there.
            dtype: of the tensors that they take, float32 or float64.

        Raises:
            UserError: for values that do not fit each other; while at work, for a function that
                returns no tensor of the right shape.
        """
        given = locals()  # CallableTeacher takes the same, by the same names
        from clarep.teachers.callable_teacher import CallableTeacher  # a subclass of this one

        return CallableTeacher(**given)

    def denoiser(self, labels: Int64[Tensor, " batch"], guidance: float = 1.0) -> Denoiser:
        """Return the denoiser under labels (B,) and classifier-free guidance.

        D = D_null + guidance * (D_label - D_null), Ho & Salimans 2022 (arXiv 2207.12598); a
        guidance of 1 costs one evaluation, any other two.
        """
        cond = self.condition(labels)
        if guidance == 1.0:
            return lambda x, sigma: self.denoise(x, sigma, cond)
        self.check_null()
        both = torch.cat([self.condition(torch.full_like(labels, self.null_label)), cond])

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            null, given = self.denoise(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
            return self.guide(null, given, guidance)

        return guided

    def guide(self, null: Maps, given: Maps, guidance: float) -> Maps:
        """Return the guided estimate from those given no class and given the class."""
        return null + guidance * (given - null)

    def check_attributes(self) -> None:
        """Raise UserError if the subclass left an attribute out."""
        lacking = [name for name in Teacher.__annotations__ if not hasattr(self, name)]
        if lacking:
            raise UserError(
                f"the teacher {type(self).__name__} lacks {', '.join(lacking)}: set every "
                "attribute of clarep.Teacher (docs/teachers.md lists them)"
            )

    def check_null(self) -> None:
        """Raise UserError if the model has no null class."""
        if not self.has_null:
            raise UserError(
                "this teacher has no null class, which guidance, the null branch and inversion "
                "under null need: use `guidance=1`, the conditional branch and "
                "`inversion_label=class`"
            )

    def check_tap(self, tap: str) -> None:
        """Raise UserError if there is no such tap."""
        if tap not in self.taps():
            raise unknown_name("tap", tap, self.taps())

    def check_sigma(self, sigma: float) -> None:
        """Raise UserError if sigma is outside the range the model was trained on."""
        if not self.sigma_min < sigma <= self.sigma_max:
            raise UserError(
                f"sigma {sigma:g} is outside the teacher's range "
                f"({self.sigma_min:g}, {self.sigma_max:g}]: choose one inside"
            )

    def check_t(self, t: float) -> None:
        """Raise UserError if t is outside (0, 1)."""
        if not 0 < t < 1:
            raise UserError(
                f"t {t:g} is outside (0, 1): give a share of the teacher's time axis, such as 0.85"
            )

    def check_rises(self) -> None:
        """Raise UserError if `sigma_from_t` does not rise between any two of five values of t."""
        known: list[tuple[float, float]] = []
        for t in (0.1, 0.3, 0.5, 0.7, 0.9):
            with suppress(Exception):  # outside of what it was trained on, or can be asked
                known.append((t, self.sigma_from_t(t)))
        for (before, low), (t, sigma) in pairwise(known):
            if not low < sigma:
                raise UserError(
                    f"sigma_from_t is {low:g} at t = {before} and {sigma:g} at t = {t}: let it "
                    "rise with t, from data to noise, and try the teacher with clarep.doctor; or "
                    "give `sigma` in place of `t`"
                )

    def check_labels(self, labels: Int64[Tensor, " batch"]) -> None:
        """Raise UserError if a label is not one of the teacher's classes."""
        as_labels(labels, len(labels), self.num_classes, "the teacher's")

    def accept_images(self, images: Images) -> Maps:
        """Return images of its shape and in [-1, 1] in its dtype; raise UserError for others."""
        images = as_images(images, -1, "clarep.to_unit_range makes them of uint8")
        if tuple(images.shape[1:]) != self.image_shape:
            want, got = self.image_shape, tuple(images.shape[1:])
            mend = (
                "give the channels first, images.permute(0, 3, 1, 2)"
                if got == (*want[1:], want[0])
                else f"load the data with `image_size={want[1]}`, which makes it RGB and resizes "
                f"it, or bring images of your own to {want[2]}x{want[1]} (PIL's resize)"
                if want[0] == 3
                else "choose a teacher of RGB images, which is how clarep loads all data, or make "
                "one of a grey model by Teacher.from_callable(..., image_channels=3)"
            )
            raise UserError(
                f"images are {got[0]}x{got[1]}x{got[2]} (channels x height x width) and the "
                f"teacher takes {want[0]}x{want[1]}x{want[2]}: {mend}"
            )
        return images.to(self.dtype)
