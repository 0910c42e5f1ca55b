"""CLARID: invert, find the extraneous directions, project them out, decode with guidance.

"Canonical Latent Representations in Conditional Diffusion Models", arXiv 2506.09955. What the
paper leaves open, and what was chosen, stands in docs/method.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.clarid.accepted import accepted, placed
from clarep.clarid.clareps import CLAReps
from clarep.clarid.clarid_config import AT_ONCE, ClaridConfig, resolved, stored_in_short
from clarep.clarid.class_directions import sparing
from clarep.clarid.directions import (
    ACROSS,
    energy_share,
    find_directions,
    k_for_energy,
    project_out,
    random_directions,
)
from clarep.engine.arrays import Images, Labels, as_index
from clarep.engine.bounds import check_seed
from clarep.engine.cost import Ledger
from clarep.engine.identity import plain
from clarep.errors import unknown_name
from clarep.geometry.compiled import CompiledJacobian, CompiledProducts, worth_compiling
from clarep.geometry.jacobian import Engine, Jacobian, probe_engine
from clarep.geometry.memory_bound import MemoryBound, usual_memory_mb
from clarep.geometry.subspace import Subspace
from clarep.sampling.ode import Denoiser, decode, invert, psnr
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import load_teacher

__all__ = ["Clarid", "ClaridConfig"]
_SEED_BITS = 63  # torch's; a set adds an image's index to a seed of 32


class Clarid:
    """Finds CLAReps with one teacher and one setting.

    Images are a tensor or an array (B, C, H, W) of uint8 in 0 to 255 or of floats in [0, 1], or a
    list of PIL images; latents are tensors or arrays of floats; labels are whole numbers or the
    teacher's names of classes. Others are refused by every method. All may lie anywhere: they are
    moved to the teacher's device, and what is returned lies on the CPU (but for `jacobian`).

    >>> import clarep
    >>> data = clarep.load_data(clarep.DataConfig(data="backdrops"))
    >>> clarid = clarep.Clarid("backdrops", k=8, steps=2, guidance=2.0)
    >>> reps = clarid(data.images([0, 1]), data.labels[:2])
    >>> reps.latent.shape, reps.sample.shape, reps.singular_values.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 3, 32, 32]), torch.Size([2, 8]))

    Args:
        teacher: any `Teacher`, or what `load_teacher` takes.
        config: the setting; single fields may be given as keywords instead. Of t and k that it
            leaves open `clarid_config.settled` says more; `auto_setting` finds them on images.

    Attributes:
        sigma_te, tap: resolved from the setting.
        num_dirs: how many directions are projected out; None where k is a share of energy, until
            the first call settles it for all.
        ledger: what all calls since it was last set anew cost.
        engine: how J V is computed; None until the first product.
        products: compiled ones of one size of batch, if asked for.
        memory: bound on a chunk of Jacobian products; it falls where memory runs out.

    Raises:
        UserError: for a setting that does not fit the teacher, or one that lacks an attribute.
    """

    def __init__(
        self, teacher: Teacher | str | Path, config: ClaridConfig | None = None, **settings: Any
    ) -> None:
        self.teacher = teacher = teacher if isinstance(teacher, Teacher) else load_teacher(teacher)
        teacher.check_attributes()
        self.config, self.sigma_te, self.tap, self.num_dirs = resolved(config, teacher, settings)
        config = self.config
        if config.guidance != 1 or "null" in (config.branch, config.inversion_label):
            teacher.check_null()  # now, not after an hour
        self.ledger = Ledger()
        self.engine: Engine | None = None
        self.products: CompiledProducts | None = None
        self.memory = MemoryBound(config.memory_mb or usual_memory_mb(teacher.device))

    def __repr__(self) -> str:
        k = f"{self.config.kind} k = {self.num_dirs or self.config.k}"
        return f"Clarid({self.teacher!r}, tap {self.tap}, sigma {self.sigma_te:.3g}, {k})"

    def __call__(
        self, images: Images, labels: Labels, indices: Sequence[int] | None = None, seed: int = 0
    ) -> CLAReps:
        """Return the CLAReps of images.

        Args:
            images: of the teacher's shape.
            labels: their classes.
            indices: what to record as `CLAReps.index`, each once; 0, 1, ... by default.
            seed: of the solver's start and of random directions.

        Raises:
            UserError: for images of another shape or range, labels outside the teacher's classes,
                another number of labels or indices than of images, or no seed.
        """
        check_seed(seed, _SEED_BITS)
        x0, classes = accepted(self.teacher, images, labels)
        index = as_index(range(len(x0)) if indices is None else indices, len(x0))
        x_te, round_trip = self.invert(images, classes)
        subspace = self.directions(x_te, classes, seed)
        latents = x_te if subspace is None else project_out(x_te, subspace.V)
        features = self.features(latents, classes)
        samples = self.sample(latents, classes)
        self.ledger.images += len(x0)
        values = x_te.new_zeros(len(x0), 0) if subspace is None else subspace.singular_values
        return CLAReps(
            index=index,
            label=classes.cpu(),
            x_te=x_te,
            latent=latents,
            singular_values=values,
            features=features,
            sample=samples,
            round_trip_psnr=round_trip.float(),
            original=x0.cpu(),
            config=self.describe(seed, len(x0)) | {"num_dirs": values.shape[1]},
        )

    def describe(self, seed: int, shard_size: int) -> dict[str, Any]:
        """Return what CLAReps of this teacher and setting follow from, as JSON values."""
        setting = stored_in_short(plain(self.config))
        return {
            "clarid": {name: setting[name] for name in setting if name not in AT_ONCE},
            "sigma_te": self.sigma_te,
            "tap": self.tap,
            "seed": seed,
            "shard_size": shard_size,
            "teacher_sha256": self.teacher.fingerprint,
            "class_names": list(self.teacher.class_names),
        }

    @torch.no_grad()
    def invert(
        self, images: Images, labels: Labels
    ) -> tuple[Float[Tensor, "batch c2 h2 w2"], Float[Tensor, " batch"]]:
        """Return x_te and the round trip's PSNR in dB, at guidance 1, of both under one label."""
        images, labels = accepted(self.teacher, images, labels)
        device, config = self.teacher.device, self.config
        denoise = self._denoiser(self._under(config.inversion_label, labels).to(device), 1.0)
        span = (self.sigma_te, self.teacher.sigma_min, config.steps)
        with self.ledger.stage("invert"):
            x0 = self.teacher.encode(images.to(device))
            x_te = invert(denoise, x0, *span, solver=config.inversion)
        with self.ledger.stage("round trip"):
            back = decode(denoise, x_te, *span, solver=config.solver, to_sigma_min=True)
            quality = psnr(self.teacher.decode(back).cpu(), images.cpu())
        return x_te.cpu(), quality

    def jacobian(
        self, x: Images, labels: Labels, across: Callable[[Tensor], Tensor] | None = None
    ) -> Jacobian:
        """Return the Jacobian of the features at x, under the class or the null label.

        It lies on the teacher's device, and so must what it is multiplied with. With `across`, an
        orthogonal projection of steps (B, C, H, W), it is J times that: 0 along all else.
        """
        x, labels = placed(self.teacher, x, labels)
        cond = self.teacher.condition(self._under(self.config.branch, labels))
        given = x.new_full((len(x),), self.sigma_te), cond
        precision = self.config.precision or "fp32"

        def features(y: Tensor) -> Tensor:
            return self._at_tap(y if across is None else x + across(y - x), *given)

        if self.engine is None:
            self.engine, _ = probe_engine(features, x, precision)
        if self.products is not None and self.engine == "forward":
            return CompiledJacobian(self.products, x, given, self.memory, across)
        return Jacobian(features, x, self.engine, self.memory, precision)

    def compile_for(self, batch: int) -> None:
        """Have Jacobian products compiled for batches of so many images; others stay eager."""
        ways, precision = worth_compiling(self.teacher.device), self.config.precision or "fp32"
        self.products = CompiledProducts(self._at_tap, batch, precision=precision, ways=ways)

    @property
    def product_engine(self) -> str | None:
        """How products are made: `engine`, or compiled."""
        made = self.engine == "forward" and (p := self.products) and p.width and not p.failure
        return "compiled" if made else self.engine

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
        check_seed(seed, _SEED_BITS)
        if self.config.kind == "none":
            return None
        x, labels = placed(self.teacher, x, labels)
        num_dirs = self.resolve_k(x, labels)
        generator = torch.Generator().manual_seed(seed)
        if self.config.kind == "random":
            return random_directions(x, num_dirs, generator)
        kind: Any
        config, kind, across = self.config, self.config.kind, None
        if config.engine_jvp == "compiled" and self.products is None:
            self.compile_for(len(x))
        bound: dict[str, Any] = {"measure": config.measure, "tolerance": config.tolerance}
        with self.ledger.stage("directions"):
            if kind in ACROSS:
                across, passes = sparing(self.teacher, x, labels, self.sigma_te, kind=kind)
                self.ledger.denoiser_evaluations += passes
                kind = "top"
            jacobian = self.jacobian(x, labels, across)
            found = find_directions(jacobian, kind, num_dirs, generator, **bound)
            on_cpu: dict[str, Any] = {
                name: value.cpu() for name, value in vars(found).items() if torch.is_tensor(value)
            }
        self.ledger.jacobian_products += jacobian.products * len(x)
        return replace(found, **on_cpu)

    @torch.no_grad()
    def features(
        self, x: Images, labels: Labels, branch: Literal["conditional", "null"] = "conditional"
    ) -> Float[Tensor, "batch *feature"]:
        """Return the teacher's activations at the tap, given x and its class (or no class).

        `batch_size` of them at a time. Raises UserError for the null branch of a teacher without a
        null class.
        """
        x, labels = placed(self.teacher, x, labels)

        def activations(x: Tensor, labels: Tensor) -> Tensor:
            sigma, cond = x.new_full((len(x),), self.sigma_te), self.teacher.condition(labels)
            return self._at_tap(x, sigma, cond)

        with self.ledger.stage("features"):
            return self._in_batches(activations, x, self._under(branch, labels))

    @torch.no_grad()
    def sample(self, x: Images, labels: Labels) -> Float[Tensor, "batch ci hi wi"]:
        """Return x decoded with guidance, images about [-1, 1]; `batch_size` of them at a time."""

        def drawn(x: Tensor, labels: Tensor) -> Tensor:
            return self.teacher.decode(self.walked_down(x, labels, self.config.guidance))

        with self.ledger.stage("sample"):
            return self._in_batches(drawn, *placed(self.teacher, x, labels))

    def walked_down(self, x: Tensor, labels: Tensor, guidance: float) -> Tensor:
        """Return latents (B, C, H, W), on the teacher's device, as clean ones under any labels."""
        span, denoise = (self.sigma_te, self.teacher.sigma_min), self._denoiser(labels, guidance)
        return decode(denoise, x, *span, self.config.steps, solver=self.config.solver)

    def _at_tap(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        return self.teacher.features(x, sigma, cond, self.tap)

    def _under(self, label: str, labels: Tensor) -> Tensor:
        """Return the labels, or the null label for each where `label` is null."""
        if label in ("class", "conditional"):
            return labels
        if label != "null":
            raise unknown_name("branch", str(label), ("conditional", "null"))
        self.teacher.check_null()
        return torch.full_like(labels, self.teacher.null_label)

    def _in_batches(
        self, work: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor
    ) -> Tensor:
        size = self.config.batch_size
        batches = zip(x.split(size), labels.split(size), strict=True)
        return torch.cat([work(*batch).cpu() for batch in batches])

    def _denoiser(self, labels: Tensor, guidance: float) -> Denoiser:
        denoise: Callable[[Tensor, Tensor], Tensor] = self.teacher.denoiser(labels, guidance)

        def counted(x: Tensor, sigma: Tensor) -> Tensor:
            self.ledger.denoiser_evaluations += (1 if guidance == 1.0 else 2) * len(x)
            return denoise(x, sigma)

        return counted
