"""The solver against dense float64 SVD, over a grid of spectra and shapes."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian
from clarep.geometry.subspace import Subspace, top_right_singular_subspace

M, N = 90, 120
INDEX = torch.arange(M, dtype=torch.float64)
SPECTRA = {
    "flat": torch.linspace(1, 0.8, M, dtype=torch.float64),
    "slow": (1 + INDEX / 10) ** -0.5,
    "fast": torch.exp(-INDEX / 4),
    "clustered": torch.tensor([2.0] * 3 + [1.0] * 30 + [0.1] * 57, dtype=torch.float64),
    "equal": torch.ones(M, dtype=torch.float64),
    "rank 20": torch.cat([torch.linspace(2, 1, 20), torch.zeros(M - 20)]).double(),
    "rank 3": torch.cat([torch.tensor([2.0, 1.5, 1.0]), torch.zeros(M - 3)]).double(),
}
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}


@functools.cache
def operator(*names, m=M, n=N, dtype=torch.float64, scale=1.0):
    """Dense J (B, m, n), one image a name of SPECTRA."""
    generator = torch.Generator().manual_seed(3)
    count = min(m, n)
    parts = []
    for name in names:
        left = torch.linalg.qr(torch.randn(m, count, generator=generator, dtype=torch.float64))[0]
        right = torch.linalg.qr(torch.randn(n, count, generator=generator, dtype=torch.float64))[0]
        parts.append(left * (scale * SPECTRA[name][:count]) @ right.mT)
    return torch.stack(parts).to(dtype)


class Counted:
    """The products with a dense J, counting the columns."""

    def __init__(self, jacobian):
        self.jacobian, self.columns = jacobian, 0

    def matmat(self, V):
        self.columns += V.shape[2]
        return self.jacobian @ V

    def rmatmat(self, U):
        self.columns += U.shape[2]
        return self.jacobian.mT @ U


def solve(jacobian, k, seed=0, **options) -> Subspace:
    counted = Counted(jacobian)
    found = top_right_singular_subspace(
        counted.matmat,
        counted.rmatmat,
        tuple(jacobian.shape[1:]),
        k,
        generator=torch.Generator().manual_seed(seed),
        batch=len(jacobian),
        dtype=jacobian.dtype,
        **options,
    )
    assert found.products == counted.columns
    return found


def missing_share(jacobian, found):
    """What the subspace lacks of the optimal energy, (B,)."""
    jacobian = jacobian.double()
    optimal = torch.linalg.svdvals(jacobian)[:, : found.V.shape[2]].square().sum(1)
    return 1 - (jacobian @ found.V.double()).square().sum((1, 2)) / optimal


def worst_angle(jacobian, found):
    """The largest principal angle to the true subspace, (B,), radians."""
    k = found.V.shape[2]
    truth = torch.linalg.svd(jacobian.double(), full_matrices=True)[2][:, :k].mT
    beyond = found.V.double() - truth @ (truth.mT @ found.V.double())
    return torch.linalg.matrix_norm(beyond, ord=2).clamp(max=1).asin()


def assert_sound(jacobian, found, k):
    """What holds whatever the tolerance: a basis, its singular values, its certificate."""
    eps = ROUNDING[jacobian.dtype]
    exact, V = jacobian.double(), found.V.double()
    top = torch.linalg.svdvals(exact)
    scale = top[:, :1]
    assert V.shape == (len(exact), exact.shape[2], k)
    assert (V.mT @ V - torch.eye(k)).abs().max() < eps
    reached = (exact @ V).norm(dim=1)
    values = found.singular_values.double()
    assert ((reached - values).abs() <= 10 * eps * scale).all()
    assert (values[:, :-1] - values[:, 1:] >= -eps * scale).all()
    short = torch.nn.functional.pad(top, (0, max(0, k - top.shape[1])))[:, :k]
    assert (values <= short + max(10 * eps, 1e-8) * scale).all()  # below that they mix
    residual = (exact.mT @ (exact @ V) - values[:, None] ** 2 * V).norm(dim=1)
    assert ((residual - found.residuals.double()).abs() <= 10 * eps * scale**2).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [1, 5, 24])
@pytest.mark.parametrize("name", SPECTRA)
def test_energy_is_within_the_tolerance(name, k, dtype):
    jacobian = operator(name, name, dtype=dtype)
    found = solve(jacobian, k, tolerance=0.01)
    assert_sound(jacobian, found, k)
    assert missing_share(jacobian, found).max() <= 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "k"),
    [
        *(("slow", k) for k in (1, 8)),
        *(("fast", k) for k in (1, 10, 20)),
        *(("clustered", k) for k in (3, 33)),
        *(("rank 3", k) for k in (2, 3)),
        ("rank 20", 20),
    ],
)
def test_angle_is_within_twice_the_tolerance(name, k, dtype):
    jacobian = operator(name, name, dtype=dtype)
    found = solve(jacobian, k, measure="angle", tolerance=0.01)
    assert_sound(jacobian, found, k)
    assert worst_angle(jacobian, found).max() <= 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
def test_all_directions_are_an_orthonormal_basis_of_the_space(name, dtype):
    jacobian = operator(name, dtype=dtype)
    found = solve(jacobian, N)
    assert_sound(jacobian, found, N)
    assert missing_share(jacobian, found).abs().max() < 10 * ROUNDING[dtype]


@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize(("m", "n"), [(40, 90), (90, 40), (5, 60), (60, 60), (1, 50)])
def test_shapes(m, n, k):
    jacobian = operator("slow", "fast", m=m, n=n)
    found = solve(jacobian, k)
    assert_sound(jacobian, found, k)
    assert missing_share(jacobian, found).max() <= 0.02


def test_one_column():
    jacobian = operator("slow", m=30, n=1)
    assert_sound(jacobian, solve(jacobian, 1), 1)


@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_units_change_nothing(scale):
    found = solve(operator("slow", dtype=torch.float32), 6)
    scaled = solve(operator("slow", dtype=torch.float32, scale=scale), 6)
    assert scaled.products == found.products
    assert torch.allclose(scaled.singular_values, scale * found.singular_values, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [2, 12, 30])
def test_images_of_different_spectra_share_a_batch(k, dtype):
    jacobian = operator(*SPECTRA, dtype=dtype)
    found = solve(jacobian, k)
    assert_sound(jacobian, found, k)
    assert missing_share(jacobian, found).max() <= 0.02


@pytest.mark.parametrize("block_size", [3, 50, 200])
def test_block_size(block_size):
    jacobian = operator("slow", "fast")
    found = solve(jacobian, 10, block_size=block_size)
    assert_sound(jacobian, found, 10)
    assert missing_share(jacobian, found).max() <= 0.02


def test_a_multiplicity_larger_than_the_block():
    jacobian = operator("clustered")
    found = solve(jacobian, 33, measure="angle", tolerance=1e-3, block_size=4)
    assert_sound(jacobian, found, 33)
    assert worst_angle(jacobian, found).max() <= 2e-3


def test_more_directions_than_the_rank_have_singular_value_zero():
    jacobian = operator("rank 3", dtype=torch.float32)
    found = solve(jacobian, 12)
    assert_sound(jacobian, found, 12)
    assert found.singular_values[:, 3:].abs().max() < 1e-4


def test_a_closed_space_is_exact():
    found = solve(operator("rank 3"), 2)
    assert found.error.eq(0).all()
    assert found.residuals.max() < 1e-12


@pytest.mark.parametrize("measure", ["energy", "angle"])
def test_a_warm_start_saves_products(measure):
    jacobian = operator("slow", "slow")
    truth = solve(jacobian, 16, exact=True).V
    near = truth + 1e-3 * torch.randn(
        truth.shape, generator=torch.Generator().manual_seed(1), dtype=truth.dtype
    )
    tolerance = {"energy": 1e-3, "angle": 1e-2}[measure]
    cold = solve(jacobian, 16, measure=measure, tolerance=tolerance)
    warm = solve(jacobian, 16, measure=measure, tolerance=tolerance, start=near)
    assert_sound(jacobian, warm, 16)
    assert missing_share(jacobian, warm).max() <= 0.02
    assert warm.products < cold.products


@pytest.mark.parametrize("width", [1, 5, 60, N])
def test_a_start_of_any_width(width):
    jacobian = operator("slow")
    start = torch.randn(1, N, width, generator=torch.Generator().manual_seed(2)).double()
    found = solve(jacobian, 16, start=start, block_size=8)
    assert_sound(jacobian, found, 16)
    assert missing_share(jacobian, found).max() <= 0.02


@pytest.mark.parametrize(("width", "k"), [(1, 8), (8, 8), (30, 30)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_start_in_the_null_space(width, k, dtype):
    jacobian = operator("slow", dtype=torch.float64)
    null = torch.linalg.svd(jacobian)[2][:, N - width :].mT.to(dtype)  # 30 of N directions
    jacobian = jacobian.to(dtype)
    found = solve(jacobian, k, start=null)
    assert_sound(jacobian, found, k)
    assert missing_share(jacobian, found).max() <= 0.01


@pytest.mark.parametrize("name", ["flat", "slow", "equal"])
def test_max_products_is_respected(name):
    jacobian = operator(name)
    k, limit = 24, 90
    found = solve(jacobian, k, measure="angle", tolerance=1e-9, max_products=limit)
    assert_sound(jacobian, found, k)
    least = solve(jacobian, k, max_products=1).products
    assert least <= 6 * k
    assert found.products <= max(limit + 2 * 6, least)


def test_the_same_seed_gives_the_same_bytes():
    jacobian = operator("slow", "rank 3", dtype=torch.float32)
    a, b, c = (solve(jacobian, 8, seed=seed) for seed in (1, 1, 2))
    assert a.V.numpy().tobytes() == b.V.numpy().tobytes()
    assert a.residuals.numpy().tobytes() == b.residuals.numpy().tobytes()
    assert not torch.equal(a.V, c.V)


@pytest.mark.parametrize("k", [0, -1, N + 1])
def test_k_outside_the_dimension(k):
    with pytest.raises(UserError, match=f"k = {k} is outside 1 to {N}"):
        solve(operator("slow"), k)
    with pytest.raises(UserError, match=f"k = {k} is outside 1 to {N}"):
        solve(operator("slow"), k, exact=True)


@pytest.mark.parametrize("exact", [False, True])
def test_a_zero_jacobian(exact):
    with pytest.raises(UserError, match="the Jacobian is zero"):
        solve(torch.zeros(2, M, N), 4, exact=exact)


def test_a_constant_network():
    jacobian = Jacobian(lambda x: torch.ones(len(x), 7), torch.randn(2, 5))
    with pytest.raises(UserError, match="the Jacobian is zero"):
        top_right_singular_subspace(
            jacobian.matmat, jacobian.rmatmat, (7, 5), 2, generator=torch.Generator(), batch=2
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", [0, 1, 2, 3])
def test_a_product_that_is_not_finite(call, bad):
    jacobian, calls = operator("slow"), iter(range(100))

    def spoilt(product):
        return product * bad if next(calls) == call else product

    with pytest.raises(UserError, match="not finite"):
        top_right_singular_subspace(
            lambda V: spoilt(jacobian @ V),
            lambda U: spoilt(jacobian.mT @ U),
            (M, N),
            12,
            generator=torch.Generator().manual_seed(0),
            dtype=torch.float64,
        )


@pytest.mark.parametrize(("m", "n"), [(40, 90), (90, 40), (60, 60)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [1, 20, 40])
def test_exact(k, dtype, m, n):
    jacobian = operator("slow", "fast", m=m, n=n, dtype=dtype)
    found = solve(jacobian, k, exact=True)
    assert_sound(jacobian, found, k)
    assert found.products == min(m, n)
    assert found.error.eq(0).all()
    truth = torch.linalg.svdvals(jacobian.double())[:, :k]
    assert torch.allclose(found.singular_values.double(), truth, atol=10 * ROUNDING[dtype])
    assert found.residuals.max() < 10 * ROUNDING[dtype]
    assert worst_angle(jacobian, found).max() < (1e-6 if dtype == torch.float64 else 1e-2)


def test_exact_of_all_directions_of_a_wide_jacobian():
    jacobian = operator("rank 20", m=40, n=90)
    assert_sound(jacobian, solve(jacobian, 90, exact=True), 90)


def test_exact_of_a_jacobian_that_is_not_finite():
    with pytest.raises(UserError, match="not finite"):
        solve(torch.full((1, 3, 4), float("nan")), 2, exact=True)


def test_exact_takes_the_products_of_a_network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(12, 9), torch.nn.Tanh()).requires_grad_(False)
    jacobian = Jacobian(net, torch.randn(3, 12), memory_mb=1e-9)  # direction by direction
    generator = torch.Generator().manual_seed(0)
    products = jacobian.matmat, jacobian.rmatmat
    found = top_right_singular_subspace(
        *products, (9, 12), 4, generator=generator, batch=3, exact=True
    )
    assert found.products == jacobian.products == 9
    assert_sound(jacobian.dense(), found, 4)


def test_on_a_network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.SiLU(), torch.nn.Linear(40, 25))
    jacobian = Jacobian(net.requires_grad_(False), torch.randn(3, 30))
    found = top_right_singular_subspace(
        jacobian.matmat,
        jacobian.rmatmat,
        (25, 30),
        5,
        generator=torch.Generator().manual_seed(0),
        batch=3,
    )
    assert found.products == jacobian.products
    assert_sound(jacobian.dense(), found, 5)
    assert missing_share(jacobian.dense(), found).max() <= 0.02


@settings(max_examples=25, deadline=None)
@given(
    k=st.integers(1, 12),
    m=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    exponent=st.floats(0, 3),
)
def test_projecting_the_subspace_away(k, m, seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    n = 12
    decay = torch.arange(1, n + 1, dtype=torch.float64) ** -exponent
    jacobian = torch.randn(2, m, n, generator=generator, dtype=torch.float64) * decay
    V = solve(jacobian, k, seed=seed).V
    x = torch.randn(2, n, 3, generator=generator, dtype=torch.float64)

    def project(x):
        return x - V @ (V.mT @ x)

    rest = project(x)
    assert torch.allclose(project(rest), rest, atol=1e-12)
    assert (V.mT @ rest).abs().max() < 1e-12
    assert (rest.norm(dim=1) <= x.norm(dim=1) * (1 + 1e-12)).all()
    if k == n:
        assert rest.abs().max() < 1e-12
