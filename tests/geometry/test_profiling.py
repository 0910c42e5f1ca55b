"""What kernels are counted as, and what is measured of time, FLOP and memory."""

import pytest
import torch

from clarep.geometry import profiling


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("aten::linalg_vector_norm", "other"),
        ("aten::linalg_matrix_norm", "other"),
        ("aten::add", "other"),
        ("aten::upsample_bilinear2d", "other"),
        ("aten::linalg_qr", "factorisation"),
        ("aten::_linalg_eigh", "factorisation"),
        ("aten::_linalg_svd", "factorisation"),
        ("aten::geqrf", "factorisation"),
        ("aten::orgqr", "factorisation"),
        ("aten::mm", "arithmetic"),
        ("aten::bmm", "arithmetic"),
        ("aten::addmm", "arithmetic"),
        ("aten::linear", "arithmetic"),
        ("aten::mkldnn_convolution", "arithmetic"),
        ("aten::convolution_backward", "arithmetic"),
    ],
)
def test_kinds(kernel, kind):
    assert profiling.kind_of(kernel) == kind


def test_time_shares():
    a = torch.randn(300, 300)
    products = profiling.time_shares(lambda: [a @ a for _ in range(10)])
    assert sum(products.values()) == pytest.approx(1)
    assert products["arithmetic"] > 0.5
    assert products["factorisation"] == 0
    assert profiling.time_shares(lambda: torch.linalg.qr(a))["factorisation"] > 0.5
    norms = profiling.time_shares(lambda: torch.linalg.vector_norm(a))
    assert norms["other"] == 1


def test_flops_of_a_linear_layer():
    layer = torch.nn.Linear(5, 7, bias=False)
    assert profiling.forward_flops(layer, torch.randn(3, 5)) == 2 * 3 * 5 * 7


def test_peak_memory_sees_what_is_freed_again():
    with profiling.peak_memory() as peak:
        for _ in range(20):
            torch.ones(8 * 2**20)  # 32 MiB
    found = peak()
    assert found is None or 20 < found < 500
