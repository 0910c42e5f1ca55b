"""Does the student look at the object? Shares of saliency inside the known foreground."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from clarep.data.foregrounds import Separated
from clarep.robustness.attacks.shapes import Batch, Classes, Values
from clarep.robustness.evaluation import Measured, mean_of
from clarep.robustness.tested_student import Subject, as_float, batches, named

IG_STEPS = 32
_BATCH = 50  # images whose gradients are taken at once

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]


def input_gradient(model: nn.Module, x: Batch, labels: Classes) -> Batch:
    """Return the gradient of each image's logit of its label with respect to the image.

    Simonyan et al. 2014 (arXiv 1312.6034).
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        chosen = model(leaf).gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, leaf)
    return gradient.detach()


def integrated_gradients(
    model: nn.Module, x: Batch, labels: Classes, steps: int = IG_STEPS
) -> Batch:
    """Return each pixel's part in the logit's rise from black to the image.

    Sundararajan et al. 2017 (arXiv 1703.01365): baseline black, the integral over the straight
    way by the midpoint rule. The parts sum to logit(x) - logit(black), up to that rule's error.
    """
    total = torch.zeros_like(x)
    for step in range(steps):
        total += input_gradient(model, x * ((step + 0.5) / steps), labels)
    return x * total / steps


def energy_share(saliency: Batch, masks: Bool[Tensor, "batch h w"]) -> Values:
    """Return the share of squared saliency, over all channels, that lies inside the mask.

    Where the saliency is zero everywhere it is the mask's share of the area: no preference.
    """
    energy = saliency.double().square().sum(dim=1)  # (B, C, H, W) -> (B, H, W)
    inside = (energy * masks).sum(dim=(1, 2))
    total = energy.sum(dim=(1, 2))
    area = masks.double().mean(dim=(1, 2))
    return torch.where(total > 0, inside / total.clamp_min(torch.finfo(total.dtype).tiny), area)


def focus_measures(subject: Subject, parts: Separated, indices: NDArray[np.int64]) -> Measured:
    """Return the mean shares of saliency inside the mask, and the mask's share of the area.

    Saliency is that of the class which the student predicts, right or wrong. A share equal to
    the area's says that the student looks at the object no more than at anything else.
    """
    assert parts.masks is not None
    values: dict[str, list[Tensor]] = {}
    explained: dict[str, Explain] = {
        "focus/input_gradient": input_gradient,
        "focus/integrated_gradients": integrated_gradients,
    }
    for start in range(0, len(indices), _BATCH):
        at = indices[start : start + _BATCH]
        masks = parts.masks(at)
        original = parts.variants["original"]
        images = original.images(at)
        predicted = subject.predict(images, named(original, at))
        subject.sources = named(original, at)
        for key, explain in explained.items():
            saliency = explain(subject, as_float(images), predicted)
            values.setdefault(key, []).append(energy_share(saliency, masks))
        values.setdefault("focus/area", []).append(masks.double().mean(dim=(1, 2)))
    arrays = {key: torch.cat(shares).float() for key, shares in values.items()}
    measurements = [mean_of(key, shares) for key, shares in arrays.items()]
    return Measured(measurements, arrays | {"focus/index": torch.from_numpy(indices)})


def saliency_maps(
    subject: Subject, images: UInt8[Tensor, "batch c h w"]
) -> Float[Tensor, "batch h w"]:
    """Return the length of the input gradient of the predicted logit at every pixel."""
    parts = []
    for part in batches(np.arange(len(images))):
        shown = images[torch.from_numpy(part)]
        parts.append(input_gradient(subject, as_float(shown), subject.predict(shown)).norm(dim=1))
    return torch.cat(parts)
