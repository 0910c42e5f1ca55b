"""Rivals that draw or weigh images by groups or errors: weights, losses, what is left untouched."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clarep.distill.distill_config import RivalsConfig
from clarep.distill.methods import METHODS, Batch
from clarep.distill.methods.group_balanced import balanced_weights, groups_of_images
from clarep.distill.methods.jtt import errors_of
from clarep.distill.train_student import train_student
from clarep.distill.trainer.student_run import StudentRun
from clarep.errors import UserError
from clarep.students.student import Student
from clarep.students.student_files import load_student

TOLD = ("group-balanced", "group-dro", "dfr")


@pytest.fixture
def make(grouped, quick, tmp_path):
    """Make a method's run in a folder."""

    def run(method, folder="run", data=grouped, student="resnet8", **changes):
        config = replace(quick, epochs=1, **changes)
        return StudentRun(data, tmp_path / folder, method=method, config=config, student=student)

    return run


def method_of(run: StudentRun):
    return run._state.method


def batch_of(method, positions: list[int]) -> Batch:
    index = np.array(positions)
    images = method.images
    return Batch(
        images.images(index) / 255,
        images.labels[index],
        torch.from_numpy(index),
        0.5,
        torch.Generator().manual_seed(0),
    )


def test_methods_that_are_told_groups_say_so_and_refuse_data_without(make, data) -> None:
    assert tuple(name for name in METHODS if METHODS[name].needs_groups) == TOLD[2:] + TOLD[:2]
    for name in METHODS:
        assert ("With group labels." in (METHODS[name].__doc__ or "")) == (name in TOLD)
    for name in TOLD:
        with pytest.raises(UserError, match=f"method {name} is told the groups .* such as jtt"):
            make(name, name, data=data)


def test_the_groups_are_part_of_what_a_run_is_told_by(make, grouped) -> None:
    make("group-balanced")
    other = replace(grouped, cue=np.roll(grouped.cue, 1))
    with pytest.raises(UserError, match="cues_sha256"):
        make("group-balanced", data=other)


def test_groups_are_drawn_alike(make, grouped) -> None:
    method = method_of(make("group-balanced"))
    pairs = [
        (int(grouped.labels[i]), int(grouped.cue[i])) for i in method.images.index
    ]  # naively, one by one
    for i, pair in enumerate(pairs):
        assert method.weights[i] == pytest.approx(1 / pairs.count(pair))
    for group in set(pairs):
        total = sum(
            float(w) for w, pair in zip(method.weights, pairs, strict=True) if pair == group
        )
        assert total == pytest.approx(1)


def test_group_dro_is_algorithm_1(make) -> None:
    """Two steps by hand, image by image, with a group that the batch lacks."""
    rivals = RivalsConfig(group_dro_step=0.7, group_dro_adjustment=2.0)
    method = method_of(make("group-dro", rivals=rivals)).eval()
    groups, sizes = method.groups.tolist(), np.bincount(method.groups.numpy())
    count = len(sizes)
    q = np.full(count, 1 / count)
    lacking = groups[0]
    positions = [i for i in range(60) if groups[i] != lacking]
    for _ in range(2):
        batch = batch_of(method, positions)
        with torch.no_grad():
            losses = F.cross_entropy(method.student(batch.images), batch.labels, reduction="none")
            got = method(batch)["dro"]
        means = np.zeros(count)
        for group in range(count):
            some = [float(losses[j]) for j, i in enumerate(positions) if groups[i] == group]
            if some:
                means[group] = np.mean(some)
                q[group] *= np.exp(0.7 * (means[group] + 2.0 / np.sqrt(sizes[group])))
        q /= q.sum()
        assert float(got) == pytest.approx(float(q @ means), rel=1e-4)
        np.testing.assert_allclose(method.q.numpy(), q, rtol=1e-4)
    assert means[lacking] == 0 and q[lacking] < 1 / count


def test_group_dro_goes_on_with_its_weights(make, grouped, quick, tmp_path) -> None:
    config = replace(quick, epochs=2)
    parts = {"method": "group-dro", "config": config}
    run = StudentRun(grouped, tmp_path / "a", **parts)
    next(run.records())
    q = method_of(run).q.clone()
    again = StudentRun(grouped, tmp_path / "a", **parts)
    assert torch.equal(method_of(again).q, q) and not torch.equal(q, torch.full_like(q, 1 / len(q)))
    list(again.records())
    again.finish()
    train_student(grouped, tmp_path / "b", **parts)
    assert (tmp_path / "a" / "student.safetensors").read_bytes() == (
        tmp_path / "b" / "student.safetensors"
    ).read_bytes()


def test_dfr_leaves_all_but_the_head_untouched(make, tmp_path) -> None:
    rivals = RivalsConfig(dfr_share=0.3)
    run = make("dfr", rivals=rivals)
    first = load_student(tmp_path / "run" / "first").state_dict()
    start = {key: value.clone() for key, value in run.student.state_dict().items()}
    assert all((value == 0).all() for key, value in start.items() if key.startswith("head"))
    list(run.records())
    done = run.finish()
    after = load_student(tmp_path / "run").state_dict()
    for key, value in after.items():
        untouched = torch.equal(value, first[key]) and torch.equal(value, start[key])
        assert untouched != key.startswith("head"), key
    first_run = json.loads((tmp_path / "run" / "first" / "config.json").read_text())
    for spent in ("seconds", "gigaops"):
        assert done[spent] > first_run[spent] > 0


def test_dfr_trains_the_head_on_images_that_the_features_have_not_seen(make, tmp_path) -> None:
    run = make("dfr", rivals=RivalsConfig(dfr_share=0.3))
    plain = method_of(make("group-balanced", "plain"))
    method = method_of(run)
    everything, groups = plain.images.index, groups_of_images(plain.images)
    own = groups[torch.from_numpy(np.isin(everything, method.images.index))]
    assert own.bincount().tolist() == [max(1, round(0.3 * n)) for n in groups.bincount().tolist()]
    assert torch.equal(method.weights, balanced_weights(own))
    marks = (tmp_path / "run" / "first" / "held_out.json").read_text()
    seen = set(json.loads(marks)["trained_on"].split())
    data = method.images.data
    assert seen == set(data.marks(np.setdiff1d(everything, method.images.index)))
    assert torch.equal(method.images.images(np.arange(5)), data.images(method.images.index[:5]))


def test_dfr_refuses_a_student_without_a_last_linear_layer(make, grouped) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 16), torch.nn.Flatten())
    student = Student.from_module(net, grouped.class_names, (3, 16, 16))
    with pytest.raises(UserError, match="dfr trains the last linear layer anew, and module has"):
        make("dfr", student=student)


def test_jtt_draws_the_errors_of_its_first_student(make, data, tmp_path) -> None:
    """The weights are a naive count's, of a first student that is made once and kept."""
    rivals = RivalsConfig(jtt_epochs=1, jtt_share=0.75)
    run = make("jtt", data=data, rivals=rivals, learning_rate=0.01)
    method, first = method_of(run), load_student(tmp_path / "run" / "first")
    wrong = []
    with torch.no_grad():
        for i in method.images.index:
            answer = first(data.images([int(i)]) / 255).argmax(1)
            wrong.append(int(answer) != data.labels[i])
    count = sum(wrong)
    assert 0 < count < len(wrong)
    wanted = [0.75 / count if one else 0.25 / (len(wrong) - count) for one in wrong]
    assert method.weights.tolist() == pytest.approx(wanted)
    assert errors_of(first, method.images).tolist() == wrong
    cache = tmp_path / "run" / "jtt.safetensors"
    before = cache.stat().st_mtime_ns
    again = method_of(make("jtt", data=data, rivals=rivals, learning_rate=0.01))
    assert torch.equal(again.weights, method.weights) and cache.stat().st_mtime_ns == before
    cache.write_bytes(cache.read_bytes()[:50])  # damaged: from the first student that is there
    again = method_of(make("jtt", data=data, rivals=rivals, learning_rate=0.01))
    assert torch.equal(again.weights, method.weights)


@pytest.mark.parametrize("method", ["jtt", "dfr"])
def test_a_first_student_of_other_settings_is_not_taken(make, tmp_path, method) -> None:
    """Of a run that was killed before it could say what it is."""
    make(method, learning_rate=0.01)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(
        UserError, match=r"first holds a run of another configuration.*learning_rate"
    ):
        make(method, learning_rate=0.02)


def test_jtt_without_errors_is_vanilla(make, data, monkeypatch, tmp_path) -> None:
    def none(student: Student, images: object) -> torch.Tensor:
        return torch.zeros(len(images), dtype=torch.bool)

    monkeypatch.setattr("clarep.distill.methods.jtt.errors_of", none)
    for method in ("jtt", "vanilla"):
        run = make(method, method, data=data)
        list(run.records())
        run.finish()
    jtt, vanilla = (load_student(tmp_path / name).state_dict() for name in ("jtt", "vanilla"))
    assert all(torch.equal(jtt[key], vanilla[key]) for key in vanilla)


def test_noise_is_gaussian_of_its_size_and_cut_off(make, data) -> None:
    method = method_of(make("noise", data=data, rivals=RivalsConfig(noise_std=0.2)))
    seen = []
    method.both = lambda x: (seen.append(x), (x.flatten(1), method.student(x)))[1]
    batch = batch_of(method, list(range(40)))
    grey = replace(batch, images=torch.full_like(batch.images, 0.5))
    method.terms(grey)
    noise = seen[0] - 0.5
    inside = noise[noise.abs() < 0.5]
    assert seen[0].min() == 0 and seen[0].max() == 1
    assert abs(float(noise.mean())) < 0.01
    assert float(inside.std()) == pytest.approx(0.195, abs=0.01)  # of a normal cut at 2.5 sigma
