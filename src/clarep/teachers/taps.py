"""Tapping a network that is not ours: run it as far as one of its modules and keep its output."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


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
