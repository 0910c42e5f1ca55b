"""Counted arithmetic: what a computation costs, whatever machine it runs on and what beside it."""

from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class CountedArithmetic(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products in a `with` block.

    A multiplication and an addition are two. Forward and backward passes are counted as they are
    run, those of gradients of gradients too; everything else, which is little of a network, is not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and add what it takes."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += int(count(*args, **kwargs, out_val=out))
        return out
