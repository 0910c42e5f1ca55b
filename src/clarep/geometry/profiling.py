"""Where time and memory go: shares of CPU time by kind of kernel, FLOP, resident memory."""

import contextlib
import ctypes
import gc
import inspect
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

Kind = Literal["arithmetic", "factorisation", "other"]
_FACTORISATION = ("linalg_qr", "linalg_eigh", "linalg_svd", "geqrf", "orgqr")
_ARITHMETIC = ("mkldnn", "slow_conv", "thnn_conv", "convolution", "::mm", "bmm", "addmm")
_STATM = Path("/proc/self/statm")


def kind_of(kernel: str) -> Kind:
    """Return what a kernel, by its name such as aten::mm, is counted as."""
    if any(name in kernel for name in _FACTORISATION):
        return "factorisation"
    if kernel == "aten::linear" or any(name in kernel for name in _ARITHMETIC):
        return "arithmetic"
    return "other"


def time_shares(work: Callable[[], object]) -> dict[Kind, float]:
    """Do `work` and return the shares of its own CPU time, by torch.profiler.

    `arithmetic`: convolutions and matrix products; `factorisation`: QR, SVD, eigenvalues;
    `other`: element-wise kernels, norms, copies, dispatch.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it takes a machine without GPU for an error
    # Of torch 2.5: says that events are kept, without which there is a warning.
    known = "acc_events" in inspect.signature(profile).parameters
    keep: dict[str, Any] = {"acc_events": True} if known else {}
    with profile(activities=[ProfilerActivity.CPU], **keep) as profiler:
        work()
    spent: dict[Kind, float] = {"arithmetic": 0.0, "factorisation": 0.0, "other": 0.0}
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: value / total for kind, value in spent.items()}


def forward_flops(function: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Return the floating-point operations of one pass.

    A product with one direction, J or J^T, takes about as many beside the shared pass.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(x)
    return int(counter.get_total_flops())


def matmul_gflops(size: int = 1024, repeats: int = 8) -> float:
    """Return what this machine reaches in a square float32 matrix product, GFLOP/s."""
    a = torch.randn(size, size)
    a @ a
    started = time.perf_counter()
    for _ in range(repeats):
        a @ a
    return 2 * size**3 * repeats / (time.perf_counter() - started) / 1e9


def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], float | None]]:
    """Sample the resident memory every 5 ms, yielding a function that returns the peak in MiB.

    It is the peak above what was resident before, once freed memory has gone back to the
    system. The process's own high-water mark never falls, so it would show the largest case in
    all later ones. None where /proc does not tell it.
    """
    if not _STATM.exists():
        yield lambda: None
        return
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    before = peak = _resident_mb()
    stop = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, _resident_mb())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: peak - before
    finally:
        stop.set()
        thread.join()


def _resident_mb() -> float:
    pages = int(_STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
