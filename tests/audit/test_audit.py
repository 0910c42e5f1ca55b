"""An audit against closed forms; killed, damaged, and fed with what does not fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import clarep
from clarep.audit import audit_parts
from clarep.audit.audit import ERRORS, MANIFEST, Audit
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_run import audit_steps
from clarep.audit.label_evidence import Evidence
from clarep.audit.shown_images import PICTURES, read_shown, store_shown
from clarep.clarid.diffusion_classifier import denoising_residuals
from clarep.clarid.noise_draws import TARGETS, noise_of
from clarep.data.labelled import to_unit_range
from clarep.engine.artefacts import read_json, sha256_file
from clarep.engine.statistics import t_interval
from clarep.errors import UserError

SPREAD, N = 0.1, 48  # of the conftest's Gaussian classes
ERRORS_ALONE = AuditConfig(mask_draws=0, target_share=0.0)


def ask(teacher, data, folder, chosen=None, **settings) -> Audit:
    config = replace(ERRORS_ALONE, **settings)
    for _ in audit_steps(teacher, data, folder, config, chosen):
        pass
    return Audit.load(folder)


def test_errors_are_the_closed_form(teacher, data, tmp_path):
    """E|D(x) - x_0|^2 = (1 - a)^2 |x_0 - m|^2 + a^2 sigma^2 N, with a = s^2 / (s^2 + sigma^2)."""
    sigmas, draws = (0.25, 1.0), 1500
    found = ask(teacher, data, tmp_path, [3, 0, 9], sigmas=sigmas, draws=draws)
    assert found.index.tolist() == [3, 0, 9] and found.labels.tolist() == [3, 0, 1]
    assert found.tried.tolist() == [[3, 0, 1, 2], [0, 1, 2, 3], [1, 0, 2, 3]]
    assert found.errors.shape == (2, draws, 3, 4)
    images = to_unit_range(data.images([3, 0, 9]))
    zero, one = images.new_zeros(4, *images.shape[1:]), torch.ones(4)
    means = teacher.denoise(zero, 1e6 * one, torch.arange(4))  # all noise: the mean is left
    apart = (images[:, None] - means[found.tried]).square().flatten(2).sum(2)
    for sigma, errors in zip(sigmas, found.errors, strict=True):
        a = SPREAD**2 / (SPREAD**2 + sigma**2)
        expected = (1 - a) ** 2 * apart + a**2 * sigma**2 * N
        assert torch.allclose(errors.mean(0), expected, rtol=0.03)
    assert found.manifest["cost"]["denoiser_evaluations"] == sum(teacher.seen) - 4


def test_images_that_look_like_another_class_are_doubted(make_teacher, make_data, tmp_path):
    labels = np.arange(40) % 4
    shown = labels.copy()
    shown[[4, 9, 14, 19]] = (labels[[4, 9, 14, 19]] + 1) % 4
    found = ask(make_teacher(), make_data(labels, shown), tmp_path)
    assert sorted(found.doubts.topk(4).indices.tolist()) == [4, 9, 14, 19]
    assert (found.doubts > 0).sum() == 4
    assert found.rivals[[4, 9, 14, 19]].tolist() == shown[[4, 9, 14, 19]].tolist()
    assert torch.nonzero(found.doubted())[:, 0].tolist() == [4, 9, 14, 19]
    rows = found.evidence().by_class()
    assert [(row.images, row.against, row.rival) for row in rows] == [
        (10, 1, 1),
        (10, 1, 2),
        (10, 1, 3),
        (10, 1, 0),
    ]


def test_batch_blocks_and_company_change_nothing(teacher, data, tmp_path, monkeypatch):
    """The noise of an image is its own: last digits alone follow from what is computed at once."""
    whole = ask(teacher, data, tmp_path / "whole", draws=2, rivals=2)
    assert max(teacher.seen) == 24 * 3
    some = ask(teacher, data, tmp_path / "some", [5, 2, 17], draws=2, rivals=2)
    assert torch.equal(some.tried, whole.tried[[5, 2, 17]])
    assert torch.allclose(some.errors, whole.errors[:, :, [5, 2, 17]], rtol=1e-5)
    monkeypatch.setattr(audit_parts, "BLOCK", 7)
    teacher.seen.clear()
    small = ask(teacher, data, tmp_path / "small", draws=2, rivals=2, batch_size=5)
    assert max(teacher.seen) == 5
    assert torch.equal(small.tried, whole.tried)
    assert torch.allclose(small.errors, whole.errors, rtol=1e-5)
    more = ask(teacher, data, tmp_path / "more", draws=3, rivals=2)
    assert torch.allclose(more.errors[:, :2], whole.errors, rtol=1e-5)  # draws are added
    other = ask(teacher, data, tmp_path / "other", draws=2, rivals=2, seed=1)
    assert not torch.allclose(other.errors[..., 0], whole.errors[..., 0], rtol=1e-3)
    assert not torch.equal(other.tried, whole.tried)


def test_rivals_are_random_other_classes(make_teacher, make_data, tmp_path):
    found = ask(make_teacher(30), make_data(np.arange(60) % 30, classes=30), tmp_path, rivals=4)
    assert found.errors.shape == (1, 2, 60, 5)
    assert torch.equal(found.tried[:, 0], found.labels)
    assert all(len(set(row)) == 5 for row in found.tried.tolist())
    assert len(found.tried[:, 1:].unique()) == 30
    assert (found.doubts < 0).all()


def test_the_cheapest_tries_no_class_beside_the_own(make_data, make_teacher, tmp_path):
    """Whose mean is that of all classes, so that an image of another class is doubted there too."""
    teacher = make_teacher()
    plain, mean = teacher.denoise, []

    def denoise(x, sigma, labels):
        each = [plain(x, sigma, torch.full_like(labels, c)) for c in range(4)]
        mean.append(len(x))
        null = torch.stack(each).mean(0)
        return torch.where((labels == 4)[:, None, None, None], null, plain(x, sigma, labels))

    teacher.denoise = denoise
    labels = np.arange(40) % 4
    shown = labels.copy()
    shown[[4, 9, 14, 19]] = (labels[[4, 9, 14, 19]] + 1) % 4
    found = ask(teacher, make_data(labels, shown), tmp_path, rivals=0, draws=4)
    assert found.tried[:, 1].tolist() == [4] * 40 and sum(mean) == 40 * 2 * 4
    assert sorted(found.doubts.topk(4).indices.tolist()) == [4, 9, 14, 19]
    assert found.name_of(int(found.rivals[4])) == "no class"


def test_evidence_is_paired_by_the_noise():
    """Against a loop: the rival of the mean, the standard error of the differences."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(2, 5, 6, 4, generator=generator) + 10 * torch.rand(
        2, 5, 6, 1, generator=generator
    )
    tried = torch.stack([torch.randperm(4, generator=generator) for _ in range(6)])
    found = Evidence.of(errors, tried, (0.25, 1.0))
    for level in range(2):
        for i in range(6):
            means = errors[level, :, i].mean(0)
            best = 1 + int(means[1:].argmin())
            gaps = (errors[level, :, i, 0] - errors[level, :, i, best]).double().numpy()
            assert int(found.rival[level, i]) == int(tried[i, best])
            assert float(found.doubt[level, i]) == pytest.approx(gaps.mean(), rel=1e-6)
            error = gaps.std(ddof=1) / 5**0.5
            assert float(found.standard_error[level, i]) == pytest.approx(error, rel=1e-6)
            interval = found.interval[level, i].tolist()
            assert interval == pytest.approx(t_interval(gaps.tolist()), rel=1e-6)
    once = Evidence.of(errors[:, :1], tried, (0.25, 1.0))
    assert once.standard_error is once.interval is None


def test_called_as_the_room_it_is(teacher, data, tmp_path, capsys):
    found = clarep.audit(teacher, data, tmp_path / "a", ERRORS_ALONE, [1, 2])
    assert isinstance(found, clarep.Audit) and len(found.doubts) == 2
    assert "audit: 16/16 denoisings" in capsys.readouterr().err
    assert clarep.audit.audit_run.audit(teacher, data, tmp_path / "a", ERRORS_ALONE, [1, 2])


def test_the_images_that_a_page_shows(make_data, make_teacher, tmp_path):
    labels = np.arange(48) % 4
    shown = labels.copy()
    shown[8] = 3
    data = make_data(labels, shown)
    found = ask(make_teacher(), data, tmp_path)
    kept = read_shown(found)
    assert len(kept.row) == 4 * 10 and int(kept.doubted.sum()) == 20 and kept.masks is None
    assert len(kept.row.unique()) == 40
    assert torch.equal(kept.images, data.images(found.index[kept.row].numpy()))
    of_first = kept.row[found.labels[kept.row] == 0]
    doubts = found.doubts[of_first]
    assert int(of_first[5]) == 8 and (doubts[:5] < doubts[5:, None]).all()
    masks = torch.arange(48)[:, None, None] % 2 == torch.zeros(4, 4)
    store_shown(replace(found, masks=masks), data)  # is there already
    assert read_shown(found).masks is None
    (tmp_path / PICTURES).unlink()
    assert read_shown(found) is None
    store_shown(replace(found, masks=masks), data)
    assert torch.equal(read_shown(found).masks, masks[kept.row])
    (tmp_path / PICTURES).write_bytes(b"cut")
    ask(make_teacher(), data, tmp_path)
    assert torch.equal(read_shown(found).row, kept.row)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import os, signal
from conftest import data_of, gaussian, means_of
from clarep.audit import audit_parts
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_run import audit_steps
audit_parts.BLOCK = 7
teacher, data = gaussian(means_of()), data_of(means_of(), [i % 4 for i in range(24)])
steps = audit_steps(teacher, data, {out!r}, AuditConfig(mask_draws=0, target_share=0.0))
for step in steps:
    if step.done >= {after}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_it_goes_on_and_ends_with_the_same_bytes(
    teacher, data, programs, tmp_path, monkeypatch
):
    monkeypatch.setattr(audit_parts, "BLOCK", 7)
    whole = ask(teacher, data, tmp_path / "whole")
    out = tmp_path / "killed"
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(out), after=14 * 4 * 2)
    done = programs.run(code)
    assert done.returncode == -9, done.stderr
    assert len(list((out / "parts").glob("errors-*.safetensors"))) == 2
    with pytest.raises(UserError, match="stopped before its end"):
        Audit.load(out)
    teacher.seen.clear()
    found = ask(teacher, data, out)
    assert sum(teacher.seen) == (24 - 14) * 4 * 2
    assert (out / ERRORS).read_bytes() == (tmp_path / "whole" / ERRORS).read_bytes()
    assert found.sha256 == whole.sha256
    assert found.manifest["cost"]["denoiser_evaluations"] == 24 * 4 * 2
    assert sorted(path.name for path in out.iterdir()) == [ERRORS, MANIFEST, PICTURES]
    teacher.seen.clear()
    ask(teacher, data, out)
    assert teacher.seen == []


def test_a_damaged_part_is_computed_again(teacher, data, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_parts, "BLOCK", 7)
    whole, out = ask(teacher, data, tmp_path / "whole"), tmp_path / "out"
    steps = audit_steps(teacher, data, out, ERRORS_ALONE)
    for _ in range(3):
        next(steps)
    steps.close()
    part = out / "parts" / "errors-00001.safetensors"
    part.write_bytes(part.read_bytes()[:-3] + b"abc")
    assert ask(teacher, data, out).sha256 == whole.sha256


@pytest.mark.parametrize("fault", ["truncated", "changed", "missing", "no manifest"])
def test_damage_is_told_and_mended_by_the_same_command(teacher, data, tmp_path, fault):
    sha256 = ask(teacher, data, tmp_path).sha256
    path = tmp_path / (MANIFEST if fault == "no manifest" else ERRORS)
    content = path.read_bytes()
    if fault in ("missing", "no manifest"):
        path.unlink()
    else:
        path.write_bytes(content[:-9] + (b"" if fault == "truncated" else b"x" * 9))
    with pytest.raises(UserError, match=str(tmp_path)):
        Audit.load(tmp_path)
    assert ask(teacher, data, tmp_path).sha256 == sha256


def test_a_manifest_that_was_changed_is_refused(teacher, data, tmp_path):
    ask(teacher, data, tmp_path)
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace(sha256_file(tmp_path / ERRORS), "0" * 64))
    with pytest.raises(UserError, match="changed after it was written"):
        Audit.load(tmp_path)


def test_another_configuration_is_refused(teacher, data, make_data, make_teacher, tmp_path):
    ask(teacher, data, tmp_path)
    before = read_json(tmp_path / MANIFEST)
    other = make_data([(i + 1) % 4 for i in range(24)], [i % 4 for i in range(24)])
    for given, word in (
        ((teacher, data, {"draws": 3}), "draws: 2 there, 3 now"),
        ((teacher, other, {}), "images or labels"),
        ((make_teacher(fingerprint="another"), data, {}), "teacher_sha256"),
    ):
        with pytest.raises(UserError, match=word):
            ask(*given[:2], tmp_path, **given[2])
    with pytest.raises(UserError, match="images"):
        ask(teacher, data, tmp_path, [0, 1])
    assert read_json(tmp_path / MANIFEST) == before
    ask(teacher, data, tmp_path, batch_size=7)  # last digits alone: nothing is computed


def test_who_counts_as_doubted_is_part_of_what_an_audit_is_told_by(teacher, data, tmp_path):
    few, many = (ask(teacher, data, tmp_path / str(s), doubted_share=s) for s in (0.1, 0.5))
    assert torch.equal(few.errors, many.errors)
    assert int(few.doubted().sum()) == 4 and int(many.doubted().sum()) == 12
    assert few.sha256 != many.sha256


def test_what_does_not_fit_is_refused(make_teacher, make_data, data, tmp_path):
    many = make_data([0, 1], classes=6)
    turned = make_data([0, 1], names=("class 1", "class 0", "class 2", "class 3"))
    for teacher, images, settings, word in (
        (make_teacher(1), make_data([0, 0], classes=1), {}, "knows one class"),
        (make_teacher(), many, {}, "knows 4 classes and made has 6"),
        (make_teacher(), turned, {}, "another order"),
        (make_teacher(), data, {"sigmas": ()}, "`sigmas` names no noise level"),
        (make_teacher(), data, {"sigmas": (0.25, 1.0, 0.25)}, "a noise level twice"),
        (make_teacher(), data, {"sigmas": (0.25, -1.0)}, "`sigmas=-1.0` is not above 0: give 0.25"),
        (make_teacher(), data, {"sigmas": (0.25, 99.0)}, "sigma 99 is outside"),
        (make_teacher(has_null=False), data, {"rivals": 0}, "no null class"),
        (make_teacher(), data, {"rivals": 0, "mask_draws": 2}, "`mask_draws=0`"),
        (make_teacher(), data, {"rivals": 4}, "`rivals=4` is more than the 3 classes"),
        (make_teacher(), data, {"target_rivals": 9}, "`target_rivals=9` is more than the 3"),
        (make_teacher(), data, {"draws": 0}, "`draws=0` is below 1"),
        (make_teacher(), data, {"chosen": [0, 0]}, "chosen twice"),
        (make_teacher(), data, {"chosen": [99]}, "cannot take indices 99"),
        (make_teacher(latent_shape=(3, 8, 8), image_shape=(3, 8, 8)), data, {}, "3x8x8"),
    ):
        with pytest.raises(UserError, match=word):
            ask(teacher, images, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_errors_that_are_not_finite_are_refused(make_teacher, data, tmp_path):
    teacher = make_teacher()
    plain = teacher.denoise
    teacher.denoise = lambda x, sigma, cond: (
        plain(x, sigma, cond) / (cond != 2)[:, None, None, None]
    )
    with pytest.raises(UserError, match=r"at sigma 0.25 are not finite"):
        ask(teacher, data, tmp_path)


def test_residuals_meet_each_label_of_each_image_once(teacher, data):
    latents = to_unit_range(data.images([0, 1, 2]))
    labels = torch.tensor([[0, 1], [2, 3], [1, 4]])  # the last is no class
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    found = torch.zeros(3, 2, *latents.shape[1:])
    for image, column, residual in denoising_residuals(
        teacher, latents, labels, 0.5, noise, batch_size=4
    ):
        found[image, column] = residual
    for i in range(3):
        for j in range(2):
            x = latents[i : i + 1] + 0.5 * noise[i : i + 1]
            alone = teacher.denoise(x, torch.tensor([0.5]), labels[i, j : j + 1]) - latents[i]
            assert torch.allclose(found[i, j], alone[0], atol=1e-6)


def test_targets_of_a_share_of_each_class(teacher, data, tmp_path, monkeypatch):
    """The denoised images of each class and of none, the same whatever kills the run."""
    settings = {"target_share": 0.34, "target_draws": 3, "target_sigma": 0.5}
    found = ask(teacher, data, tmp_path / "whole", **settings)
    index, denoised = found.targets.index, found.targets.denoised
    assert data.labels[index].tolist().count(2) == 2 and len(index) == 8
    assert denoised.shape == (8, 5, 3, 4, 4) and denoised.dtype == torch.float16
    assert found.manifest["cost"]["denoiser_evaluations"] == 24 * 4 * 2 + 8 * 5 * 3
    a = SPREAD**2 / (SPREAD**2 + 0.25)
    apart = denoised[:, 1] - denoised[:, 0]  # the noise cancels: (1 - a) (m_1 - m_0)
    one = torch.ones(2)
    means = teacher.denoise(torch.zeros(2, 3, 4, 4), 1e6 * one, torch.tensor([0, 1]))
    assert torch.allclose(
        apart.float(), ((1 - a) * (means[1] - means[0])).expand(8, -1, -1, -1), atol=2e-3
    )

    monkeypatch.setattr(audit_parts, "BLOCK", 3)
    steps = audit_steps(teacher, data, tmp_path / "killed", replace(ERRORS_ALONE, **settings))
    for step in steps:
        if step.done > 24 * 4 * 2:
            break
    steps.close()
    assert (tmp_path / "killed/parts/targets-00000.safetensors").exists()
    again = ask(teacher, data, tmp_path / "killed", **settings)
    assert torch.equal(again.targets.denoised, denoised)


@pytest.mark.parametrize("has_null", [True, False])
def test_targets_of_a_few_rivals_are_those_of_a_loop(make_teacher, make_data, tmp_path, has_null):
    """Of hundreds of classes: the own one, a few others of each image, and none."""
    classes, draws = 300, 2
    teacher = make_teacher(classes, has_null=has_null)
    data = make_data(np.arange(40) * 7, classes=classes)
    settings = {"target_share": 1.0, "target_draws": draws, "target_sigma": 0.5, "rivals": 2}
    found = ask(teacher, data, tmp_path, **settings, target_rivals=5)
    tried, denoised = found.targets.tried, found.targets.denoised
    assert denoised.shape == (40, 6 + has_null, 3, 4, 4) and tried.shape == (40, 6 + has_null)
    assert found.manifest["cost"]["denoiser_evaluations"] == 40 * (3 + 6 + has_null) * 2
    assert len(tried[:, 1:6].unique()) > 100
    for i in range(40):
        own, *others = tried[i, :6].tolist()
        assert own == data.labels[i] and len({own, *others}) == 6
        assert tried[i, 6:].tolist() == [classes] * has_null
        x = to_unit_range(data.images([i]))
        for column, label in enumerate(tried[i].tolist()):
            total = torch.zeros_like(x)
            for draw in range(draws):
                eps = noise_of([i], (3, 4, 4), seed=0, purpose=TARGETS, draw=draw)
                given = torch.tensor([0.5]), torch.tensor([label])
                total += (teacher.denoise(x + 0.5 * eps, *given) - x) / draws
            assert torch.allclose(denoised[i, column].float(), total[0], atol=1e-3)
