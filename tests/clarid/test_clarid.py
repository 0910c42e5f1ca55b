"""CLARID on a teacher that is linear, so that numpy knows the answer."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.directions import find_directions, k_for_energy, parse_k, project_out
from clarep.errors import UserError
from clarep.geometry.jacobian import Jacobian
from clarep.select.teacher_findings import engines
from clarep.teachers.teacher import Teacher

N = 48
TIGHT = {"measure": "angle", "tolerance": 1e-6}


def without(x, V):
    """numpy's x - V V^T x, with V V^T formed."""
    flat = x.flatten(1).numpy()
    projectors = V.numpy() @ V.mT.numpy()
    gone = np.einsum("bij,bj->bi", projectors, flat)
    return torch.from_numpy(flat - gone).reshape(x.shape)


def clarid_of(teacher, **settings):
    return Clarid(teacher, **({"sigma": 2.0, "steps": 6, "k": 5} | settings))


@pytest.mark.parametrize("tap", ["block1", "block2"])
@pytest.mark.parametrize("k", [1, 5, 15])
def test_the_clarep_is_numpys_projection(teacher, images, labels, tap, k):
    reps = clarid_of(teacher, tap=tap, k=k, **TIGHT)(images, labels)
    x_te = reps.x_te
    values, vectors = teacher.right_vectors(labels, tap)
    expected = without(x_te, vectors[:, :, :k])
    assert float((reps.latent - expected).abs().max()) < 1e-5
    assert torch.allclose(reps.singular_values, values[:, :k], rtol=1e-6)
    removed = (x_te - expected).norm() / x_te.norm()
    assert float(removed) > 0.02  # else the comparison would say nothing


def test_the_default_tolerance_holds_the_energy_it_promises(teacher, images, labels):
    clarid = clarid_of(teacher, k=5)
    x_te, _ = clarid.invert(images, labels)
    V = clarid.directions(x_te, labels).V
    matrices = teacher.matrix(labels, "block2")
    captured = (matrices @ V).square().sum((1, 2))
    best = teacher.right_vectors(labels)[0][:, :5].square().sum(1)
    assert bool((captured / best > 0.985).all())


def test_no_norm_is_restored(teacher, images, labels):
    for rep in clarid_of(teacher, k=15, **TIGHT)(images, labels):
        removed = rep.x_te - rep.latent
        squares = rep.latent.square().sum() + removed.square().sum()
        assert float(squares) == pytest.approx(float(rep.x_te.square().sum()), rel=1e-9)
        assert float(rep.latent.norm()) < 0.97 * float(rep.x_te.norm())


@pytest.mark.parametrize("tap", ["block1", "block2"])
def test_k_of_all_dimensions_leaves_nothing(teacher, images, labels, tap):
    reps = clarid_of(teacher, k=N, tap=tap)(images, labels)
    assert float(reps.latent.abs().max()) < 1e-9
    assert float(reps.x_te.abs().max()) > 1


@pytest.mark.parametrize(
    ("k", "count"),
    [(1, 1), (7, 7), (48, 48), (7.0, 7), (0.04, 2), (0.5, 24), (0.999, 48), (1.0, 1)],
)
def test_k_as_a_number_or_a_share(k, count):
    assert parse_k(k, N) == count


@pytest.mark.parametrize("k", [0, -3, 49, 1.5, 0.0, -0.5, 0.001, math.nan, math.inf, -math.inf])
def test_k_that_makes_no_sense(k):
    with pytest.raises(UserError, match=rf"k = {k}"):
        parse_k(k, N)


@pytest.mark.parametrize("k", ["energy:1", "energy:0", "energy:2", "energy:-1", "energy:nan"])
def test_k_of_no_share_of_the_energy(k):
    with pytest.raises(UserError, match=r"between 0 and 1, of the energy \(energy:0.8\)"):
        parse_k(k, N)


@pytest.mark.parametrize("k", ["energy:", "energy:much", "half", "0,5", ""])
def test_k_that_is_not_understood(k):
    with pytest.raises(UserError, match="is not understood: give a number"):
        parse_k(k, N)


@pytest.mark.parametrize("tap", ["block1", "block2"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_share_of_energy(teacher, images, labels, tap, share):
    clarid = clarid_of(teacher, k=f"energy:{share}", tap=tap, **TIGHT)
    assert clarid.num_dirs is None
    reps = clarid(images, labels)
    squares = teacher.right_vectors(labels, tap)[0].numpy() ** 2
    counts = [
        next(k for k in range(1, N + 1) if row[:k].sum() >= share * row.sum() - 1e-12)
        for row in squares
    ]
    expected = sorted(counts)[(len(counts) - 1) // 2]  # torch's median is the lower one
    assert clarid.num_dirs == reps.singular_values.shape[1] == expected
    assert clarid.ledger.jacobian_products >= 4 * min(teacher.taps()[tap][0], N)


def test_a_share_of_energy_is_settled_by_the_first_images(teacher, images, labels):
    clarid = clarid_of(teacher, k="energy:0.9")
    settled = clarid(images[:1], labels[:1]).singular_values.shape[1]
    assert clarid(images, labels).singular_values.shape == (4, settled)
    jacobian = clarid.jacobian(images, labels)
    assert k_for_energy(jacobian, 0.2) < k_for_energy(jacobian, 0.99)


@pytest.mark.parametrize("k", [1, 4, 18])
@pytest.mark.parametrize(
    "part",
    [("middle", "block1"), ("middle", "block2"), ("bottom", "block1"), ("top", "block1")],
)
def test_kinds_are_parts_of_numpys_spectrum(teacher, images, labels, part, k):
    kind, tap = part
    reps = clarid_of(teacher, kind=kind, k=k, tap=tap, **TIGHT)(images, labels)
    values, vectors = teacher.right_vectors(labels, tap)
    first = {"top": 0, "middle": (values.shape[1] - k) // 2, "bottom": N - k}[kind]
    expected = without(reps.x_te, vectors[:, :, first : first + k])
    assert float((reps.latent - expected).abs().max()) < 1e-5
    expected_values = values[:, first : first + k]
    assert torch.allclose(reps.singular_values, expected_values, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("k", [5, 28, 29, 40])
def test_bottom_of_a_wide_jacobian(teacher, images, labels, k):
    """20 features of 48 dimensions: 28 directions are of singular value 0."""
    reps = clarid_of(teacher, kind="bottom", k=k)(images, labels)
    values, vectors = teacher.right_vectors(labels)
    if k >= 28:
        expected = without(reps.x_te, vectors[:, :, N - k :])
        assert float((reps.latent - expected).abs().max()) < 1e-6
    removed = reps.x_te - reps.latent
    assert all(int(torch.count_nonzero(one)) == N for one in removed)
    seen = teacher.matrix(labels, "block2") @ removed.flatten(1)[:, :, None]
    largest = values[:, N - k] if k > 28 else torch.full((4,), 1e-12)
    assert bool((seen.norm(dim=(1, 2)) <= largest * removed.flatten(1).norm(dim=1) + 1e-9).all())


def test_middle_wider_than_the_features(teacher, images, labels):
    clarid = clarid_of(teacher, kind="middle", k=30)
    V = clarid.directions(images, labels).V
    assert V.shape == (4, N, 30)
    assert torch.allclose(V.mT @ V, torch.eye(30, dtype=V.dtype).expand(4, -1, -1), atol=1e-9)


def test_random_directions_are_orthonormal_and_their_own_for_each_image(teacher, images, labels):
    clarid = clarid_of(teacher, kind="random", k=6)
    subspace = clarid.directions(images, labels, seed=3)
    V = subspace.V
    assert torch.allclose(V.mT @ V, torch.eye(6, dtype=V.dtype).expand(4, -1, -1), atol=1e-9)
    assert bool(subspace.singular_values.isnan().all())
    assert float((V[0].mT @ V[1]).abs().max()) < 0.9
    reps = clarid(images, labels, seed=3)
    expected = without(reps.x_te, V)
    assert float((reps.latent - expected).abs().max()) < 1e-9


def test_none_leaves_the_latent_as_it_is(teacher, images, labels):
    reps = clarid_of(teacher, kind="none")(images, labels)
    assert torch.equal(reps.latent, reps.x_te)
    assert reps.singular_values.shape == (4, 0)


def test_the_null_branch_is_another_jacobian(teacher, images, labels):
    null = torch.full_like(labels, teacher.null_label)
    by_branch = {}
    for branch, used in (("null", null), ("conditional", labels)):
        reps = clarid_of(teacher, branch=branch, **TIGHT)(images, labels)
        _, vectors = teacher.right_vectors(used)
        expected = without(reps.x_te, vectors[:, :, :5])
        by_branch[branch] = reps.latent
        assert float((by_branch[branch] - expected).abs().max()) < 1e-5
        # The canonical features are those of the class, whatever the branch of the Jacobian.
        features = teacher.features(by_branch[branch], torch.full((4,), 2.0), labels, "block2")
        assert torch.allclose(reps.features, features)
    assert float((by_branch["null"] - by_branch["conditional"]).abs().max()) > 0.01


def test_features_under_the_class_and_under_none(teacher, images, labels):
    clarid = clarid_of(teacher)
    null = torch.full_like(labels, teacher.null_label)
    for branch, used in (("conditional", labels), ("null", null)):
        expected = teacher.features(images, torch.full((4,), 2.0), used, "block2")
        assert torch.equal(clarid.features(images, labels, branch), expected)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 7.0])
def test_features_and_jacobian_are_taken_at_sigma_te(teacher, images, labels, sigma):
    reps = clarid_of(teacher, sigma=sigma, **TIGHT)(images, labels)
    at_sigma_te = torch.full((4,), sigma, dtype=torch.float64)
    expected = teacher.features(reps.latent, at_sigma_te, labels, "block2")
    assert torch.allclose(reps.features, expected, rtol=1e-12)
    values = np.linalg.svd(teacher.matrix(labels, "block2", sigma).numpy(), compute_uv=False)
    assert np.allclose(reps.singular_values.numpy(), values[:, :5], rtol=1e-6)


def test_inversion_follows_the_exact_ode(teacher, images, labels):
    x_te, psnr = clarid_of(teacher, steps=60).invert(images, labels)
    assert float((x_te - teacher.at(images * 2 - 1, labels, 2.0)).abs().max()) < 0.01
    assert bool((psnr > 60).all())


def test_guidance_1_without_projection_reproduces_the_image(teacher, images, labels):
    reps = clarid_of(teacher, kind="none", guidance=1.0, steps=60)(images, labels)
    # Decoding ends at noise level 0, and so a last step nearer to the mean than the image.
    assert float((reps.sample - (images * 2 - 1)).abs().max()) < 5e-3
    assert bool((reps.round_trip_psnr > 60).all())


@pytest.mark.parametrize("pair", [("heun", "heun"), ("fixed_point", "euler"), ("euler", "euler")])
def test_every_pair_of_solvers_makes_the_round_trip(teacher, images, labels, pair):
    inversion, solver = pair
    reps = clarid_of(teacher, inversion=inversion, solver=solver, steps=50)(images, labels)
    floor = {"heun": 50, "fixed_point": 55, "euler": 20}[inversion]
    assert bool((reps.round_trip_psnr > floor).all())


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_the_sample_is_the_guided_decoding_of_the_clarep(teacher, images, labels, guidance):
    """Guidance g moves a Gaussian class's mean to g times itself, as the null mean is 0."""
    reps = clarid_of(teacher, guidance=guidance, steps=80)(images, labels)
    mean = guidance * teacher.mean(labels)
    shrink = 0.5 / math.sqrt(0.25 + 4)
    expected = mean + (reps.latent - mean) * shrink
    assert float((reps.sample - expected).abs().max()) < 0.01
    assert float(teacher.mean(labels).abs().max()) > 0.5


def test_t_and_sigma_are_two_names_of_one_level(teacher, images, labels):
    t = 2 * math.atan(2.0) / math.pi
    by_t = clarid_of(teacher, t=t, sigma=None)
    assert by_t.sigma_te == pytest.approx(2.0, rel=1e-12)
    assert Clarid(teacher).sigma_te == pytest.approx(math.tan(math.pi * 0.85 / 2))
    reps = clarid_of(teacher, sigma=0.5)(images, labels)
    assert reps.sigma_te == 0.5
    assert torch.allclose(reps.x_te, teacher.at(images * 2 - 1, labels, 0.5), atol=0.03)


def test_mid_is_the_familys_default_tap(teacher, images, labels):
    clarid = clarid_of(teacher)
    assert clarid.tap == "block2"
    assert clarid(images, labels).tap == "block2"
    assert clarid_of(teacher, tap="block1").tap == "block1"


def test_what_a_clarep_knows_of_its_image(teacher, images, labels):
    reps = clarid_of(teacher)(images, labels, indices=[9, 4, 7, 30])
    assert reps.index.tolist() == [9, 4, 7, 30] and reps.label.tolist() == [0, 2, 1, 2]
    assert torch.allclose(reps.original, images * 2 - 1)
    assert clarid_of(teacher)(images, labels).index.tolist() == [0, 1, 2, 3]


def everything(reps):
    return {name: tensor.numpy().tobytes() for name, tensor in reps.tensors.items()}


@pytest.mark.parametrize("kind", ["top", "contrast", "mask", "centre", "random", "bottom"])
def test_the_same_seed_gives_the_same_bytes(teacher, images, labels, kind):
    clarid = clarid_of(teacher, kind=kind)
    first = everything(clarid(images, labels, seed=5))
    assert everything(clarid(images, labels, seed=5)) == first
    assert everything(clarid_of(teacher, kind=kind)(images, labels, seed=5)) == first


@pytest.mark.parametrize("kind", ["random", "bottom"])
def test_another_seed_gives_other_directions(teacher, images, labels, kind):
    clarid = clarid_of(teacher, kind=kind)
    one, two = (clarid(images, labels, seed=seed).latent for seed in (5, 6))
    assert float((one - two).abs().max()) > 0.01


def test_a_condition_of_tokens(teacher, text_teacher, images, labels):
    """Batch first is all that is asked of a condition: here (B, 2, 5), as of a text encoder."""
    assert text_teacher.condition(labels).shape == (4, 2, 5)
    for branch in ("conditional", "null"):
        settings = {"branch": branch, "guidance": 2.0}
        plain = everything(clarid_of(teacher, **settings)(images, labels))
        assert everything(clarid_of(text_teacher, **settings)(images, labels)) == plain


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, 1), (3.0, 2), (0.0, 2)])
def test_denoiser_evaluations_are_those_that_the_teacher_saw(
    teacher, images, labels, guidance, passes
):
    clarid = clarid_of(teacher, guidance=guidance)
    clarid(images, labels)
    # 6 Heun steps up, 6 down, and 6 with a last Euler step to 0, for 4 images.
    assert teacher.denoised == 4 * (12 + 12 + 13 * passes)
    assert clarid.ledger.denoiser_evaluations == teacher.denoised
    clarid(images[:1], labels[:1])
    assert clarid.ledger.denoiser_evaluations == teacher.denoised
    assert clarid.ledger.images == 5


@pytest.mark.parametrize(
    "kind", ["top", "contrast", "mask", "centre", "bottom", "middle", "random", "none"]
)
def test_jacobian_products_are_those_that_were_made(teacher, images, labels, kind, monkeypatch):
    clarid = clarid_of(teacher, kind=kind)
    clarid.jacobian(images, labels)  # probes the engine, which no ledger counts
    made = 0

    def counting(product):
        def counted(self, block):
            nonlocal made
            made += block.shape[0] * block.shape[2]
            return product(self, block)

        return counted

    for name in ("matmat", "rmatmat"):
        monkeypatch.setattr(Jacobian, name, counting(getattr(Jacobian, name)))
    clarid(images, labels)
    assert clarid.ledger.jacobian_products == made
    dense = 4 * 20
    solved = (4 * 2 * 5, 4 * 100)
    bounds = dict.fromkeys(("top", "contrast", "mask", "centre"), solved)
    bounds |= dict.fromkeys(("bottom", "middle"), (dense, dense))
    low, high = bounds.get(kind, (0, 0))
    assert low <= made <= high


def test_the_engines_that_a_trial_probes_are_probed_once(teacher, images, labels, monkeypatch):
    monkeypatch.delattr("clarep.clarid.clarid.probe_engine")
    clarid = clarid_of(teacher)
    _, found, _ = engines(clarid, images[:1], labels[:1])
    assert clarid.engine == found["engine"] == "forward"
    assert clarid.directions(images, labels).V.shape == (4, N, 5)


def test_the_ledger_knows_its_stages(teacher, images, labels):
    clarid = clarid_of(teacher, k="energy:0.5")
    clarid(images, labels)
    cost = clarid.ledger.as_dict()
    stages = ["invert", "round trip", "resolve k", "directions", "features", "sample"]
    assert list(cost["seconds"]) == stages
    assert cost["peak_memory_mb"] > 50


@pytest.mark.parametrize("settings", [{"kind": "random"}, {"kind": "none", "k": "energy:0.5"}])
def test_what_needs_no_jacobian_takes_a_teacher_without_one(teacher, images, labels, settings):
    clarid = clarid_of(teacher, **settings)
    clarid.jacobian = lambda *_: pytest.fail("a Jacobian was asked for")
    assert len(clarid(images, labels)) == len(images)


def test_find_directions_and_project_out_need_no_clarid(images):
    matrix = torch.diag(torch.arange(N, 0, -1, dtype=torch.float64))
    jacobian = Jacobian(lambda x: x.flatten(1) @ matrix, images)
    generator = torch.Generator().manual_seed(0)
    subspace = find_directions(jacobian, "top", 3, generator, measure="angle", tolerance=1e-7)
    latents = project_out(images, subspace.V).flatten(1)
    assert float(latents[:, :3].abs().max()) < 1e-6
    assert torch.allclose(latents[:, 3:], images.flatten(1)[:, 3:], atol=1e-6)


WRONG = {
    "both": ({"t": 0.5}, "both t and sigma are given"),
    "sigma too high": ({"sigma": 81.0}, "sigma 81 is outside the teacher's range"),
    "sigma too low": ({"sigma": 0.01}, "sigma 0.01 is outside"),
    "sigma is no number": ({"sigma": math.nan}, "`sigma=nan` is not finite"),
    "t": ({"sigma": None, "t": 1.0}, r"t 1 is outside \(0, 1\)"),
    "t of no trained level": ({"sigma": None, "t": 0.999}, "outside the teacher's range"),
    "tap": ({"tap": "blok2"}, "unknown tap 'blok2': did you mean block2"),
    "k": ({"k": 49}, "k = 49 means 49 directions, outside 1 to 48"),
    "k is a truth value": ({"k": True}, "`k=True` is of type bool"),
    "k is not understood": ({"k": "lots"}, "k = 'lots' is not understood"),
    "guidance": ({"guidance": -1.0}, "`guidance=-1.0` is below 0"),
    "guidance is no number": ({"guidance": math.nan}, "`guidance=nan` is not finite"),
    "tolerance": ({"tolerance": 1.0}, "`tolerance=1.0` is outside"),
    "steps": ({"steps": 0}, "`steps=0` is below 1"),
    "batch size": ({"batch_size": 0}, "`batch_size=0` is below 1: give 25"),
    "memory": ({"memory_mb": 0.0}, "`memory_mb=0.0` is not above 0"),
    "fixed_point": ({"inversion": "fixed_point"}, "solver is heun: choose `solver=euler` with it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_setting_that_does_not_fit_is_refused_at_once(teacher, case):
    settings, words = WRONG[case]
    with pytest.raises(UserError, match=words):
        clarid_of(teacher, **settings)


def test_images_and_labels_that_do_not_fit(teacher, images, labels):
    clarid = clarid_of(teacher)
    with pytest.raises(UserError, match="images are 3x4x5"):
        clarid(torch.zeros(4, 3, 4, 5), labels)
    with pytest.raises(UserError, match="images are 1x4x4"):
        clarid(images[:, :1], labels)
    for wrong in (3, -1):  # 3 is the null label
        with pytest.raises(UserError, match=f"label {wrong} is outside the teacher's classes 0"):
            clarid(images, torch.tensor([0, 1, wrong, 2]))
    assert teacher.denoised == 0


def test_images_that_are_not_in_range(teacher, images, labels):
    clarid = clarid_of(teacher)
    for wrong in (images * 255, images + 0.5, images * 2 - 1, images * math.nan, images / 0):
        with pytest.raises(
            UserError, match=r"give finite values in \[0, 1\]; .*\(images \+ 1\) / 2"
        ):
            clarid(wrong, labels)
    assert len(clarid((images * 1.0005).clamp_max(1.0005), labels)) == 4  # rounding
    teacher.denoised = 0
    with pytest.raises(UserError, match=r"give finite values in \[-1, 1\]; clarep.to_unit_ra"):
        teacher.accept_images(images * 127.5)
    with pytest.raises(UserError, match=r"images are torch.uint8: give float in \[-1, 1\]"):
        teacher.accept_images(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"images have 3 dimensions: .* one alone is images\[None"):
        teacher.accept_images(images[0])
    with pytest.raises(UserError, match="the batch holds no images"):
        teacher.accept_images(images[:0])
    assert teacher.denoised == 0
    teacher.accept_images(images * 1.0005)


@pytest.mark.parametrize(
    "turn",
    [
        lambda x, y: (x.numpy(), y.numpy()),
        lambda x, y: (x.numpy(), y.tolist()),
        lambda x, y: (x, y.to(torch.uint8)),
        lambda x, y: (x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), y),
        lambda x, y: (x.clone().requires_grad_(), y),
        lambda x, y: (x.numpy()[:, :, ::-1][:, :, ::-1], ["cat", "owl", "dog", "owl"]),
        lambda x, y: (x, np.array(["cat", "owl", "dog", "owl"])),
    ],
    ids=["arrays", "list", "uint8 labels", "layout", "graph", "names", "array of names"],
)
def test_images_and_labels_of_other_makes_are_the_same(teacher, images, labels, turn):
    whole, other = clarid_of(teacher)(images, labels), clarid_of(teacher)(*turn(images, labels))
    assert everything(whole) == everything(other)


@pytest.mark.parametrize(
    "made",
    [
        torch.from_numpy,
        lambda x: x,
        lambda x: x[:, :, ::-1][:, :, ::-1],
        lambda x: [Image.fromarray(one) for one in x.transpose(0, 2, 3, 1)],
        lambda x: tuple(Image.fromarray(one).convert("RGBA") for one in x.transpose(0, 2, 3, 1)),
    ],
    ids=["tensor", "array", "layout", "PIL", "PIL with alpha"],
)
def test_pixels_of_any_make_are_the_teachers_images(teacher, labels, made):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 4, 4), np.uint8)
    reps = clarid_of(teacher)(made(pixels), labels)
    assert torch.equal(reps.original, (torch.from_numpy(pixels).float() / 127.5 - 1).double())
    assert everything(reps) == everything(clarid_of(teacher)(pixels, labels))
    of_floats = clarid_of(teacher)(pixels / 255, labels)
    torch.testing.assert_close(of_floats.latent, reps.latent, rtol=1e-5, atol=1e-5)


def test_a_turned_photograph_is_set_upright(teacher, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6  # show it turned by 90 degrees
    found = clarid_of(teacher)([image], labels[:1]).original
    expected = torch.from_numpy(np.rot90(pixels, -1).copy()).permute(2, 0, 1)
    assert torch.equal(((found[0] + 1) * 127.5).round().byte(), expected)


def test_images_are_taken_in_the_teacher_s_precision(teacher, images, labels):
    """Single precision for a double teacher and the other way round, arrays of numpy's own type."""
    single = clarid_of(teacher)(images.float(), labels)
    assert single.sample.dtype == torch.float64
    net = nn.Conv2d(3, 3, 1).eval().requires_grad_(False)
    of_floats = Teacher.from_callable(
        lambda x, sigma, label: net(x),
        lambda x, sigma, label, tap: net(x),
        latent_shape=(3, 4, 4),
        class_names=("cat", "dog", "owl"),
        sigma_min=0.01,
        sigma_max=80.0,
        taps={"net": (3, 1)},
        fingerprint=net,
    )
    found = Clarid(of_floats, sigma=2.0, steps=2, k=3)(images.double().numpy(), labels)
    assert found.sample.dtype == torch.float32


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x, y: ((x * 255).int(), y), "int32"),
        (lambda x, y: (x.permute(0, 2, 3, 1).numpy(), y), r"permute\(0, 3, 1, 2\)"),
        (lambda x, y: ([Image.new("RGB", (4, 4 + i)) for i in range(4)], y), "4x4, 4x5, 4x6"),
        (lambda x, y: ([Image.new("F", (4, 4))] * 4, y), "image 0 cannot be read: float pixels"),
        (lambda x, y: (list(x), y), "a list with a Tensor"),
        (lambda x, y: ([], y), "a list of none"),
        (lambda x, y: (x, ["cat", "owl", "dgo", "cat"]), "unknown class 'dgo': did you mean dog"),
        (lambda x, y: (x[0], y[:1]), "3 dimensions"),
        (lambda x, y: (x[:0], y[:0]), "no images"),
        (lambda x, y: (x * 200, y), r"in \[0, 1\]"),
        (lambda x, y: (x, y[:, None]), r"labels of shape \(4, 1\)"),
        (lambda x, y: (x, y[:1]), r"labels of shape \(1,\)"),
        (lambda x, y: (x, y.float()), "float32"),
        (lambda x, y: (x, y.numpy() + 7), "label 7"),
    ],
)
def test_other_images_and_labels_are_refused(teacher, images, labels, spoil, sentence):
    labels = torch.tensor([0, 1, 2, 0])
    for work in (clarid_of(teacher), clarid_of(teacher).invert):
        with pytest.raises(UserError, match=sentence):
            work(*spoil(images, labels))
    assert teacher.denoised == 0


@pytest.mark.parametrize("work", ["features", "sample", "directions", "jacobian"])
def test_wrong_labels_are_refused_by_every_method(teacher, images, work):
    method = getattr(clarid_of(teacher), work)
    for wrong in ([0, 1, 2, 3], [0, 1, 2], np.array([-1, 0, 0, 0]), [[0]] * 4):
        with pytest.raises(UserError, match="label"):
            method(images, wrong)


@pytest.mark.parametrize("work", ["features", "sample", "directions"])
def test_latents_of_other_makes_are_the_same_or_refused(teacher, images, labels, work):
    clarid = clarid_of(teacher)
    x_te, _ = clarid.invert(images, labels)
    found = [
        getattr(clarid, work)(latents, labels)
        for latents in (x_te, x_te.numpy(), x_te.numpy()[:, :, ::-1][:, :, ::-1], x_te.half())
    ]
    values = [one.V if work == "directions" else one for one in found]
    assert torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    assert values[3].dtype == values[0].dtype and values[3].shape == values[0].shape
    for wrong, named in (
        (x_te * math.nan, "not finite"),
        (x_te[:0], "no latents"),
        (x_te[:, :, :2], "the teacher takes"),
        (x_te[0], "3 dimensions"),
        (x_te.int(), "int32"),
    ):
        with pytest.raises(UserError, match=named):
            getattr(clarid, work)(wrong, labels[: len(wrong)])


def test_every_image_has_its_label(programs):
    """In a process without the tests' import hook, which refuses the shapes before clarep does."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from PIL import Image
from torch import nn
from conftest import LinearTeacher
from clarep import Clarid, UserError
clarid = Clarid(LinearTeacher(), sigma=2.0, steps=2, k=3)
images = torch.zeros(4, 3, 4, 4, dtype=torch.float64)
for labels, indices in ((3, None), (5, None), (4, [1, 2])):
    try:
        clarid(images, torch.zeros(labels, dtype=torch.int64), indices)
    except UserError as error:
        print(error)
try:
    Clarid(None)
except UserError as error:
    print(error)
"""
    done = programs.run(code)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "4 images came with labels of shape (3,): give the number of a class for each image, (4,)",
        "4 images came with labels of shape (5,): give the number of a class for each image, (4,)",
        "indices [1, 2] do not tell 4 images apart: give each a whole number of its own, from 0",
        "a NoneType names no teacher: give backdrops, a path, FAMILY:PLACE, or of a model of your "
        "own Teacher.from_callable(...)",
    ]


@pytest.mark.parametrize("name", ["null_label", "default_tap", "fingerprint"])
def test_a_teacher_that_lacks_an_attribute(teacher, monkeypatch, name):
    monkeypatch.delattr(type(teacher), name)
    with pytest.raises(UserError, match=rf"the teacher LinearTeacher lacks {name}: set every"):
        clarid_of(teacher)


def test_names_are_checked_where_no_type_checker_looks(programs):
    """In a process without the tests' import hook: an unknown kind must not pass for random."""
    code = """
from clarep import ClaridConfig, UserError
from clarep.clarid.clarid_config import check_config
for wrong in (dict(kind="botom"), dict(branch="nul"), dict(solver="huen"),
              dict(inversion="fixedpoint"), dict(measure="energie")):
    try:
        check_config(ClaridConfig(**wrong))
    except UserError as error:
        print(error)
    else:
        print("took", wrong)
check_config(ClaridConfig())
"""
    done = programs.run(code)
    assert done.stderr == ""
    meant = [line.split("did you mean ")[1].split("?")[0] for line in done.stdout.splitlines()]
    assert [words.split(" or ")[0] for words in meant] == [
        "bottom",
        "null",
        "heun",
        "fixed_point",
        "energy",
    ]


def test_single_settings_override_a_config(teacher):
    config = ClaridConfig(sigma=3.0, k=7)
    clarid = Clarid(teacher, config, k=2)
    assert (clarid.sigma_te, clarid.num_dirs) == (3.0, 2)
    assert config.k == 7


def test_what_a_network_of_channels_last_gives_is_stored_too(tmp_path):
    """The bundled U-Net's features are not contiguous in memory."""
    from clarep import Clarid, load_data

    data = load_data("backdrops")
    reps = Clarid("backdrops", t=0.85, k=2, steps=1)(data.images([0, 1, 2]), data.labels[:3])
    stored = reps.save(tmp_path / "reps")
    assert torch.equal(stored.features, reps.features)


def test_clarid_says_what_it_is():
    from mixture import MixtureTeacher

    said = repr(Clarid(MixtureTeacher(), t=0.5, k=3, kind="bottom"))
    assert all(word in said for word in ("MixtureTeacher", "3 classes", "bottom k = 3", "sigma"))
