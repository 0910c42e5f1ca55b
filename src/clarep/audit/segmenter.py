"""A small network that tells objects from the rest, learnt from noisy signs of single pixels."""

import copy
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

FOLDS = 4
"""Networks, each of which is not trained on its share of the images."""
SIDE = 64
"""Most pixels of an image's longer side that it is meant for."""
_MEANT = 32  # side that the dilations and shifts below are of
_WIDTH, _DILATIONS = 24, (1, 1, 2, 4, 8, 1)
_STEPS, _BATCH = 500, 32
_CHECK, _PATIENCE = 20, 80  # steps between looks at what is held out, and without a better one
_MOST = 5.0  # of a pixel's weight, in mean sizes of its image's evidence


@dataclass(frozen=True)
class Segmenter:
    """Networks of all folds, whose mean answer is taken."""

    networks: tuple[nn.Module, ...]
    """Each from images (B, C, H, W) in [-1, 1] to logits (B, 1, H, W)."""
    losses: Float[Tensor, " n"]
    """Of each image under the network that was not trained on it."""
    constant: Float[Tensor, " n"]
    """Under the best answer that is the same everywhere, known from that network's images."""

    def logits(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
        """Return the mean answer, on the CPU."""
        return torch.stack([_answers(network, images) for network in self.networks]).mean(0)


def train_segmenter(
    images: Float[Tensor, "n c h w"],
    evidence: Float[Tensor, "n h w"],
    seed: int,
    device: torch.device,
) -> Segmenter:
    """Learn from images in [-1, 1] where evidence is above 0, which may be very noisy.

    The loss of a pixel is softplus(-f sign m) min(|m| / mean |m|, 5), the mean over its image.
    """
    weights = evidence / evidence.abs().mean((1, 2), keepdim=True).clamp_min(1e-30)
    fold = torch.arange(len(images)) % FOLDS
    networks, losses, constant = [], torch.zeros(len(images)), torch.zeros(len(images))
    for held in range(FOLDS):
        out, rest = fold == held, fold != held
        seen, unseen = (images[rest], weights[rest]), (images[out], weights[out])
        network, losses[out] = _trained(seen, unseen, _seed(seed, held), device)
        networks.append(network)
        constant[out] = _losses(_constant(weights[rest]).expand_as(unseen[1]), unseen[1])
    return Segmenter(tuple(networks), losses, constant)


def _trained(
    seen: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor], seed: int, device: torch.device
) -> tuple[nn.Module, Tensor]:
    """Return a network as it was when best at the unseen images, and their losses then."""
    images, weights = seen
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(images.shape[1], max(images.shape[2:])).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    best, state, step_of_best = torch.tensor([math.inf]), network.state_dict(), 0
    for step in range(1, _STEPS + 1):
        x, w = _batch(images, weights, generator)
        network.train()
        loss = _losses(network(_laid(x, device))[:, 0], w.to(device)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % _CHECK:
            continue
        losses = _losses(_answers(network, unseen[0]), unseen[1])
        if losses.mean() < best.mean():
            best, state, step_of_best = losses, copy.deepcopy(network.state_dict()), step
        elif step - step_of_best >= _PATIENCE:
            break
    network.load_state_dict(state)
    return network, best


def _network(channels: int, side: int) -> nn.Module:
    """Return a network whose every pixel sees about a whole image around it."""
    layers: list[nn.Module] = []
    scale = max(1, round(side / _MEANT))
    for a, b in pairwise((channels, *[_WIDTH] * len(_DILATIONS))):
        dilation = _DILATIONS[len(layers) // 3]
        dilation = dilation if dilation == 1 else dilation * scale
        convolution = nn.Conv2d(a, b, 3, padding=dilation, dilation=dilation, bias=False)
        layers += [convolution, nn.BatchNorm2d(b), nn.SiLU()]
    layers.append(nn.Conv2d(_WIDTH, 1, 1))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def _batch(images: Tensor, weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw images and weights: flipped, shifted, in other colours."""
    rows = torch.randint(len(images), (_BATCH,), generator=generator)
    flipped = torch.rand(_BATCH, 1, 1, generator=generator) < 0.5
    most = max(1, round(3 * max(images.shape[2:]) / _MEANT))
    shift = [int(pixels) for pixels in torch.randint(-most, most + 1, (2,), generator=generator)]
    gain = 0.6 + 0.8 * torch.rand(_BATCH, images.shape[1], 1, 1, generator=generator)
    x, w = images[rows], weights[rows]
    x = (torch.where(flipped[:, None], x.flip(3), x) + 1) * gain - 1  # black stays black
    w = torch.where(flipped, w.flip(2), w)
    return x.roll(shift, (2, 3)), w.roll(shift, (1, 2))


def _losses(logits: Tensor, weights: Tensor) -> Float[Tensor, " n"]:
    lost = F.softplus(-logits * weights.sign()) * weights.abs().clamp(max=_MOST)
    return lost.mean((1, 2))


def _constant(weights: Tensor) -> Float[Tensor, ""]:
    """Return the logit of least loss among those that are the same everywhere."""
    size = weights.abs().clamp(max=_MOST)
    share = (size * (weights > 0)).sum() / size.sum().clamp_min(1e-30)
    return share.clamp(1e-6, 1 - 1e-6).logit()


@torch.no_grad()
def _answers(network: nn.Module, images: Tensor) -> Float[Tensor, "n h w"]:
    device = next(network.parameters()).device
    network.eval()
    return torch.cat([network(_laid(some, device))[:, 0].cpu() for some in images.split(200)])


def _laid(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device).contiguous(memory_format=torch.channels_last)


def _seed(seed: int, fold: int) -> int:
    """Return a seed that no other fold and no noise of an audit has."""
    sequence = np.random.SeedSequence([*b"segmenter", seed, fold])
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
