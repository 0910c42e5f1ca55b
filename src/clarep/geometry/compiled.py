"""Jacobian products as compiled graphs: all that one consists of, in a few fused kernels.

Dynamo cannot trace a jvp, `make_fx` can: it records the operations of vmap(jvp) or of vmap(vjp)
with x and all else that changes between batches as inputs, and torch.compile makes kernels of
them. The parameters are inputs too, so that one compile serves whatever weights of these shapes.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx import GraphModule

from clarep.errors import said_by
from clarep.geometry.jacobian import Jacobian
from clarep.geometry.memory_bound import MemoryBound, is_out_of_memory
from clarep.geometry.precision import Precision

Compiler = Callable[[GraphModule], Callable[..., Tensor]]
Function = Callable[..., Tensor]
Eager = Callable[[Tensor], Tensor]
Way = Literal["forward", "backward"]
BOTH: tuple[Way, ...] = ("forward", "backward")
_TOLERANCE = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}
"""Of the relative error to an eager product, and of the adjoint test."""
_NARROW = 4  # directions below which a block is not worth a compile


def worth_compiling(device: torch.device) -> tuple[Way, ...]:
    """Return which products gain by a compile: on a processor J^T U does not (docs/solver.md)."""
    return ("forward",) if device.type == "cpu" else BOTH


def inductor(graph: GraphModule) -> Callable[..., Tensor]:
    """Return a graph as torch's own compiler makes it: at its first call, or from its disk cache.

    It needs a C++ compiler, on a GPU Triton.
    """
    found: Callable[..., Tensor] = torch.compile(graph, fullgraph=True, dynamic=False)
    return found


class CompiledProducts:
    """J V and J^T U of `function(x, *given)`, compiled for one number of images.

    Each is compiled at its first block, whose width all later ones are cut to, or filled up to
    with zeros. It is held against the eager product of that block, and by the adjoint test against
    the eager transpose. Where this fails, or nothing can be compiled, all products are eager from
    then on, which is said once.

    Args:
        function: maps x (B, *in) and `given` to (B, *out). Whatever else it depends on must not
            change but in place, as weights do.
        batch: images of a batch, B; products of other batches are eager.
        compiler: makes a function of a graph.
        precision: of the products.
        ways: which products are compiled, J V (`forward`), J^T U (`backward`) or both.

    Attributes:
        width: directions of a block; None before the first.
        failure: why products are eager; empty where they are not.
    """

    def __init__(
        self,
        function: Function,
        batch: int,
        compiler: Compiler = inductor,
        precision: Precision = "fp32",
        ways: tuple[Way, ...] = BOTH,
    ) -> None:
        self.function, self.batch, self.precision = function, batch, precision
        self.ways = ways
        self.width: int | None = None
        self.failure = ""
        self._compiler = compiler
        self._made: dict[Way, _Product] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled: another process compiles anew, or has it from the disk."""
        return vars(self) | {"_made": {}}

    def serve(self, batch: int) -> bool:
        """Tell whether products of a batch of so many images are compiled ones."""
        return batch == self.batch and not self.failure

    def multiply(
        self,
        way: Way,
        at: tuple[Tensor, ...],
        block: Float[Tensor, "r batch *one"],
        eager: Mapping[Way, Eager],
    ) -> Float[Tensor, "r batch *other"]:
        """Return the product of a block at x and what else is given; `eager` does the same."""
        # The width enters the last digits, not how a set was resumed: the first block of every
        # whole batch is the solver's start, as wide in all, and other batches are eager.
        narrow = len(block) < (self.width or 2 * _NARROW) / 2
        if narrow or way not in self.ways or not self.serve(len(at[0])):
            return eager[way](block)
        made = self._made.get(way)
        if made is None:
            return self._first(way, at, block, eager)
        with torch.no_grad():
            return made(at, block) if made.takes(at, block) else eager[way](block)

    def _first(
        self, way: Way, at: tuple[Tensor, ...], block: Tensor, eager: Mapping[Way, Eager]
    ) -> Tensor:
        """Compile a product, and return it if it is right."""
        expected = eager[way](block)
        width = self.width or len(block)
        if not self._made:
            _announce("compiling Jacobian products: a minute or two, seconds where this was done")
        try:
            with _quietly(), torch.no_grad():
                made = _compiled(self._compiler, self.function, way, at, _filled(block, width))
                found = made(at, block)
            self._check(
                block, found, expected, eager["backward" if way == "forward" else "forward"]
            )
        except Exception as error:  # whatever its compiler raises: the eager way is there
            if is_out_of_memory(error):
                raise
            self.failure = said_by(error)
            self._made.clear()
            _announce(f"Jacobian products stay as they are, not compiled: {self.failure}")
            return expected
        self._made[way], self.width = made, width
        return found

    def _check(self, block: Tensor, found: Tensor, expected: Tensor, transpose: Eager) -> None:
        """Raise ArithmeticError unless a product is the eager one and passes the adjoint test."""
        tolerance = _TOLERANCE[self.precision]
        scale = expected.norm().clamp_min(torch.finfo(expected.dtype).tiny)
        if not (error := float((found - expected).norm() / scale)) <= tolerance:
            raise ArithmeticError(f"a compiled product is off by {error:.1e}")
        probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(0)).to(found)
        image = transpose(probe).to(block)
        gap = (image * block).flatten(2).sum(2) - (probe * found).flatten(2).sum(2)
        scales = image.flatten(2).norm(dim=2) * block.flatten(2).norm(dim=2)
        worst = float((gap.abs() / scales.clamp_min(torch.finfo(gap.dtype).tiny)).max())
        if not worst <= tolerance:
            raise ArithmeticError(f"the adjoint test is failed by {worst:.1e}")


class CompiledJacobian(Jacobian):
    """A Jacobian at x whose products are compiled ones.

    Args:
        products: of the function; they are the same for all batches.
        x: where J is taken, (B, *in).
        given: the function's further arguments.
        memory_mb: see `Jacobian`.
        across: an orthogonal projection of steps (B, *in), by which J is multiplied.
    """

    def __init__(
        self,
        products: CompiledProducts,
        x: Float[Tensor, "batch ..."],
        given: tuple[Tensor, ...] = (),
        memory_mb: float | MemoryBound = 1024.0,
        across: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        precision = products.precision
        super().__init__(lambda y: products.function(y, *given), x, "forward", memory_mb, precision)
        self._products, self._at = products, (self._x, *given)
        self._steps = across
        self._across = None if across is None else torch.func.vmap(across)

    def _in_full(self) -> Jacobian:
        function, x, across = self._function, self._x, self._steps
        if across is None:
            return super()._in_full()
        return Jacobian(lambda y: function(x + across(y - x)), x, "forward", self._bound)

    def _at_once(self) -> int:
        most, width = super()._at_once(), self._products.width
        return most if width is None or not self._products.serve(self.batch) else min(most, width)

    def _eager(self) -> Mapping[Way, Eager]:
        return {"forward": super()._forward, "backward": super()._backward}

    def _forward(self, tangents: Tensor) -> Tensor:
        if self._across is not None:
            tangents = self._across(tangents).contiguous()
        return self._products.multiply("forward", self._at, tangents, self._eager())

    def _backward(self, cotangents: Tensor) -> Tensor:
        found = self._products.multiply("backward", self._at, cotangents, self._eager())
        return found if self._across is None else self._across(found)


@dataclass(frozen=True)
class _Product:
    """A compiled product."""

    run: Callable[..., Tensor]
    held: tuple[Tensor, ...]
    """What the function holds: weights, and other constants."""
    likes: tuple[object, ...]
    """Shapes, and what else of its arguments it was compiled for."""
    width: int

    def takes(self, at: tuple[Tensor, ...], block: Tensor) -> bool:
        """Tell whether it was compiled for such arguments."""
        return len(block) <= self.width and self.likes == _likes(at, block)

    def __call__(self, at: tuple[Tensor, ...], block: Tensor) -> Tensor:
        return self.run(*at, _filled(block, self.width), *self.held)[: len(block)]


def _compiled(
    compiler: Compiler, function: Function, way: Way, at: tuple[Tensor, ...], block: Tensor
) -> _Product:
    """Trace a product at x and whatever is given, and compile it."""
    from torch.fx.experimental.proxy_tensor import make_fx

    multiply = {"forward": _forward, "backward": _backward}[way]

    def product(x: Tensor, *rest: Tensor) -> Tensor:
        return multiply(lambda y: function(y, *rest[:-1]), x, rest[-1])

    graph = make_fx(product)(*at, block)
    held = _as_inputs(graph)
    return _Product(compiler(graph), held, _likes(at, block), len(block))


def _forward(function: Function, x: Tensor, tangents: Tensor) -> Tensor:
    products: Tensor = torch.func.vmap(lambda v: torch.func.jvp(function, (x,), (v,))[1])(tangents)
    return products


def _backward(function: Function, x: Tensor, cotangents: Tensor) -> Tensor:
    y, pull, *_ = torch.func.vjp(function, x)
    products: Tensor = torch.func.vmap(lambda u: pull(u)[0])(cotangents.to(y.dtype))
    return products


def _as_inputs(graph: GraphModule) -> tuple[Tensor, ...]:
    """Make inputs, behind all others, of the tensors that a graph holds; return these."""
    nodes = list(graph.graph.nodes)
    last = [node for node in nodes if node.op == "placeholder"][-1]
    held: dict[str, tuple[Any, Tensor]] = {}
    for node in nodes:
        value = getattr(graph, node.target, None) if node.op == "get_attr" else None
        if not isinstance(value, Tensor):
            continue
        if node.target not in held:
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"held{len(held)}")
            held[node.target] = last, value
        node.replace_all_uses_with(held[node.target][0])
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return tuple(value for _, value in held.values())


def _filled(block: Tensor, width: int) -> Tensor:
    """Return a block with zeros behind it up to a width."""
    lacking = width - len(block)
    return torch.cat([block, block.new_zeros(lacking, *block.shape[1:])]) if lacking else block


def _likes(at: tuple[Tensor, ...], block: Tensor) -> tuple[object, ...]:
    tensors = [(t.shape, t.stride(), t.dtype, t.device) for t in at]
    return (*tensors, block.shape[1:], block.dtype)


def _announce(text: str) -> None:
    from clarep.engine.progress import announce  # rich, which nothing else here takes

    announce(text)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep from the user what torch says of itself while it compiles."""
    logger = logging.getLogger("torch.utils.cpp_extension")  # of a CUDA toolkit without a GPU
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
