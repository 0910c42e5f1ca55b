"""CLARID: invert, find the extraneous directions, project them out, decode with guidance.

"Canonical Latent Representations in Conditional Diffusion Models", arXiv 2506.09955. What the
paper leaves open, and what was chosen, stands in docs/method.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.clarid.clarid_config import ClaridConfig, check_config, resolve_sigma, resolve_tap
from clarep.clarid.directions import (
    energy_share,
    find_directions,
    k_for_energy,
    parse_k,
    project_out,
    random_directions,
)
from clarep.engine.arrays import Images, Labels, as_batch, as_labels, check_finite
from clarep.engine.cost import Ledger
from clarep.errors import UserError
from clarep.geometry.jacobian import Engine, Jacobian, probe_engine
from clarep.geometry.subspace import Subspace
from clarep.sampling.ode import Denoiser
from clarep.sampling.walks import decode, invert, psnr
from clarep.teachers.teacher import Teacher

__all__ = ["CLARep", "Clarid", "ClaridConfig"]


@dataclass(frozen=True)
class CLARep:
    """The canonical latent representation of one image, and what was made from it."""

    index: int
    """The image's index in its data set."""
    label: int
    """Its class."""
    sigma_te: float
    """Noise level of the latents."""
    tap: str
    """Layer of the Jacobian and the features."""
    x_te: Float[Tensor, "c h w"]
    """The inverted latent."""
    latent: Float[Tensor, "c h w"]
    """The CLARep: x_te without its extraneous directions."""
    singular_values: Float[Tensor, " k"]
    """Of the directions projected out; NaN for random ones, empty for none."""
    features: Float[Tensor, "*feature"]
    """Canonical features: the teacher's activations at the tap, given the CLARep and its class."""
    sample: Float[Tensor, "ci hi wi"]
    """Canonical sample: the CLARep decoded with guidance, about [-1, 1]."""
    round_trip_psnr: float
    """PSNR in dB of the image against itself inverted and decoded, guidance 1."""


class Clarid:
    """Finds CLAReps with one teacher and one setting.

    Images, latents and labels may lie anywhere: they are moved to the teacher's device, and what is
    returned lies on the CPU (but for `jacobian`). Images and latents are tensors or arrays of
    floats of any memory layout, labels whole numbers of any type; others are refused by every
    method.

    Args:
        teacher: any `Teacher`.
        config: the setting; single fields may be given as keywords instead.

    Attributes:
        sigma_te, tap: resolved from the setting.
        num_dirs: how many directions are projected out. Where k is a share of energy: None
            until the first call, whose first images then settle it for all.
        ledger: what all calls since it was last set anew cost.
        engine: how J V is computed; None until the first product.

    Raises:
        UserError: for a setting that does not fit the teacher, or a teacher that lacks an
            attribute.
    """

    def __init__(
        self, teacher: Teacher, config: ClaridConfig | None = None, **settings: Any
    ) -> None:
        teacher.check_attributes()
        self.teacher = teacher
        self.config = config = replace(config or ClaridConfig(), **settings)
        self.sigma_te = resolve_sigma(teacher, config)
        self.tap = resolve_tap(teacher, config.tap)
        check_config(config)
        if config.guidance != 1 or config.branch == "null":
            teacher.check_null()  # now, not after an hour
        self.num_dirs = parse_k(config.k, teacher.latent_dim)
        self.ledger = Ledger()
        self.engine: Engine | None = None

    def __call__(
        self,
        images: Images,
        labels: Labels,
        indices: list[int] | None = None,
        seed: int = 0,
    ) -> list[CLARep]:
        """Return the CLARep of each image.

        Args:
            images: of the teacher's shape, in [-1, 1].
            labels: their classes.
            indices: what to record as `CLARep.index`; 0, 1, ... by default.
            seed: of the solver's start and of random directions.

        Raises:
            UserError: for images of another shape or outside [-1, 1], labels outside the
                teacher's classes, or another number of labels or indices than of images.
        """
        images, labels = self._accepted(images, labels)
        if indices is not None and len(indices) != len(images):
            raise UserError(
                f"{len(images)} images came with {len(indices)} indices: give one for each image"
            )
        x_te, round_trip = self.invert(images, labels)
        subspace = self.directions(x_te, labels, seed)
        latents = x_te if subspace is None else project_out(x_te, subspace.V)
        features = self.features(latents, labels)
        samples = self.sample(latents, labels)
        self.ledger.images += len(images)
        values = x_te.new_zeros(len(images), 0) if subspace is None else subspace.singular_values
        return [
            CLARep(
                index=i if indices is None else indices[i],
                label=int(labels[i]),
                sigma_te=self.sigma_te,
                tap=self.tap,
                x_te=x_te[i],
                latent=latents[i],
                singular_values=values[i],
                features=features[i],
                sample=samples[i],
                round_trip_psnr=float(round_trip[i]),
            )
            for i in range(len(images))
        ]

    @torch.no_grad()
    def invert(
        self, images: Images, labels: Labels
    ) -> tuple[Float[Tensor, "batch c2 h2 w2"], Float[Tensor, " batch"]]:
        """Return x_te and the round trip's PSNR in dB, under the class and guidance 1."""
        images, labels = self._accepted(images, labels)
        device = self.teacher.device
        config, denoise = self.config, self._denoiser(labels.to(device), 1.0)
        span = (self.sigma_te, self.teacher.sigma_min, config.steps)
        with self.ledger.stage("invert"):
            x0 = self.teacher.encode(images.to(device))
            x_te = invert(denoise, x0, *span, solver=config.inversion)
        with self.ledger.stage("round trip"):
            back = decode(denoise, x_te, *span, solver=config.solver, to_sigma_min=True)
            quality = psnr(self.teacher.decode(back).cpu(), images.cpu())
        return x_te.cpu(), quality

    def jacobian(self, x: Images, labels: Labels) -> Jacobian:
        """Return the Jacobian of the features at x, under the class or the null label.

        It lies on the teacher's device, and so must what it is multiplied with.
        """
        x, labels = self._placed(x, labels)
        if self.config.branch == "null":
            labels = torch.full_like(labels, self.teacher.null_label)
        cond = self.teacher.condition(labels)
        sigma = x.new_full((len(x),), self.sigma_te)

        def features(y: Tensor) -> Tensor:
            return self.teacher.features(y, sigma, cond, self.tap)

        if self.engine is None:
            self.engine, _ = probe_engine(features, x)
        return Jacobian(features, x, self.engine, self.config.memory_mb)

    def resolve_k(self, x: Images, labels: Labels) -> int:
        """Return the number of directions; where k is a share of energy, settle it at latents x.

        Forms the dense Jacobian of up to 4 of them and takes their median.
        """
        if self.num_dirs is None:
            few = slice(4)
            with self.ledger.stage("resolve k"):
                jacobian = self.jacobian(x[few], labels[few])
                self.num_dirs = k_for_energy(jacobian, energy_share(str(self.config.k)))
            self.ledger.jacobian_products += jacobian.products * jacobian.batch
        return self.num_dirs

    def directions(self, x: Images, labels: Labels, seed: int = 0) -> Subspace | None:
        """Return the directions to project out at x, or None for kind `none`."""
        if self.config.kind == "none":
            return None
        x, labels = self._placed(x, labels)
        num_dirs = self.resolve_k(x, labels)
        generator = torch.Generator().manual_seed(seed)
        if self.config.kind == "random":
            return random_directions(x, num_dirs, generator)
        with self.ledger.stage("directions"):
            jacobian = self.jacobian(x, labels)
            subspace = find_directions(
                jacobian,
                self.config.kind,
                num_dirs,
                generator,
                measure=self.config.measure,
                tolerance=self.config.tolerance,
            )
            subspace = _on_cpu(subspace)
        self.ledger.jacobian_products += jacobian.products * len(x)
        return subspace

    @torch.no_grad()
    def features(
        self,
        x: Images,
        labels: Labels,
        branch: Literal["conditional", "null"] = "conditional",
    ) -> Float[Tensor, "batch *feature"]:
        """Return the teacher's activations at the tap, given x and its class (or no class).

        Raises UserError for the null branch of a teacher without a null class.
        """
        x, labels = self._placed(x, labels)
        if branch == "null":
            self.teacher.check_null()
            labels = torch.full_like(labels, self.teacher.null_label)
        sigma = x.new_full((len(x),), self.sigma_te)
        with self.ledger.stage("features"):
            cond = self.teacher.condition(labels)
            return self.teacher.features(x, sigma, cond, self.tap).cpu()

    @torch.no_grad()
    def sample(self, x: Images, labels: Labels) -> Float[Tensor, "batch ci hi wi"]:
        """Return x decoded with guidance, images about [-1, 1]."""
        config = self.config
        x, labels = self._placed(x, labels)
        with self.ledger.stage("sample"):
            denoise = self._denoiser(labels, config.guidance)
            span = (self.sigma_te, self.teacher.sigma_min, config.steps)
            return self.teacher.decode(decode(denoise, x, *span, solver=config.solver)).cpu()

    def _accepted(
        self, images: Images, labels: Labels
    ) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
        """Return images and labels as the teacher takes them; raise UserError for others."""
        images = self.teacher.accept_images(images)
        return images, as_labels(labels, len(images), self.teacher.num_classes, "the teacher's")

    def _placed(
        self, x: Images, labels: Labels
    ) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
        """Return latents and their labels as the teacher takes them; raise UserError for others."""
        teacher = self.teacher
        x = as_batch(x, "latents", "such as Clarid.invert gives")
        check_finite(x, "the latents", "look for NaN in what they were made of")
        if tuple(x.shape[1:]) != teacher.latent_shape:
            raise UserError(
                f"latents are {tuple(x.shape[1:])} and the teacher takes {teacher.latent_shape}: "
                "give such as Clarid.invert gives"
            )
        labels = as_labels(labels, len(x), teacher.num_classes, "the teacher's")
        return x.to(teacher.device, teacher.dtype), labels.to(teacher.device)

    def _denoiser(self, labels: Tensor, guidance: float) -> Denoiser:
        denoise: Callable[[Tensor, Tensor], Tensor] = self.teacher.denoiser(labels, guidance)
        passes = 1 if guidance == 1.0 else 2

        def counted(x: Tensor, sigma: Tensor) -> Tensor:
            self.ledger.denoiser_evaluations += passes * len(x)
            return denoise(x, sigma)

        return counted


def _on_cpu(subspace: Subspace) -> Subspace:
    """Return the same with every tensor on the CPU."""
    return replace(
        subspace,
        V=subspace.V.cpu(),
        singular_values=subspace.singular_values.cpu(),
        residuals=subspace.residuals.cpu(),
        error=subspace.error.cpu(),
    )
