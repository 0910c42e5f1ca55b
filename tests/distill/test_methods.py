"""Every method trains; what each of them adds is what its paper says."""

import json
from dataclasses import dataclass, fields, replace
from inspect import get_annotations
from typing import Annotated

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clarep.distill.distill_config import DistillConfig, RivalsConfig, settled
from clarep.distill.losses import (
    class_alignment,
    instance_alignment,
    kd,
    linear_cka,
    rkd_angle,
    rkd_distance,
    supcon,
)
from clarep.distill.methods import METHODS, Batch, Ingredients, Method
from clarep.distill.methods.cadistill import ramp
from clarep.distill.train_student import train_student
from clarep.distill.trainer.canonical_batches import CanonicalImages
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.train_images import TrainImages
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine.bounds import Within
from clarep.errors import UserError
from clarep.students.student import Student, StudentInfo
from clarep.students.student_files import build_student

SETS = {
    "reconstruction": ("none", 1.0),
    "guidance-only": ("none", 3.0),
    "random": ("random", 3.0),
    "bottom": ("bottom", 3.0),
    "middle": ("middle", 3.0),
}
TERMS = {
    "vanilla": {"ce"},
    "cadistill-no-align": {"ce", "cano", "dist"},
    "cadistill-no-cano": {"ce", "align", "dist"},
    "cadistill-no-dist": {"ce", "align", "cano"},
    "diffusion-features": {"ce", "match"},
    "generated": {"ce"},
    "supcon": {"ce", "supcon"},
    "kd": {"ce", "kd"},
    "rkd": {"ce", "distance", "angle"},
    "adv": {"ce"},
    "augment": {"ce", "consistency"},
    "diffaug": {"ce"},
    "gradient-norm": {"ce", "norm"},
    "noise": {"ce"},
    "jtt": {"ce"},
    "group-balanced": {"ce"},
    "group-dro": {"dro"},
    "dfr": {"ce"},
    "evidence": {"ce", "evidence", "norm"},
    "evidence-norm": {"ce", "norm"},
    "evidence-norm-compose": {"ce", "norm"},
    "evidence-shuffled": {"ce", "evidence", "norm"},
    "evidence-class-mean": {"ce", "evidence", "norm"},
    "compose": {"ce"},
    "compose-centre": {"ce"},
    "compose-true": {"ce"},
    "doubted": {"ce"},
    "evidence-compose": {"ce", "evidence", "norm"},
    "adv-compose": {"ce"},
}
RIVALS = RivalsConfig(adv_steps=2, generated_steps=2, generated_guidance=1.0)


@pytest.fixture(scope="module")
def config(quick):
    return replace(quick, epochs=1, rivals=RIVALS)


@pytest.fixture(scope="module")
def classifier(data):
    return build_student(StudentInfo("resnet8", data.class_names, (3, 16, 16)), seed=5).eval()


@pytest.fixture(scope="module")
def models(teacher, classifier, audit):
    return {"teacher": teacher, "classifier": classifier, "audit": audit}


@pytest.fixture(scope="module")
def data_for(data, grouped, masked):
    """What a method of that name can be trained on."""

    def of(name):
        return grouped if METHODS[name].needs_groups else masked if name == "compose-true" else data

    return of


@pytest.fixture
def make(data_for, canonical_of, models, config, tmp_path):
    """Make the run of a method, in the folder of its name."""

    def run(name, **changes):
        return StudentRun(
            data_for(name),
            tmp_path / name,
            method=name,
            config=replace(config, **changes),
            canonical=canonical_of(*SETS.get(name, ("top", 3.0))),
            **models,
        )

    return run


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(make, name):
    run = make(name)
    before = {key: value.clone() for key, value in run.student.state_dict().items()}
    (record,) = run.records()
    run.finish()
    terms = set(record["train"]) - {"loss"}
    assert terms == TERMS.get(name, {"ce", "align", "cano", "dist"})
    assert all(np.isfinite(value) for value in record["train"].values())
    after = run.student.state_dict()
    trained = [key for key in before if "weight" in key and (name != "dfr" or "head" in key)]
    assert all(not torch.equal(after[key], before[key]) for key in trained)
    assert after.keys() == before.keys()


def test_ablations_and_controls_differ_in_what_their_name_says():
    default = METHODS["cadistill"]
    for term in ("align", "cano", "dist"):
        spec = METHODS[f"cadistill-no-{term}"]
        assert issubclass(spec, default) and spec.canonical_kind == "top"
        assert spec.off == f"lambda_{term}"
    for name, (kind, guidance) in SETS.items():
        spec = METHODS[name]
        assert issubclass(spec, default) and not spec.off
        assert spec.canonical_kind == kind
        assert spec.canonical_guidance == (1.0 if name == "reconstruction" else None)
        assert spec.stronger_guidance == (name == "guidance-only") and guidance >= 1
    assert [name for name in METHODS if METHODS[name].needs_classifier] == ["kd", "rkd"]
    needing = [name for name in METHODS if METHODS[name].needs_teacher]
    assert needing == ["diffaug", "diffusion-features", "generated"]
    needing = [name for name in METHODS if METHODS[name].needs_audit]
    assert {name for name in needing if not name.startswith("evidence")} == {
        "compose",
        "compose-centre",
        "doubted",
        "adv-compose",
    }
    assert [name for name in METHODS if "evidence" in name and name not in needing] == []


@pytest.fixture
def ingredients(data, canonical_of, config, classifier, tmp_path):
    images = TrainImages.of(data, np.arange(120), 100.0, 0)
    canonical = CanonicalImages.of(canonical_of(), pooled=False)
    cpu = torch.device("cpu")
    return Ingredients(config, None, images, tmp_path, cpu, canonical, classifier=classifier)


@pytest.fixture
def batch(ingredients):
    positions = np.arange(0, 24)
    canonical = ingredients.canonical.draw(positions, 10, 0)
    return Batch(
        ingredients.images.images(positions) / 255,
        ingredients.images.labels[:24],
        torch.from_numpy(positions),
        0.5,
        torch.Generator().manual_seed(0),
        canonical,
        canonical.images / 255,
    )


def built(name, ingredients, **changes):
    """Return a method in evaluation mode, so that a pass leaves no trace, and its student."""
    config = replace(ingredients.config, **changes)
    _, options = settled(name, config)
    ingredients = replace(ingredients, config=config, options=options)
    info = StudentInfo("resnet8", ingredients.images.data.class_names, (3, 16, 16))
    method = METHODS[name](build_student(info, seed=1), ingredients).eval()
    return method, method.student


@pytest.mark.parametrize("form", ["class", "instance", "both"])
def test_cadistill_is_equation_6(ingredients, batch, form):
    weights = {"lambda_align": 0.7, "lambda_cano": 0.3, "lambda_dist": 2.0}
    method, student = built(
        "cadistill", ingredients, align_form=form, warmup_dist=2.0, unbiased_cka=True, **weights
    )
    terms = method(batch)
    f, logits = student.both(batch.images)
    c = student.features(batch.canonical_images)
    canonical = batch.canonical
    # By hand: image 4 i has a sample.
    where = {int(index): i for i, index in enumerate(canonical.index)}
    pairs = [(i, where[i]) for i in range(0, 24, 4)]
    by_class = class_alignment(f, batch.labels, c, canonical.labels, 0.2)
    by_instance = instance_alignment(f[[i for i, _ in pairs]], c[[j for _, j in pairs]])
    align = {"class": by_class, "instance": by_instance, "both": by_class + by_instance}[form]
    wanted = {
        "ce": F.cross_entropy(logits, batch.labels),
        "align": 0.7 * align,
        "cano": 0.3 * supcon(c, canonical.labels, 0.2),
        "dist": 2.0 * 0.25 * (1 - linear_cka(c, canonical.features, unbiased=True)),
    }
    for name, value in wanted.items():
        assert float(terms[name].detach()) == pytest.approx(float(value.detach()), rel=1e-4)
    assert float(terms["loss"].detach()) == pytest.approx(
        sum(float(value.detach()) for value in wanted.values()), rel=1e-4
    )


@torch.no_grad()
def test_the_queue_enters_the_cka_and_the_checkpoint(ingredients, batch):
    method, student = built("cadistill", ingredients, queue_size=10)
    method(batch)
    seen = student.features(batch.canonical_images).detach()
    other = ingredients.canonical.draw(np.array([-1]), 10, 3)
    later = replace(batch, canonical=other, canonical_images=other.images / 255)
    now = method(later)["dist"]
    both = torch.cat([student.features(later.canonical_images), seen])
    features = torch.cat([other.features, batch.canonical.features])
    assert float(now.detach()) == pytest.approx(float(1 - linear_cka(both, features)), rel=1e-4)
    again, _ = built("cadistill", ingredients, queue_size=10)
    again.load_state_dict(method.state_dict())
    assert len(again.queue.kept["x"]) == 10


def test_class_means_are_the_teacher(ingredients):
    method, _ = built("class-mean", ingredients)
    means, given = method.canonical, ingredients.canonical
    assert np.array_equal(means.index, given.index) and torch.equal(means.images, given.images)
    assert len(means.features.unique(dim=0)) == 3
    for i in range(30):
        same = given.features[given.labels == given.labels[i]].double()
        assert torch.allclose(means.features[i].double(), same.mean(0), atol=1e-5)


@torch.no_grad()
def test_rivals_terms(ingredients, batch, classifier):
    rivals = RivalsConfig(supcon_weight=0.5, kd_weight=0.25, rkd_distance_weight=2.0)

    def terms(name):
        method, student = built(name, ingredients, rivals=rivals)
        return {k: float(v.detach()) for k, v in method(batch).items()}, *student.both(batch.images)

    got, f, logits = terms("supcon")
    assert got["supcon"] == pytest.approx(0.5 * float(supcon(f, batch.labels, 0.1)), rel=1e-4)
    ce = float(F.cross_entropy(logits, batch.labels))
    assert got["ce"] == pytest.approx(ce, rel=1e-4)
    got, f, logits = terms("kd")
    answers = classifier(batch.images)
    assert got["kd"] == pytest.approx(0.25 * float(kd(logits, answers, 4.0)), rel=1e-4)
    assert got["ce"] == pytest.approx(0.75 * ce, rel=1e-4)
    got, f, logits = terms("rkd")
    theirs = classifier.features(batch.images)
    assert got["distance"] == pytest.approx(2 * float(rkd_distance(f, theirs)), rel=1e-4)
    assert got["angle"] == pytest.approx(50 * float(rkd_angle(f, theirs)), rel=1e-4)


def test_the_classifier_is_not_trained(make, classifier):
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    run = make("kd")
    assert not any("classifier" in name for name, _ in run._state.method.named_parameters())
    list(run.records())
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    assert not classifier.training and all(p.grad is None for p in classifier.parameters())


def test_the_attack_stays_inside_and_raises_the_loss(ingredients, batch):
    rivals = RivalsConfig(adv_eps_255=4.0, adv_steps=4)
    method, student = built("adv", ingredients, rivals=rivals)
    x = method.attack(batch)
    assert (x - batch.images).abs().max() <= 4 / 255 + 1e-6
    assert x.min() >= 0 and x.max() <= 1
    student.eval()
    generator = torch.Generator().manual_seed(1)
    noise = batch.images + (4 / 255) * (2 * torch.rand(x.shape, generator=generator) - 1)

    def loss(images):
        with torch.no_grad():
            return float(F.cross_entropy(student(images), batch.labels))

    assert loss(x) > loss(noise.clamp(0, 1)) and loss(x) > loss(batch.images)
    assert all(parameter.grad is None for parameter in student.parameters())


def test_the_attack_leaves_batch_statistics_alone(make):
    run = make("adv", epochs=1)
    method = run._state.method.train()
    before = {n: b.clone() for n, b in method.student.named_buffers()}
    images = torch.rand(8, 3, 16, 16)
    batch = Batch(
        images, torch.arange(8) % 3, torch.arange(8), 0.0, torch.Generator().manual_seed(0)
    )
    method.attack(batch)
    assert all(torch.equal(b, before[n]) for n, b in method.student.named_buffers())
    assert method.student.training


@pytest.mark.parametrize("steps, at_the_end", [(1, 0.625), (2, 1.0), (5, 1.0)])
def test_a_single_step_of_the_attack_is_short(ingredients, batch, steps, at_the_end):
    """Where the gradient's sign stays, a step of 1.25 reaches the corner from -0.25 on alone."""
    rivals = RivalsConfig(adv_eps_255=4.0, adv_steps=steps)
    method, _ = built("adv", ingredients, rivals=rivals)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    method.student = Student.from_module(net, ("a", "b", "c"), (3, 16, 16))
    with torch.no_grad():
        net[1].weight[2] = net[1].weight[1]  # that of CE is along w_1 - w_0, anywhere
    images = torch.full((24, 3, 16, 16), 0.5)
    x = method.attack(replace(batch, images=images, labels=torch.zeros(24, dtype=torch.int64)))
    moved = (x - images).abs() * 255 / 4
    assert moved.max() <= 1 + 1e-4
    share = float((moved > 1 - 1e-3).float().mean())
    assert share == pytest.approx(at_the_end, abs=0.02)


def test_diffaug_noises_and_denoises_a_share(ingredients, batch, teacher, monkeypatch):
    seen, denoise = [], teacher.denoise

    def spied(x, sigma, cond):
        seen.append((x, sigma, cond, denoise(x, sigma, cond)))
        return seen[-1][-1]

    monkeypatch.setattr(teacher, "denoise", spied)
    ingredients = replace(ingredients, teacher=teacher)
    method, student = built("diffaug", ingredients, rivals=RivalsConfig(diffaug_share=0.25))
    ce = method(batch)["ce"]
    ((x, sigma, cond, found),) = seen
    assert len(x) == 6 and len(sigma.unique()) > 3
    assert torch.equal(cond, teacher.condition(torch.full((6,), teacher.null_label)))
    noise = (x - (2 * batch.images[:6] - 1)) / sigma[:, None, None, None]
    assert abs(float(noise.mean())) < 0.1 and float(noise.std()) == pytest.approx(1, abs=0.1)
    shown = torch.cat([((found + 1) / 2).clamp(0, 1), batch.images[6:]])
    with torch.no_grad():
        wanted = F.cross_entropy(student(shown), batch.labels)
    assert float(ce.detach()) == pytest.approx(float(wanted), rel=1e-4)
    levels = method._sigmas
    assert teacher.sigma_min < levels.min() < 0.02 and 50 < levels.max() <= teacher.sigma_max
    assert float(levels.median()) == pytest.approx(teacher.sigma_from_t(0.5), rel=0.02)


def test_generated_images_are_added_once(make, teacher, tmp_path):
    run = make("generated")
    assert len(run.images) == 108 + 12  # a tenth of 108, four of each class
    assert run.images.labels[108:].bincount().tolist() == [4, 4, 4]
    cache = tmp_path / "generated" / "generated.safetensors"
    before = cache.read_bytes()
    assert torch.equal(make("generated").images.stored, run.images.stored)
    assert cache.read_bytes() == before
    cache.write_bytes(before[:100])  # damaged: made again, the same
    assert torch.equal(make("generated").images.stored, run.images.stored)
    assert cache.read_bytes() == before
    samples = run.images.stored[108:].float()
    assert samples.std() > 10 and not torch.equal(samples[0], samples[3])


@pytest.mark.parametrize("pooled", ["flat", "pooled"])
def test_diffusion_features_are_the_teachers_of_noised_images(make, teacher, pooled, tmp_path):
    rivals = replace(RIVALS, diffusion_share=0.5)
    run = make("diffusion-features", rivals=rivals, teacher_features=pooled)
    method = run._state.method
    place = method._place
    assert int((place >= 0).sum()) == 54 and len(method._features) == 54
    sigma = teacher.sigma_from_t(0.3)
    row = int(torch.nonzero(place >= 0)[0])
    image = run.images.images(np.array([row])).float() / 127.5 - 1
    null = teacher.condition(torch.tensor([teacher.null_label]))
    # The noise is seeded, not known here: features of many noisings centre on the stored one.
    noised = [image + sigma * torch.randn(image.shape) for _ in range(64)]
    with torch.no_grad():
        f = torch.cat(
            [
                teacher.features(x, torch.full((1,), sigma), null, teacher.default_tap)
                for x in noised
            ]
        )
    f = f.mean((2, 3)) if pooled == "pooled" else f.flatten(1)
    stored = method._features[place[row]]
    assert stored.shape == f.shape[1:]
    spread = (f - f.mean(0)).norm(dim=1)
    assert (stored - f.mean(0)).norm() < 1.5 * spread.max()
    cache = tmp_path / "diffusion-features" / "teacher_features.safetensors"
    before = cache.stat().st_mtime_ns
    make("diffusion-features", rivals=rivals, teacher_features=pooled)
    assert cache.stat().st_mtime_ns == before


def test_diffusion_features_need_a_null_class(make, canonical_of, teacher, monkeypatch):
    canonical_of("top", 3.0)  # made while there is one
    monkeypatch.setattr(type(teacher), "has_null", False)
    with pytest.raises(UserError, match="no null class: give `teacher` one that has"):
        make("diffusion-features", rivals=RIVALS)


def test_diffusion_features_behind_a_linear_map(make):
    run = make("diffusion-features", rivals=replace(RIVALS, diffusion_form="cosine"))
    method = run._state.method
    before = method.projector.weight.detach().clone()
    (record,) = run.records()
    done = run.finish()
    assert not torch.equal(method.projector.weight, before)
    assert 0 < record["train"]["match"] < 2
    assert done["teacher_sha256"] and not any("projector" in k for k in run.student.state_dict())


def test_ramp():
    assert [ramp(2.0, 4.0, epoch) for epoch in (0.0, 1.0, 4.0, 9.0)] == [0.0, 0.5, 2.0, 2.0]
    assert ramp(2.0, 0.0, 0.0) == 2.0


def test_methods_have_a_paper_or_are_plain():
    import sys

    for name, method in METHODS.items():
        text = (sys.modules[method.__module__].__doc__ or "") + (method.__doc__ or "")
        assert name == "vanilla" or "arXiv" in text, name


class Mine(Method):
    """CE + weight * |f|^2, as a user writes it."""

    name = "mine"

    @dataclass(frozen=True)
    class Config:
        weight: Annotated[float, Within(0)] = 0.5

    def terms(self, batch):
        features, logits = self.both(batch.images)
        norm = self.options.weight * features.square().mean()
        return {"ce": self.cross_entropy(logits, batch.labels), "norm": norm}


def test_a_method_of_ones_own(data, config, tmp_path):
    parts = {"method": Mine, "config": config}
    student = train_student(data, tmp_path / "a", **parts)
    assert student.info.class_names == data.class_names
    stored = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (stored["method"], stored["options"]) == ("mine", {})
    train_student(data, tmp_path / "b", **parts, options=Mine.Config(weight=2.0))
    stored = json.loads((tmp_path / "b" / "config.json").read_text())
    assert stored["options"] == {"weight": 2.0}
    with pytest.raises(UserError, match=r"another configuration \(weight: 0.5 there, 2.0 now\)"):
        train_student(data, tmp_path / "a", **parts, options=Mine.Config(weight=2.0))
    with pytest.raises(UserError, match="`weight=-1` is below 0"):
        train_student(data, tmp_path / "c", **parts, options=Mine.Config(weight=-1))
    with pytest.raises(UserError, match="options of method mine are of another class"):
        train_student(data, tmp_path / "c", **parts, options=RIVALS)
    for name in ("", "kd"):
        with pytest.raises(UserError, match=f"name is '{name}': give its class a `name`"):
            train_student(data, tmp_path / "c", method=Mine.variant(name), config=config)
    assert not (tmp_path / "c").exists()


class Weighted(Mine):
    """Draws the first three images alone, and notes what it was shown."""

    name = "weighted"
    wanted = 3

    def __init__(self, student, ingredients):
        super().__init__(student, ingredients)
        self.weights = (torch.arange(len(self.images)) < self.wanted).float()
        self.seen = []

    def terms(self, batch):
        self.seen += batch.positions.tolist()
        return super().terms(batch)


def test_a_method_draws_by_weights(data, config, tmp_path):
    run = StudentRun(data, tmp_path / "a", method=Weighted, config=config)
    list(run.records())
    seen = run._state.method.seen
    assert len(seen) == len(run.images) and set(seen) == {0, 1, 2}
    none = Weighted.variant("none", wanted=0)
    with pytest.raises(UserError, match="`weights` are"):
        StudentRun(data, tmp_path / "b", method=none, config=config)


def test_options_of_methods_have_names_of_their_own():
    kinds = {method.Config for method in METHODS.values()} | {TrainingConfig}
    kinds = {one for kind in kinds for one in kind.mro()[:-1]}  # options of two have bases
    names = [name for kind in kinds for name in get_annotations(kind)]
    assert len(names) == len(set(names)) and {"kd_weight", "lambda_align", "epochs"} < set(names)
    assert {one.name for one in fields(DistillConfig)} | {
        one.name for one in fields(RivalsConfig)
    } == {*names, "rivals"}
