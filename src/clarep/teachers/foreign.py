"""What the adapters of foreign families share: parametrisation in front, hooks at the taps."""

import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from clarep.engine.tensors import check_weights, sha256_state
from clarep.errors import UserError
from clarep.teachers.flash import AttentionCall, FlashAttention
from clarep.teachers.options import (
    TeacherOptions,
    check_device,
    fingerprint_with,
    joint_fingerprint,
)
from clarep.teachers.parametrisation import Parametrisation, schedule_text
from clarep.teachers.taps import activation, output_shapes, tokens_to_map
from clarep.teachers.teacher import Teacher


class ForeignTeacher(Teacher):
    """A network of another library behind the `Teacher` interface.

    A family implements `run` and, where labels are not its condition, `condition`. Features are
    maps (B, C, h, w) at every tap: tokens are laid out on `token_grid`.
    """

    token_grid: tuple[int, int] | None = None
    """(h, w) of the patches of a transformer."""
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
        image_shape: tuple[int, int, int] | None = None,
        has_null: bool = True,
        own_labels: Sequence[int] | None = None,
    ) -> None:
        """Take a network as its checkpoint has it, in any dtype.

        tap_modules: the modules that can be tapped, by their names in the network.
        image_shape: for a latent model; a pixel model's is its latent's.
        has_null: whether the label after the last class stands for no class; without one it is
            refused, and so is guidance.
        own_labels: the network's label of each class and, last, of none; None for 0, 1, ...
        """
        self.options = options
        self.device = check_device(options.device)
        check_weights(network.state_dict(), network, "the teacher")
        self.network = network.eval().requires_grad_(False).float().to(self.device)
        self.parametrisation = parametrisation
        self.latent_shape, self.image_shape = latent_shape, image_shape or latent_shape
        self.class_names = class_names
        self.null_label, self.has_null = len(class_names), has_null
        labels = range(len(class_names) + 1) if own_labels is None else own_labels
        self._own_labels = torch.tensor(labels, device=self.device)
        self.sigma_min, self.sigma_max = parametrisation.sigma_min, parametrisation.sigma_max
        self.default_tap = default_tap
        # The schedule lies in no state dict, and another one is another teacher.
        weights = joint_fingerprint(sha256_state(network), schedule_text(parametrisation))
        self.fingerprint = fingerprint_with(options, weights, class_names)
        self.attention_calls = Counter()
        self._modules = dict(tap_modules)
        self._taps: dict[str, tuple[int, int]] | None = None

    @abstractmethod
    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        """Run the network on its own input and time; return what it predicts."""

    def check_null(self) -> None:
        """Raise UserError if every label embedding of the network is taken for a class."""
        if not self.has_null:
            raise UserError(
                "this teacher has no null class, which guidance and the null branch need: all its "
                f"{self.num_classes} label embeddings are taken for classes; use `guidance=1` and "
                "the conditional branch or, if the last one stands for no class, name the others "
                "with `class_names`"
            )

    def condition(self, labels: Int64[Tensor, " batch"]) -> Tensor:
        """Return the network's own labels."""
        if bool((labels == self.null_label).any()):
            self.check_null()
        return self._own_labels[labels.to(self.device)]

    @torch.no_grad()
    def taps(self) -> dict[str, tuple[int, int]]:
        """Return name -> (channels, stride); the first call runs the network once to see them."""
        if self._taps is None:
            x = torch.zeros(1, *self.latent_shape, device=self.device)
            sigma = x.new_full((1,), self.sigma_from_t(0.5))
            cond = self.condition(torch.zeros(1, dtype=torch.int64))
            shapes = output_shapes(self._modules, lambda: self._run(x, sigma, cond))
            side = self.latent_shape[1]
            self._taps = {name: self._tap(shape, side) for name, shape in shapes.items()}
        return self._taps

    def _tap(self, shape: torch.Size, side: int) -> tuple[int, int]:
        if len(shape) == 3 and self.token_grid is not None:
            return shape[2], side // self.token_grid[0]
        return shape[1], side // shape[2]

    def denoise(
        self, x: Float[Tensor, "batch c h w"], sigma: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        with self.fast():
            output = self._run(x, sigma, cond)
        return self.parametrisation.denoised(x, sigma, output.to(x.dtype))

    def features(
        self,
        x: Float[Tensor, "batch c h w"],
        sigma: Float[Tensor, " batch"],
        cond: Tensor,
        tap: str,
    ) -> Float[Tensor, "batch *feature"]:
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

    @contextlib.contextmanager
    def fast(self) -> Iterator[None]:
        """Compute in bfloat16 where the options ask for it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
            yield

    def _run(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        scaled, time = self.parametrisation.network_input(x, sigma)
        return self.run(scaled, time, cond)
