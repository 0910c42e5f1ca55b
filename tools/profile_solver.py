"""Where the subspace solver's time goes: shares of CPU time by kind of kernel, and FLOP.

python tools/profile_solver.py [K] [BATCH], on the bundled teacher at its middle and t = 0.85.
"""

import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from clarep.clarid.clarid import Clarid
from clarep.data.load import DataConfig, load_data
from clarep.engine.arithmetic import CountedArithmetic
from clarep.teachers.zoo import load_teacher

KINDS = {
    "factorisation": ("linalg_qr", "linalg_eigh", "linalg_svd", "geqrf", "orgqr"),
    "arithmetic": ("mkldnn", "slow_conv", "thnn_conv", "convolution", "::mm", "bmm", "addmm"),
}


def kind_of(kernel: str) -> str:
    """Return what a kernel, by its name such as aten::mm, is counted as."""
    found = [kind for kind, names in KINDS.items() if any(name in kernel for name in names)]
    return found[0] if found else "arithmetic" if kernel == "aten::linear" else "other"


def main(k: int, batch: int) -> None:
    """Profile one solve and print the shares."""
    data = load_data(DataConfig())
    clarid = Clarid(load_teacher("backdrops"), t=0.85, k=k)
    images, labels = data.images(range(batch)), torch.tensor(data.labels[:batch])
    x_te, _ = clarid.invert(images, labels)
    clarid.directions(x_te[:1], labels[:1])  # what is loaded at first use
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        started = time.perf_counter()
        clarid.directions(x_te, labels)
        seconds = time.perf_counter() - started
    spent: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = kind_of(event.key)
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    with torch.no_grad(), CountedArithmetic() as counter:
        clarid.jacobian(x_te[:1], labels[:1])
    print(f"k = {k}, batch {batch}: {seconds / batch:.2f} s an image under the profiler")
    print(", ".join(f"{kind} {used / sum(spent.values()):.0%}" for kind, used in spent.items()))
    print(f"one pass to the tap: {counter.operations / 1e6:.0f} MFLOP")


if __name__ == "__main__":
    main(*map(int, (sys.argv[1:] + ["128", "16"][len(sys.argv) - 1 :])))
