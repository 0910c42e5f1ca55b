"""A network of another library as a teacher: what every family shares."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from clarep.engine.devices import check_device
from clarep.engine.tensors import check_weights, sha256_state
from clarep.errors import UserError
from clarep.teachers.flash import AttentionCall, FlashAttention
from clarep.teachers.options import TeacherOptions, fingerprint_with, joint_fingerprint
from clarep.teachers.parametrisation import Levels, Parametrisation
from clarep.teachers.teacher import Features, Maps, Teacher


class ForeignTeacher(Teacher):
    """A network of another library behind the `Teacher` interface, of pixels or of VAE latents.

    The network is called with its input, its time (B,) and the conditions of the labels; a family
    whose network is called otherwise overrides `run`. Features are maps (B, C, h, w), tokens laid
    out on `token_grid`, or flat (B, D), as the tapped module gives them.
    """

    token_grid: tuple[int, int] | None = None
    """(h, w) of the patches of a transformer."""
    vae: Any = None
    """Diffusers' `AutoencoderKL` of a latent model. `encode` takes the posterior's mode, so that
    the same image always has the same latent."""
    attention_calls: Counter[AttentionCall]
    """With attention flash: which calls `features` has made, and how often."""

    def __init__(
        self,
        network: nn.Module,
        parametrisation: Parametrisation,
        options: TeacherOptions,
        *,
        latent_shape: tuple[int, int, int],
        class_names: tuple[str, ...],
        default_tap: str,
        tap_modules: Mapping[str, nn.Module],
        conditions: Shaped[Tensor, "classes_and_none *condition"] | None = None,
        has_null: bool = True,
        vae: Any = None,
        token_grid: tuple[int, int] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Take network and autoencoder as their checkpoints have them, in any dtype.

        tap_modules: the modules that can be tapped, by their names in the network.
        conditions: what the network takes for each class and, last, for none; without them
            the labels themselves.
        has_null: whether that for none is known to the network; otherwise it is refused, and so
            is guidance.
        settings: what changes the teacher beside its weights; they enter the fingerprint.

        Raises UserError if weights are not finite, or latents of the VAE are not the network's.
        """
        self.options = options
        self.device = check_device(options.device)
        self.network = self._adopted(network, "the teacher").to(self.device)
        self.parametrisation = parametrisation
        self.sigma_min, self.sigma_max = parametrisation.sigma_min, parametrisation.sigma_max
        self.latent_shape = self.image_shape = latent_shape
        self.class_names, self.null_label = class_names, len(class_names)
        self.has_null = has_null
        if conditions is None:
            conditions = torch.arange(len(class_names) + 1)
        self._conditions = conditions.to(self.device)
        self.default_tap = default_tap
        if token_grid is not None:
            self.token_grid = token_grid
        # The schedule lies in no state dict, and another one is another teacher.
        weights = joint_fingerprint(sha256_state(network), parametrisation.identity)
        self.fingerprint = fingerprint_with(options, weights, class_names)
        if settings is not None:
            said = json.dumps(settings, sort_keys=True)
            self.fingerprint = joint_fingerprint(self.fingerprint, said)
        if vae is not None:
            self._adopt_vae(vae)
        self.attention_calls = Counter()
        self._modules = dict(tap_modules)
        self._taps: dict[str, tuple[int, int]] | None = None

    @staticmethod
    def _adopted(network: Any, what: str) -> Any:
        check_weights(network.state_dict(), network, what)
        return network.eval().requires_grad_(False).float()

    def _adopt_vae(self, vae: Any) -> None:
        channels, height, width = self.latent_shape
        if vae.config.latent_channels != channels:
            raise UserError(
                f"the VAE's latents have {vae.config.latent_channels} channels and the network "
                f"takes {channels}: give a checkpoint whose parts belong together"
            )
        factor = 2 ** (len(vae.config.block_out_channels) - 1)  # every block but the last halves
        self.image_shape = (vae.config.in_channels, height * factor, width * factor)
        if self.options.vae_slicing:
            vae.enable_slicing()
        self.vae = self._adopted(vae, "the autoencoder")
        self.fingerprint = joint_fingerprint(self.fingerprint, sha256_state(vae))
        if not self.options.offload:
            self.vae.to(self.device)

    def run(self, x: Maps, time: Levels, cond: Tensor) -> Maps:
        """Run the network on its own input and time; return what it predicts."""
        output = self.network(x, time, cond.to(x.dtype) if cond.is_floating_point() else cond)
        predicted: Tensor = getattr(output, "sample", output)  # diffusers' wrap it
        return predicted[:, : x.shape[1]]  # the others are a learned variance, which no ODE needs

    def check_null(self) -> None:
        """Raise UserError if the network knows no null class."""
        if not self.has_null:
            raise UserError(
                "this teacher has no null class, which guidance, the null branch and inversion "
                "under null need: it was trained without dropping labels, or all its "
                f"{self.num_classes} label embeddings are taken for classes; use `guidance=1`, the "
                "conditional branch and `inversion_label=class` or, if the last one stands for no "
                "class, name the others with `class_names`"
            )

    def condition(self, labels: Int64[Tensor, " batch"]) -> Shaped[Tensor, "batch *condition"]:
        if bool((labels == self.null_label).any()):
            self.check_null()
        return self._conditions[labels.to(self.device)]

    @torch.no_grad()
    def taps(self) -> dict[str, tuple[int, int]]:
        """Return name -> (channels, stride); the first call runs the network once to see them."""
        if self._taps is None:
            x = torch.zeros(1, *self.latent_shape, device=self.device)
            sigma = x.new_full((1,), self.sigma_from_t(0.5))
            cond = self.condition(torch.zeros(1, dtype=torch.int64))
            shapes = output_shapes(self._modules, lambda: self._run(x, sigma, cond))
            self._taps = {name: self._tap(shape) for name, shape in shapes.items()}
        return self._taps

    def _tap(self, shape: torch.Size) -> tuple[int, int]:
        side = self.latent_shape[1]
        if len(shape) == 3 and self.token_grid is not None:
            return shape[2], side // self.token_grid[0]
        return shape[1], side // shape[2] if len(shape) > 2 else side  # flat: of the whole latent

    def denoise(self, x: Maps, sigma: Levels, cond: Tensor) -> Maps:
        with self._fast():
            output = self._run(x, sigma, cond)
        return self.parametrisation.denoised(x, sigma, output.to(x.dtype))

    def guide(self, null: Maps, given: Maps, guidance: float) -> Maps:
        """Return the guided estimate, in all channels or, as DiT's authors' code has it, in three.

        There (`forward_with_cfg` of facebookresearch/DiT) the others stay as given the class.
        """
        guided = super().guide(null, given, guidance)
        if self.options.guided_channels == "all":
            return guided
        return torch.cat([guided[:, :3], given[:, 3:]], dim=1)

    def features(self, x: Maps, sigma: Levels, cond: Tensor, tap: str) -> Features:
        self.check_tap(tap)
        flash = self.options.attention == "flash"
        with FlashAttention(self.attention_calls) if flash else contextlib.nullcontext():
            found = activation(self._modules[tap], lambda: self._run(x, sigma, cond))
        if found.ndim == 3 and self.token_grid is not None:
            return tokens_to_map(found, self.token_grid)
        return found

    def sigma_from_t(self, t: float) -> float:
        self.check_t(t)
        return self.parametrisation.sigma_from_t(t)

    def encode(self, images: Maps) -> Float[Tensor, "batch c2 h2 w2"]:
        if self.vae is None:
            return images
        with self._vae_at_work() as (shift, scale):
            mode = self.vae.encode(images.to(self.device)).latent_dist.mode()
        latents: Tensor = (mode.float() - shift) * scale
        return latents

    def decode(self, latents: Maps) -> Float[Tensor, "batch c2 h2 w2"]:
        if self.vae is None:
            return latents
        with self._vae_at_work() as (shift, scale):
            images: Tensor = self.vae.decode(latents / scale + shift).sample
        return images.float()

    @contextlib.contextmanager
    def _vae_at_work(self) -> Iterator[tuple[float, float]]:
        """Bring the VAE to the device while it is in use; give its latents' shift and scale."""
        config = self.vae.config
        self.vae.to(self.device)
        try:
            with self._fast():
                yield getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
        finally:
            if self.options.offload:
                self.vae.to("cpu")

    @contextlib.contextmanager
    def _fast(self) -> Iterator[None]:
        """Compute in bfloat16 where the options ask for it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
            yield

    def _run(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        scaled, time = self.parametrisation.network_input(x, sigma)
        return self.run(scaled, time, cond)


class _ReachedError(Exception):
    """Carries a module's output out of the network's forward pass."""


def activation(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Return what `module` gives while `run()` runs the network; the pass stops there.

    Of a module that returns a tuple, as diffusers' blocks do, the first entry. Differentiable
    in whatever the network is differentiable in. Raises RuntimeError if `run` never gets there.
    """

    def stop(_module: nn.Module, _inputs: object, output: Any) -> None:
        raise _ReachedError(output)

    handle = module.register_forward_hook(stop)
    try:
        run()
    except _ReachedError as reached:
        output = reached.args[0]
    else:
        raise RuntimeError("the forward pass does not run the tapped module")
    finally:
        handle.remove()
    found = _tensor(output)
    if found is None:
        raise RuntimeError(f"the tapped module returns {type(output).__name__}, not a tensor")
    return found


@torch.no_grad()
def output_shapes(
    modules: Mapping[str, nn.Module], run: Callable[[], object]
) -> dict[str, torch.Size]:
    """Return name -> shape of what each module gives in one pass, in the order of the pass.

    A module that does not run, or gives no tensor, is left out; of one that runs more than once
    the first output counts, as in `activation`.
    """
    shapes: dict[str, torch.Size] = {}

    def note(name: str, output: Any) -> None:
        found = _tensor(output)
        if found is not None:
            shapes.setdefault(name, found.shape)

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
        for name, module in modules.items()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _tensor(output: Any) -> Tensor | None:
    first = output[0] if isinstance(output, tuple | list) else output
    return first if isinstance(first, Tensor) else None


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return tokens (B, N, C) as a map (B, C, h, w); tokens ahead of the last h * w are dropped.

    Those ahead stand for time and class where a transformer has such tokens.
    """
    height, width = grid
    as_map: Tensor = tokens[:, -height * width :].mT.unflatten(2, (height, width))
    return as_map
