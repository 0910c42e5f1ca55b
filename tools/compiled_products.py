"""What compiling gains: eager over compiled seconds of J V, J^T U and a denoiser's pass, in turn.

python tools/compiled_products.py [BATCH] [WIDTH], on the bundled teacher at its middle. Seconds are
the processor's, of all threads, and medians of rounds in one process; the first lines tell what
the compile took, here and in g++, which is little where torch has it on the disk already.
"""

import resource
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from clarep.geometry.compiled import CompiledJacobian, CompiledProducts
from clarep.geometry.jacobian import Jacobian
from clarep.teachers.zoo import load_teacher

ROUNDS = 15


def timed(work: Callable[[], object]) -> float:
    """Return the processor's seconds that a call takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def first(name: str, work: Callable[[], object]) -> None:
    """Call what compiles at its first call, and print what that took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    here = timed(work)
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    print(f"{name}: {here:.1f} s here, {others:.1f} s in g++", flush=True)


@torch.no_grad()
def main(batch: int, width: int) -> None:
    """Compile, compare, print."""
    teacher, generator = load_teacher("backdrops"), torch.Generator().manual_seed(0)
    x = 4 * torch.randn(batch, *teacher.latent_shape, generator=generator)
    given = x.new_full((batch,), 4.0), teacher.condition(torch.arange(batch) % 10)

    def features(x: torch.Tensor, sigma: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return teacher.features(x, sigma, cond, teacher.default_tap)

    eager = Jacobian(lambda y: features(y, *given), x)
    ours = CompiledJacobian(CompiledProducts(features, batch), x, given)
    V = torch.randn(batch, eager.n, width, generator=generator)
    U = torch.randn(batch, eager.m, width, generator=generator)
    denoise = torch.compile(teacher.denoise, dynamic=False)
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "J V": (lambda: eager.matmat(V), lambda: ours.matmat(V)),
        "J^T U": (lambda: eager.rmatmat(U), lambda: ours.rmatmat(U)),
        "denoise": (lambda: teacher.denoise(x, *given), lambda: denoise(x, *given)),
    }
    for name, (_, compiled) in works.items():
        first(f"compile of {name}", compiled)
    for name, pair in works.items():
        rounds = [tuple(timed(work) for work in pair) for _ in range(ROUNDS)]
        plain, compiled_s = (median(part) for part in zip(*rounds, strict=True))
        print(f"{name}: {plain / compiled_s:.2f} times as quick compiled", flush=True)


if __name__ == "__main__":
    main(*map(int, (sys.argv[1:] + ["16", "16"][len(sys.argv) - 1 :])))
