"""How fast the subspace solver is, beside the field's scheme, against the exact SVD.

What is timed is the way to a stated quality: 0.99 of the optimal captured energy, or a worst
principal angle of 1e-2, both true ones, from the dense Jacobian of each image.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.arithmetic import CountedArithmetic
from clarep.errors import UserError
from clarep.geometry.compiled import CompiledJacobian, CompiledProducts, worth_compiling
from clarep.geometry.dense import exact_right_singular_vectors
from clarep.geometry.jacobian import Engine, Jacobian
from clarep.geometry.krylov import Product
from clarep.geometry.reference import field_products, subspace_iteration
from clarep.geometry.subspace import Measure

TOLERANCE = 0.01  # of the missing energy, and of the angle in radians
Method = Literal["clarep", "clarep_compiled", "reference", "reference_with_our_products"]
_REFERENCES: tuple[Method, ...] = ("reference", "reference_with_our_products")
Features = Callable[[slice], Callable[[Tensor], Tensor]]
MEASURES: tuple[Measure, ...] = ("energy", "angle")


@dataclass(frozen=True)
class Case:
    """One row of the benchmark: of several images, the worst quality and the mean cost."""

    method: Method
    k: int
    batch: int
    measure: Measure | Literal["own_stop"]
    """What it was timed to: a true quality, or (`own_stop`) where the reference ends by itself."""
    products: float
    """Directions that an image was multiplied with, J and J^T counted alike."""
    seconds: float
    """An image; of the reference, iterations times the measured seconds of one."""
    captured: float
    """True share of the optimal energy, of the worst image."""
    angle: float
    """True worst principal angle, radians, of the worst image."""
    reached: bool
    """Whether the truth is within the tolerance; if not, the cost is that of giving up."""
    iterations: float = 0.0
    """Of the reference scheme, mean over the images; 0 for ours."""
    arithmetic: float = 0.0
    """Seconds that as much arithmetic takes here in a plain matrix product, an image; of ours."""


@dataclass(frozen=True)
class Truth:
    """The exact top k singular values and right singular vectors of one image, float64."""

    jacobian: Float[Tensor, "m n"]
    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]

    @classmethod
    def of(cls, jacobian: Float[Tensor, "m n"], k: int) -> "Truth":
        """Return the truth of a dense J."""
        double = jacobian.double()
        vectors = exact_right_singular_vectors(double[None], k)[0]
        return cls(jacobian, (double @ vectors).norm(dim=0), vectors)

    def qualities(self, V: Float[Tensor, "n k"]) -> tuple[float, float]:
        """Return |J V|^2 over its optimum, and the worst principal angle to the true subspace."""
        k = V.shape[1]
        energy = (self.jacobian @ V.float()).double().square().sum()
        own, V = self.vectors[:, :k], V.double()
        beyond = V - own @ (own.mT @ V)
        sine = torch.linalg.eigvalsh(beyond.mT @ beyond)[-1].clamp(0, 1).sqrt()
        return float(energy / self.values[:k].square().sum()), math.asin(float(sine))


def _reached(captured: float, angle: float, measure: str) -> bool:
    return captured >= 1 - TOLERANCE if measure == "energy" else angle <= TOLERANCE


class Problem:
    """Noisy images of one teacher at one noise level and tap, the first ones with their truth.

    Args:
        features: images (a slice into x) -> (x -> features of those images, under their labels).
        x: noisy images.
        engine: how J V is computed.
        truths: how many images have an exact SVD; the others only fill a batch.
        ks: numbers of directions that will be asked for.
        seed: of the solvers' starts.
        max_iterations: where the reference scheme gives up; 100 is its own limit.

    Raises:
        UserError: if a k is outside 1 to the smaller side of J.
    """

    def __init__(
        self,
        features: Features,
        x: Float[Tensor, "batch c h w"],
        engine: Engine,
        *,
        truths: int,
        ks: tuple[int, ...],
        seed: int = 0,
        max_iterations: int = 100,
    ) -> None:
        self._features, self._x, self._engine = features, x, engine
        self._compiled: dict[tuple[int, int, int], CompiledProducts] = {}
        self._seed, self._max_iterations = seed, max_iterations
        with CountedArithmetic() as counter:
            first = self._jacobian(slice(0, 1))  # which takes the features once
        self.flop_a_pass = counter.operations
        self.shape = first.m, first.n
        for k in ks:
            if not 1 <= k <= min(self.shape):
                raise UserError(
                    f"k = {k} is outside 1 to {min(self.shape)}, what J at this tap has of "
                    "singular values: choose fewer with `ks`"
                )
        images = [self._jacobian(slice(image, image + 1)) for image in range(truths)]
        self.truths = [Truth.of(J.dense()[0], max(ks)) for J in images]

    def _jacobian(self, images: slice) -> Jacobian:
        return Jacobian(self._features(images), self._x[images], self._engine)

    def compile(self, k: int, batch: int) -> None:
        """Compile what `clarep` takes to k directions in such batches, and warm it up."""
        for first in self._firsts(batch):
            features = self._features(slice(first, first + batch))
            products = CompiledProducts(features, batch, ways=worth_compiling(self._x.device))
            self._compiled[first, batch, k] = products
        self.clarep(k, batch, "energy", compiled=True)
        for products in self._compiled.values():
            if products.failure:
                raise UserError(
                    f"products cannot be compiled here ({products.failure}): leave out `compiled`"
                )

    def _firsts(self, batch: int) -> range:
        return range(0, max(1, len(self.truths) // batch) * batch, batch)

    def clarep(self, k: int, batch: int, measure: Measure, *, compiled: bool = False) -> Case:
        """Time our solver; images beyond the truths fill the batch and are not checked.

        compiled: by products that `compile` made, which belong to this k and batch.
        """
        count = len(self._firsts(batch)) * batch
        bases, products, started = [], 0, time.perf_counter()
        for first in self._firsts(batch):
            images = slice(first, first + batch)
            jacobian = self._jacobian(images)
            if compiled:
                jacobian = CompiledJacobian(self._compiled[first, batch, k], self._x[images])
            start = torch.Generator().manual_seed(self._seed)
            found = jacobian.top_subspace(k, start, measure, TOLERANCE)
            bases.append(found.V)
            products += found.products * batch
        seconds = time.perf_counter() - started
        qualities = [t.qualities(V) for t, V in zip(self.truths, torch.cat(bases), strict=False)]
        captured, angle = min(q[0] for q in qualities), max(q[1] for q in qualities)
        return Case(
            "clarep_compiled" if compiled else "clarep",
            k,
            batch,
            measure,
            products / count,
            seconds / count,
            captured,
            angle,
            _reached(captured, angle, measure),
            arithmetic=products / count * self.flop_a_pass / matrix_flop_a_second(),
        )

    def reference(self, k: int) -> Iterator[Case]:
        """Time the field's scheme on the images with a truth, one at a time.

        With the field's products and with ours, which tells the scheme's part from the products'.
        How many iterations it takes is counted with the dense J, which yields the same subspaces,
        as there may be a hundred; what one costs is timed on the network, to the true energy.
        """
        walks = [self._walk(truth, k) for truth in self.truths]
        for method in _REFERENCES:
            each = self._seconds_each(k, method, [walk["energy"].iterations for walk in walks])
            for measure in (*MEASURES, "own_stop"):
                runs = [walk[measure] for walk in walks]
                iterations = sum(run.iterations for run in runs) / len(runs)
                yield replace(
                    runs[0],
                    method=method,
                    products=2 * k * iterations,
                    seconds=each * iterations,
                    captured=min(run.captured for run in runs),
                    angle=max(run.angle for run in runs),
                    reached=all(run.reached for run in runs),
                    iterations=iterations,
                )

    def _steps(self, products: tuple[Product, Product], k: int) -> Iterator[Tensor]:
        start, limit = torch.Generator().manual_seed(self._seed), self._max_iterations
        n = self.shape[1]
        walk = subspace_iteration(products, n, k, generator=start, max_iterations=limit)
        return (V[0] for V, _, _ in walk)

    def _walk(self, truth: Truth, k: int) -> dict[str, Case]:
        """Return where the scheme stands when it first has each quality, and at its own end."""
        J = truth.jacobian[None]
        at: dict[str, Case] = {}
        iterations = 0.0
        for V in self._steps((lambda V: J @ V, lambda U: J.mT @ U), k):
            iterations += 1
            qualities = truth.qualities(V)
            last = Case("reference", k, 1, "own_stop", 0.0, 0.0, *qualities, False, iterations)
            for measure in MEASURES:
                if measure not in at and _reached(*qualities, measure):
                    at[measure] = replace(last, measure=measure, reached=True)
        ended = replace(last, reached=iterations < self._max_iterations)
        return {m: replace(last, measure=m) for m in MEASURES} | at | {"own_stop": ended}

    def _seconds_each(self, k: int, method: Method, iterations: list[float]) -> float:
        seconds = 0.0
        for image, count in enumerate(iterations):
            one = slice(image, image + 1)
            started = time.perf_counter()
            if method == "reference":
                products = field_products(self._features(one), self._x[one])
            else:
                jacobian = self._jacobian(one)
                products = jacobian.matmat, jacobian.rmatmat
            for _ in zip(range(int(count)), self._steps(products, k), strict=False):
                pass
            seconds += time.perf_counter() - started
        return seconds / sum(iterations)


def matrix_flop_a_second(side: int = 1024, rounds: int = 15) -> float:
    """Return how quick a plain matrix product is here, by the quickest of some."""
    a = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def ratios(cases: list[Case]) -> list[dict[str, Any]]:
    """Return how many times dearer each reference is than ours, per image, at k and batch.

    Ours always stops by itself. `reference_stop` tells the two honest comparisons apart:
    `truth`, the reference ended by the exact SVD as soon as it is good enough, which it could
    not know in practice; `own`, as the field runs it, ended by its element-wise stop or its
    limit, beside ours to the energy and to the angle. `at_least` where the truth was not
    reached: it would have cost more.
    """
    return [
        {
            "ours": ours.method,
            "against": other.method,
            "k": ours.k,
            "batch": ours.batch,
            "measure": ours.measure,
            "reference_stop": "own" if other.measure == "own_stop" else "truth",
            "seconds": other.seconds / ours.seconds,
            "products": other.products / ours.products,
            "at_least": other.measure != "own_stop" and not other.reached,
            "ours_reached": ours.reached,
        }
        for ours in cases
        for other in cases
        if ours.method not in _REFERENCES and other.method in _REFERENCES and ours.k == other.k
        if other.measure in ("own_stop", ours.measure)
    ]
