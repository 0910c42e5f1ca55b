"""One step of training: what is drawn for it, and what it does to the weights."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clarep.data.held_out import Indices
from clarep.distill.augment import draw_views, to_student_range
from clarep.distill.canonical_batches import CanonicalImages
from clarep.distill.distill_config import DistillConfig
from clarep.distill.methods import Batch
from clarep.distill.train_data import TrainImages, seed_of
from clarep.distill.train_state import TrainState, learning_rate
from clarep.errors import UserError


@dataclass(frozen=True)
class BatchDrawer:
    """Draws the views of a step, and the canonical samples beside them, by seed and step alone."""

    config: DistillConfig
    """How to train."""
    images: TrainImages
    """What is trained on."""
    canonical: CanonicalImages | None
    """The canonical set, on the device."""
    accelerator: Any
    """Whose processes share the step."""

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        device: torch.device = self.accelerator.device
        return device

    def batch(self, images: Tensor, positions: Indices, epoch: int, step: int, steps: int) -> Batch:
        """Return step `step` of `steps` of an epoch, for this process.

        images, positions: uint8 (B, C, H, W), and which of the training images they are.
        """
        config = self.config
        key = (config.seed, epoch, step, self.accelerator.process_index)
        seed = seed_of("views", *key)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # what dropout inside a student draws from
        canonical = views = None
        if self.canonical is not None:
            count = max(2, round(config.canonical_batch / self.accelerator.num_processes))
            index = self.images.data_index(positions)
            canonical = self.canonical.draw(index, count, seed_of("canonical", *key))
            views = to_student_range(draw_views(canonical.images, config, generator))
        return Batch(
            to_student_range(draw_views(images.to(self.device), config, generator)),
            self.images.labels[torch.from_numpy(positions)].to(self.device),
            torch.from_numpy(positions).to(self.device),
            epoch + (step + 0.5) / steps,
            generator,
            canonical,
            views,
        )


def take_step(
    state: TrainState, wrapped: nn.Module, batch: Batch, accelerator: Any
) -> dict[str, float]:
    """Take one step; returns the loss and its terms, means over the processes.

    wrapped: the method as accelerate prepared it. Raises UserError, before any weight changes,
    if the loss or its gradient is not finite.
    """
    config = state.method.config
    state.method.train()
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(config, batch.epoch)
    terms = wrapped(batch)
    state.optimiser.zero_grad()
    accelerator.backward(state.scaler.scale(terms["loss"]))
    state.scaler.unscale_(state.optimiser)
    norm = torch.nn.utils.clip_grad_norm_(state.method.parameters(), config.clip_norm)
    values = torch.stack([*(term.detach() for term in terms.values()), norm])
    *losses, size = accelerator.reduce(values, "mean").tolist()
    # A scaler meets infinite gradients by design, and skips their steps.
    if not (math.isfinite(losses[-1]) and (math.isfinite(size) or state.scaler.is_enabled())):
        raise UserError(
            f"the loss is {losses[-1]} and its gradient's norm {size} in epoch "
            f"{state.epoch + 1}: lower `learning_rate` and give another `out`"
        )
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.update_average()
    return dict(zip(terms, losses, strict=True))
