"""The Jacobian of a feature map, as products with blocks of vectors, for a batch of images.

J is never formed (but by `dense`). A forward product J V runs forward-mode AD over all
directions at once; a backward product J^T U shares one graph between all of them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arrays import check_finite
from clarep.errors import UserError, said_by
from clarep.geometry.forward_rules import LeanTangents
from clarep.geometry.memory_bound import MemoryBound, is_out_of_memory
from clarep.geometry.precision import Precision, checked_in_full, differentiable
from clarep.geometry.subspace import Measure, Subspace, top_right_singular_subspace

Engine = Literal["forward", "double_backward", "finite_difference"]
ENGINES: tuple[Engine, ...] = ("forward", "double_backward", "finite_difference")
_ADJOINT_TOLERANCE = {"forward": 1e-4, "double_backward": 1e-2, "finite_difference": 1e-2}
_LOW_TOLERANCE = {"tf32": 1e-2, "bf16": 1e-1}
_LIVE_COPIES = 64  # activations alive during a product, in multiples of the input's size


class Jacobian:
    """J = df/dx at x, of a function whose output b depends on its input b alone.

    Args:
        function: maps (B, *in) to (B, *out). Its parameters should not require gradients.
        x: where J is taken, (B, *in).
        engine: how J V is computed: `forward` (forward-mode AD), `double_backward` (two
            reverse passes), `finite_difference` (central; for a function without either).
        memory_mb: bound on the memory that one chunk of directions may take, by estimate. Where
            memory runs out nevertheless, it is halved until one direction does not fit.
        precision: of the products; the dense J and finite differences are in full whatever it is.

    Attributes:
        n, m: sizes of one image's input and output.
        batch, dtype, device: of x.
        products: directions multiplied so far, J and J^T counted alike, for each image.

    Raises:
        UserError: if the function's output is not finite at x.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        x: Float[Tensor, "batch ..."],
        engine: Engine = "forward",
        memory_mb: float | MemoryBound = 1024.0,
        precision: Precision = "fp32",
    ) -> None:
        # A difference of two nearly equal numbers is the rounding of a lower precision.
        self.precision: Precision = "fp32" if engine == "finite_difference" else precision
        self.engine = engine
        self._function = function
        self._x = x.detach().contiguous()
        self._graph: tuple[Tensor, Tensor] | None = None
        with torch.no_grad(), differentiable():
            y = function(self._x)
        check_finite(y, "the features at x", "check the teacher's weights and the noise level")
        self._out_shape = y.shape[1:]
        self.batch, self.n, self.m = len(x), x[0].numel(), y[0].numel()
        self.dtype, self.device = x.dtype, x.device
        self.products = 0
        self._bytes_each = self.batch * max(self.n, self.m) * x.element_size() * _LIVE_COPIES
        self._bound = memory_mb if isinstance(memory_mb, MemoryBound) else MemoryBound(memory_mb)

    def matmat(self, V: Float[Tensor, "batch n r"]) -> Float[Tensor, "batch m r"]:
        """Return J V."""
        product = {
            "forward": self._forward,
            "double_backward": self._double_backward,
            "finite_difference": self._finite_difference,
        }[self.engine]
        return self._by_chunks(product, V, self._x.shape[1:])

    def rmatmat(self, U: Float[Tensor, "batch m r"]) -> Float[Tensor, "batch n r"]:
        """Return J^T U, by reverse mode."""
        return self._by_chunks(self._backward, U, self._out_shape)

    def top_subspace(
        self, k: int, generator: torch.Generator, measure: Measure, tolerance: float
    ) -> Subspace:
        """Return J's top k right singular vectors: see `top_right_singular_subspace`.

        In less than fp32 they are checked in fp32 (`checked_in_full`); where what was lost passes
        the tolerance, the solver goes on from them in fp32. Raises UserError for the measure
        `angle` in less than fp32.
        """
        if self.precision != "fp32" and measure == "angle":
            raise UserError(
                f"the angle to the true directions is not known in {self.precision}: choose "
                "precision fp32, or measure energy"
            )

        def solved(jacobian: "Jacobian", start: Tensor | None = None) -> Subspace:
            return top_right_singular_subspace(
                jacobian.matmat,
                jacobian.rmatmat,
                (self.m, self.n),
                k,
                generator=generator,
                batch=self.batch,
                measure=measure,
                tolerance=tolerance,
                start=start,
                dtype=self.dtype,
                device=self.device,
            )

        found = solved(self)
        if self.precision == "fp32":
            return found
        full = self._in_full()
        found = checked_in_full(found, self, full, generator)
        if not bool((found.error <= tolerance).all()):
            found = solved(full, found.V)
        self.products += full.products
        return replace(found, products=self.products)

    def dense(self) -> Float[Tensor, "batch m n"]:
        """Return J itself, by min(m, n) products, in full precision."""
        if self.precision != "fp32":
            full = self._in_full()
            whole = full.dense()
            self.products += full.products
            return whole
        eye = torch.eye(min(self.m, self.n), dtype=self.dtype, device=self.device)
        eye = eye.expand(self.batch, -1, -1)
        return self.rmatmat(eye).mT if self.m < self.n else self.matmat(eye)

    def _in_full(self) -> "Jacobian":
        return Jacobian(self._function, self._x, self.engine, self._bound)

    def adjoint_error(self, seed: int = 0) -> float:
        """Return the worst |<JV, U> - <V, J^T U>| / (|JV| |U|) over the batch, one random pair.

        Rounding leaves about 1e-6 in float32; a wrong derivative leaves about 1. Zero
        Jacobians give 0.
        """
        generator = torch.Generator().manual_seed(seed)
        v = torch.randn(self.batch, self.n, 1, generator=generator).to(self._x)
        u = torch.randn(self.batch, self.m, 1, generator=generator).to(self._x)
        jv, jtu = self.matmat(v).double(), self.rmatmat(u).double()
        gap = ((jv * u).sum(1) - (v * jtu).sum(1)).abs().flatten()
        scale = jv.flatten(1).norm(dim=1) * u.double().flatten(1).norm(dim=1)
        return float((gap / scale.clamp_min(1e-300)).max())

    def _by_chunks(
        self, product: Callable[[Tensor], Tensor], block: Tensor, shape: torch.Size
    ) -> Tensor:
        self.products += block.shape[2]
        directions = block.permute(2, 0, 1).reshape(block.shape[2], self.batch, *shape)
        parts: list[Tensor] = []
        done = 0
        with differentiable(self.precision, self.device.type):
            while done < len(directions):
                chunk = directions[done : done + self._at_once()]
                try:
                    parts.append(product(chunk.contiguous()))
                    done += len(chunk)
                except (MemoryError, RuntimeError) as error:
                    if len(chunk) == 1 or not is_out_of_memory(error):
                        raise
                    error.__traceback__ = None  # which holds the chunk's activations
                    self._bound.halve(len(chunk), self._bytes_each)
        return torch.cat(parts).to(self.dtype).flatten(2).permute(1, 2, 0)

    def _at_once(self) -> int:
        return self._bound.chunk(self._bytes_each)

    def _forward(self, tangents: Tensor) -> Tensor:
        def one(tangent: Tensor) -> Tensor:
            jv: Tensor = torch.func.jvp(self._function, (self._x,), (tangent,))[1]
            return jv

        with torch.no_grad(), LeanTangents():
            return torch.func.vmap(one)(tangents)

    def _backward(self, cotangents: Tensor) -> Tensor:
        x, y = self._shared_graph()
        if not y.requires_grad:  # the output does not depend on x at all
            return cotangents.new_zeros(len(cotangents), *x.shape)

        def one(cotangent: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(y, x, cotangent, retain_graph=True, materialize_grads=True)

        # Not by `is_grads_batched`: its older vmap leaves out a Function's own rule.
        (products,) = torch.func.vmap(one)(cotangents.to(y.dtype))
        return products

    def _shared_graph(self) -> tuple[Tensor, Tensor]:
        if self._graph is None:
            with torch.enable_grad():
                x = self._x.clone().requires_grad_()
                self._graph = x, self._function(x)
        return self._graph

    def _double_backward(self, tangents: Tensor) -> Tensor:
        """J v as the derivative by u of <J^T u, v>, which is linear in u."""
        with torch.enable_grad():
            x = self._x.clone().requires_grad_()
            y = self._function(x)
            u = torch.zeros_like(y, requires_grad=True)
            if not y.requires_grad:
                return tangents.new_zeros(len(tangents), *y.shape)
            (jtu,) = torch.autograd.grad(y, x, u, create_graph=True, materialize_grads=True)
            return torch.stack(
                [torch.autograd.grad(jtu, u, v, retain_graph=True)[0] for v in tangents]
            )

    def _finite_difference(self, tangents: Tensor) -> Tensor:
        dims = tuple(range(1, self._x.ndim))
        share = torch.finfo(self._x.dtype).eps ** (1 / 3)
        scale = share * self._x.norm(p=2, dim=dims, keepdim=True)
        columns = []
        with torch.no_grad():
            for v in tangents:
                step = scale / v.norm(p=2, dim=dims, keepdim=True).clamp_min(1e-30)
                rise = self._function(self._x + step * v) - self._function(self._x - step * v)
                columns.append(rise / (2 * step.reshape(-1, *(1,) * (rise.ndim - 1))))
        return torch.stack(columns)


def probe_engine(
    function: Callable[[Tensor], Tensor],
    x: Float[Tensor, "batch ..."],
    precision: Precision = "fp32",
) -> tuple[Engine, dict[str, str]]:
    """Return the first engine of ENGINES that passes the adjoint test at x, and what each gave.

    A model without forward-mode AD raises or drops tangents; both fail the test, which is in fp32.
    Raises UserError if none passes, or if the one that does fails it in the precision asked for.
    """
    findings: dict[str, str] = {}
    for engine in ENGINES:
        try:
            error = Jacobian(function, x, engine).adjoint_error()
            # Two reverse passes are one's transpose, right or wrong; 0 may be a cut graph.
            if engine == "double_backward" or error == 0:
                error = max(error, Jacobian(function, x, "finite_difference").adjoint_error())
        except (RuntimeError, NotImplementedError) as failure:
            if is_out_of_memory(failure):  # which says nothing about the engine
                raise
            findings[engine] = said_by(failure)
            continue
        findings[engine] = f"adjoint error {error:.1e}"
        if error < _ADJOINT_TOLERANCE[engine]:
            _check_in(precision, Jacobian(function, x, engine, precision=precision))
            return engine, findings
    raise UserError(
        "no way of differentiating this teacher passes the adjoint test "
        f"({'; '.join(f'{name}: {what}' for name, what in findings.items())}): "
        "check that its features depend smoothly on x and are deterministic"
    )


def _check_in(precision: Precision, jacobian: Jacobian) -> None:
    """Raise UserError where products of a lower precision than fp32 fail, or are no transposes."""
    if precision == "fp32":
        return
    try:
        error = jacobian.adjoint_error()
        said = "" if error < _LOW_TOLERANCE[precision] else f"adjoint error {error:.1e}"
    except (RuntimeError, NotImplementedError) as failure:
        if is_out_of_memory(failure):
            raise
        said = said_by(failure)
    if said:
        raise UserError(f"this teacher has no products in {precision} ({said}): choose fp32")
