"""CW-L2: the nearest error of an image (Carlini & Wagner 2017, arXiv 1608.04644)."""

from typing import NamedTuple

import torch
from torch import Tensor

from clarep.engine.arrays import Images, Labels
from clarep.robustness.attacks.passes import (
    BATCH,
    Model,
    accepted,
    ascend,
    check_counts,
    evaluating,
    logits_of,
    margin,
    still_right,
)
from clarep.robustness.attacks.shapes import Batch, Classes, Values

_INSIDE = 0.99  # black and white are at infinite w; from nearer to them Adam needs many steps
_FIRST_WEIGHT = 1e-1
_GROWTH = 10.0  # of a weight with which nothing was found, while no weight has found anything
_LEARNING_RATE = 0.05  # of Adam, in units of w
_ADAM = (0.9, 0.999, 1e-30)  # eps: gradients with respect to w of dark pixels are tiny
_HALVINGS = 8  # of the way back to the image


class Nearest(NamedTuple):
    """What `cw_l2` found."""

    x_adv: Batch
    """The nearest misclassified image found; the image itself where none was."""
    distance: Values
    """Its L2 distance: 0 for an image that was wrong already, infinite where none was found."""


def cw_l2(
    model: Model,
    x: Images,
    y: Labels,
    *,
    steps: int = 100,
    searches: int = 6,
    batch_size: int = BATCH,
) -> Nearest:
    """Look for the nearest misclassified image in [0, 1] of each, in L2.

    Minimises ||x' - x||^2 + c * max(z_y - max_{i != y} z_i, 0) over w, with
    x' = (tanh(w) + 1) / 2, by Adam; c by binary search for each image. In the end each x' is moved
    back along the line to x as far as it stays misclassified (ours). Nothing is random.

    Args:
        steps: steps of Adam for each c.
        searches: how many c are tried.
    """
    check_counts(steps=steps, searches=searches, batch_size=batch_size)
    x, y = accepted(model, x, y)
    x_adv = x.clone()
    distance = x.new_zeros(len(x))
    with evaluating(model):
        at = still_right(model, x, y, batch_size).nonzero().flatten()
        for part in at.split(batch_size):
            search = _Search(model, x[part], y[part])
            for _ in range(searches):
                search.descend(steps)
                search.choose_weights()
            search.move_back()
            x_adv[part], distance[part] = search.best, search.distance
    return Nearest(x_adv, distance)


class _Search:
    """The binary search over c for one batch."""

    def __init__(self, model: Model, x: Batch, y: Classes) -> None:
        self._model, self._x, self._y = model, x, y
        self.best = x.clone()
        self.distance = x.new_full((len(x),), torch.inf)
        self._weight = torch.full_like(self.distance, _FIRST_WEIGHT)
        self._low = torch.zeros_like(self.distance)
        self._high = torch.full_like(self.distance, torch.inf)
        self._found = torch.zeros_like(y, dtype=torch.bool)

    def descend(self, steps: int) -> None:
        """Run Adam from the images, with the weights as they are."""
        w = torch.atanh((2 * self._x - 1) * _INSIDE)
        beta1, beta2, eps = _ADAM
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        self._found = torch.zeros_like(self._found)
        for step in range(1, steps + 1):
            grad = self._look(w)
            mean = beta1 * mean + (1 - beta1) * grad
            square = beta2 * square + (1 - beta2) * grad.square()
            scale = (square / (1 - beta2**step)).sqrt() + eps
            w = w - _LEARNING_RATE * mean / (1 - beta1**step) / scale

    def _look(self, w: Batch) -> Batch:
        """Note what is fooled at w, and return the gradient of the objective there."""
        x_adv = (torch.tanh(w) + 1) / 2

        def hinge(logits: Tensor, y: Tensor) -> Tensor:
            return margin(logits, y).clamp_min(0)

        logits, _, grad = ascend(self._model, hinge, x_adv, self._y)
        change = x_adv - self._x
        distance = change.flatten(1).norm(dim=1)
        fooled = margin(logits, self._y) < 0
        self._found = self._found | fooled
        nearer = fooled & (distance < self.distance)
        self.best = torch.where(nearer.view(-1, 1, 1, 1), x_adv, self.best)
        self.distance = torch.where(nearer, distance, self.distance)
        objective = 2 * change + self._weight.view(-1, 1, 1, 1) * grad
        return objective * 2 * x_adv * (1 - x_adv)  # d x_adv / d w = (1 - tanh^2) / 2

    def choose_weights(self) -> None:
        """Lower c where an error was found and raise it where none was."""
        self._high = torch.where(self._found, self._high.minimum(self._weight), self._high)
        self._low = torch.where(self._found, self._low, self._low.maximum(self._weight))
        between = (self._low + self._high) / 2
        self._weight = torch.where(self._high.isinf(), self._weight * _GROWTH, between)

    def move_back(self) -> None:
        """Bisect the line from each image to the error that was found for it."""
        found = self.distance.isfinite()
        if not found.any():
            return
        x, y, change = self._x[found], self._y[found], (self.best - self._x)[found]
        low, high = x.new_zeros(len(x)), x.new_ones(len(x))
        nearest = self.best[found]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            tried = (x + middle.view(-1, 1, 1, 1) * change).clamp(0, 1)
            fooled = margin(logits_of(self._model, tried, len(x)), y) < 0
            nearest = torch.where(fooled.view(-1, 1, 1, 1), tried, nearest)
            low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
        self.best[found] = nearest
        self.distance[found] = (nearest - x).flatten(1).norm(dim=1)
