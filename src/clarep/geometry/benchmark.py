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

from clarep.errors import UserError
from clarep.geometry.dense import exact_right_singular_vectors
from clarep.geometry.jacobian import Engine, Jacobian
from clarep.geometry.krylov import Product
from clarep.geometry.profiling import peak_memory
from clarep.geometry.reference import field_products, subspace_iteration
from clarep.geometry.subspace import Measure, Subspace, top_right_singular_subspace

TOLERANCE: dict[Measure, float] = {"energy": 0.01, "angle": 0.01}
Method = Literal["clarep", "reference", "reference_with_our_products"]
Features = Callable[[slice], Callable[[Tensor], Tensor]]
_REFERENCES: tuple[Method, ...] = ("reference", "reference_with_our_products")


@dataclass(frozen=True)
class Truth:
    """The exact top k singular values and right singular vectors of one image, float64."""

    jacobian: Float[Tensor, "m n"]
    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]

    def captured(self, V: Float[Tensor, "n k"]) -> float:
        """Return |J V|^2 over its optimum, the sum of the top k squared singular values."""
        optimum = self.values[: V.shape[1]].square().sum()
        return float((self.jacobian @ V.float()).double().square().sum() / optimum)

    def angle(self, V: Float[Tensor, "n k"]) -> float:
        """Return the worst principal angle to the true subspace, radians."""
        own, V = self.vectors[:, : V.shape[1]], V.double()
        beyond = V - own @ (own.mT @ V)
        sine = torch.linalg.eigvalsh(beyond.mT @ beyond)[-1].clamp(0, 1).sqrt()
        return math.asin(float(sine))

    def reached(self, V: Float[Tensor, "n k"], measure: Measure) -> bool:
        """Tell whether V is as good as TOLERANCE asks."""
        if measure == "energy":
            return self.captured(V) >= 1 - TOLERANCE["energy"]
        return self.angle(V) <= TOLERANCE["angle"]


@dataclass(frozen=True)
class Case:
    """One row of the benchmark; of several images, the worst quality and the mean cost."""

    method: Method
    k: int
    batch: int
    measure: Measure | Literal["own_stop"]
    """What it was timed to: a true quality, or (`own_stop`) where the reference ends by itself."""
    products_per_image: float
    seconds_per_image: float
    peak_mb: float | None
    """Resident memory above what was held before; None where /proc does not tell it."""
    captured: float
    """True share of the optimal energy, of the worst image."""
    angle: float
    """True worst principal angle, radians, of the worst image."""
    reached: bool
    """Whether the truth is within the tolerance; if not, the cost is that of giving up."""
    iterations: float | None = None
    """Of the reference scheme, mean over the images."""
    seconds_estimated: bool = False
    """Whether the seconds are iterations times the measured seconds of one."""


@dataclass(frozen=True)
class Problem:
    """Noisy images of one teacher at one noise level and tap.

    features(images) is x -> features of those images (a slice into x), under their labels.
    """

    features: Features
    x: Float[Tensor, "batch c h w"]
    engine: Engine
    truths: tuple[Truth, ...]
    """Of the first images of x; the others only fill a batch."""
    seed: int = 0
    """Of the solvers' starts."""
    max_iterations: int = 100
    """Where the reference scheme gives up; 100 is its own limit."""

    def jacobian(self, images: slice) -> Jacobian:
        """Return J of some images, fresh, its products counted from 0."""
        return Jacobian(self.features(images), self.x[images], self.engine)


def exact_truth(features: Features, x: Tensor, image: int, k: int, engine: Engine) -> Truth:
    """Form the dense J of one image and return its top k right singular vectors, in float64."""
    one = slice(image, image + 1)
    jacobian = Jacobian(features(one), x[one], engine).dense()[0]
    double = jacobian.double()
    vectors = exact_right_singular_vectors(double[None], k)[0]
    return Truth(jacobian, (double @ vectors).norm(dim=0), vectors)


def measure_clarep(problem: Problem, k: int, batch: int, measure: Measure) -> Case:
    """Time our solver; images beyond the truths fill the batch and are not checked."""
    count = max(1, len(problem.truths) // batch) * batch
    parts = [slice(first, first + batch) for first in range(0, count, batch)]
    found = []
    with peak_memory() as peak:
        started = time.perf_counter()
        for part in parts:
            found.append(solve(problem.jacobian(part), k, measure, problem.seed))
        seconds = time.perf_counter() - started
    bases = torch.cat([part.V for part in found])
    checked = list(zip(problem.truths, bases, strict=False))
    return Case(
        method="clarep",
        k=k,
        batch=batch,
        measure=measure,
        products_per_image=sum(part.products for part in found) / len(found),
        seconds_per_image=seconds / count,
        peak_mb=peak(),
        captured=min(truth.captured(V) for truth, V in checked),
        angle=max(truth.angle(V) for truth, V in checked),
        reached=all(truth.reached(V, measure) for truth, V in checked),
    )


def solve(jacobian: Jacobian, k: int, measure: Measure, seed: int) -> Subspace:
    """Return what our solver finds at the benchmark's tolerance, by its own stop."""
    return top_right_singular_subspace(
        jacobian.matmat,
        jacobian.rmatmat,
        (jacobian.m, jacobian.n),
        k,
        generator=torch.Generator().manual_seed(seed),
        batch=jacobian.batch,
        dtype=jacobian.dtype,
        device=jacobian.device,
        measure=measure,
        tolerance=TOLERANCE[measure],
    )


def measure_reference(problem: Problem, k: int) -> list[Case]:
    """Time the field's scheme on the images with a truth, one at a time.

    With the field's products and with ours, which tells the scheme's part from the products'.

    For the energy it runs on the network until the truth says that it is there, which it could
    not know itself; the check is not timed. For the angle and for its own stop the iterations
    are counted with the dense J, which yields the same subspaces, and multiplied by the
    measured seconds of one, as there may be a hundred.
    """
    walks = [_count_iterations(problem, truth, k) for truth in problem.truths]
    to_angle, to_end = ([walk[i] for walk in walks] for i in (0, 1))
    cases = []
    for method in _REFERENCES:
        with peak_memory() as peak:
            runs = [_reference_run(problem, k, method, i) for i in range(len(problem.truths))]
        each = sum(run.seconds for run in runs) / sum(run.iterations for run in runs)
        cases += [
            _reference_case(method, k, "energy", runs, peak()),
            _reference_case(method, k, "angle", to_angle, peak(), seconds_each=each),
            _reference_case(method, k, "own_stop", to_end, peak(), seconds_each=each),
        ]
    return cases


@dataclass(frozen=True)
class _Run:
    iterations: int
    seconds: float
    captured: float
    angle: float
    reached: bool


def _reference_run(problem: Problem, k: int, method: Method, image: int) -> _Run:
    one, truth = slice(image, image + 1), problem.truths[image]
    seconds, started = 0.0, time.perf_counter()
    if method == "reference":
        products = field_products(problem.features(one), problem.x[one])
    else:
        jacobian = problem.jacobian(one)
        products = jacobian.matmat, jacobian.rmatmat
    steps = _steps(products, problem, k)
    for iterations, (V, _, _) in enumerate(steps, 1):  # noqa: B007
        seconds += time.perf_counter() - started
        if truth.reached(V[0], "energy"):
            break
        started = time.perf_counter()
    captured = truth.captured(V[0])
    reached = captured >= 1 - TOLERANCE["energy"]
    return _Run(iterations, seconds, captured, truth.angle(V[0]), reached)


def _count_iterations(problem: Problem, truth: Truth, k: int) -> tuple[_Run, _Run]:
    """Walk with the dense J to the reference's end; return the run to the angle, and all of it."""
    J = truth.jacobian[None]
    to_angle = None
    steps = _steps((lambda V: J @ V, lambda U: J.mT @ U), problem, k)
    for iterations, (V, _, _) in enumerate(steps, 1):
        angle = truth.angle(V[0])
        run = _Run(iterations, 0.0, truth.captured(V[0]), angle, angle <= TOLERANCE["angle"])
        if run.reached and to_angle is None:
            to_angle = run
    ended = replace(run, reached=iterations < problem.max_iterations)
    return to_angle or run, ended


def _steps(
    products: tuple[Product, Product], problem: Problem, k: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    generator = torch.Generator().manual_seed(problem.seed)
    n = problem.x[0].numel()
    limit = problem.max_iterations
    return subspace_iteration(products, n, k, generator=generator, max_iterations=limit)


def _reference_case(
    method: Method,
    k: int,
    measure: Measure | Literal["own_stop"],
    runs: list[_Run],
    peak_mb: float | None,
    *,
    seconds_each: float | None = None,
) -> Case:
    iterations = sum(run.iterations for run in runs) / len(runs)
    seconds = sum(run.seconds for run in runs) / len(runs)
    return Case(
        method=method,
        k=k,
        batch=1,
        measure=measure,
        products_per_image=2 * k * iterations,
        seconds_per_image=seconds if seconds_each is None else seconds_each * iterations,
        peak_mb=peak_mb,
        captured=min(run.captured for run in runs),
        angle=max(run.angle for run in runs),
        reached=all(run.reached for run in runs),
        iterations=iterations,
        seconds_estimated=seconds_each is not None,
    )


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
            "against": other.method,
            "k": ours.k,
            "batch": ours.batch,
            "measure": ours.measure,
            "reference_stop": "own" if other.measure == "own_stop" else "truth",
            "seconds": other.seconds_per_image / ours.seconds_per_image,
            "products": other.products_per_image / ours.products_per_image,
            "at_least": other.measure != "own_stop" and not other.reached,
            "ours_reached": ours.reached,
            "captured": {"clarep": ours.captured, "reference": other.captured},
            "angle": {"clarep": ours.angle, "reference": other.angle},
        }
        for ours in cases
        for other in cases
        if ours.method == "clarep" and other.method != "clarep" and ours.k == other.k
        if other.measure in ("own_stop", ours.measure)
    ]


def check_ks(ks: tuple[int, ...], shape: tuple[int, int]) -> None:
    """Raise UserError if a k is outside 1 to the smaller side of J (m, n)."""
    for k in ks:
        if not 1 <= k <= min(shape):
            raise UserError(
                f"k = {k} is outside 1 to {min(shape)}, what J at this tap has of singular "
                "values: choose fewer with `ks`"
            )
