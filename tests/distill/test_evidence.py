"""Evidence and gradient-norm beside naive loops, finite differences and planted truths."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clarep.audit.audit import EvidenceTargets
from clarep.distill.distill_config import DistillConfig, RivalsConfig, settled
from clarep.distill.methods import METHODS, Batch, Ingredients, evidence
from clarep.distill.trainer.student_run import StudentRun
from clarep.distill.trainer.train_images import TrainImages
from clarep.distill.trainer.views import draw_lines
from clarep.errors import UserError
from clarep.students.student import Student, StudentInfo
from clarep.students.student_files import build_student

CONFIG = DistillConfig(epochs=10, crop_padding=2)
TRAINED = np.arange(100)  # of 120 images, of which 36 have evidence


@pytest.fixture
def student(data):
    info = StudentInfo("resnet8", data.class_names, (3, 16, 16), "silu")
    return build_student(info, seed=1)


@pytest.fixture
def build(data, audit, student, tmp_path):
    """Build a method of a name, its batch norms at rest unless told otherwise."""

    def of(name, config=CONFIG, audit=audit, student=student, **options):
        own = {key: value for key, value in options.items() if key.startswith("evidence")}
        others = {key: value for key, value in options.items() if key not in own}
        config = replace(config, **own, rivals=RivalsConfig(**others))
        images = TrainImages.of(data, TRAINED, 100.0, 0)
        cpu = torch.device("cpu")
        _, chosen = settled(name, config)
        given = Ingredients(config, chosen, images, tmp_path, cpu, audit=audit)
        return METHODS[name](student, given).eval()

    return of


@pytest.fixture
def batch(data):
    images = data.images(TRAINED[:24]) / 255
    labels = torch.from_numpy(data.labels[:24])
    return Batch(images, labels, torch.arange(24), 0.75, seeded(), None, None)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def again(batch):
    return replace(batch, generator=seeded())


@pytest.fixture
def drawn(data, audit):
    return Drawn(data, audit)


class Drawn:
    """What a step draws, from the generator alone, in loops: 8 of a batch of 24."""

    def __init__(self, data, audit):
        generator = seeded()
        members = [int(i) for i in audit.targets.index if i in TRAINED]
        picks = torch.randint(len(members), (8,), generator=generator)
        self.index = [members[i] for i in picks]
        rows, columns = draw_lines(torch.zeros(8, 3, 16, 16), CONFIG, generator)
        step = torch.randint(1, 3, (8,), generator=generator)
        self.chance = torch.rand(8, generator=generator)
        self.labels = [int(data.labels[i]) for i in self.index]
        self.other = [(y + int(s)) % 3 for y, s in zip(self.labels, step, strict=True)]
        place = {int(i): row for row, i in enumerate(audit.targets.index)}
        self.denoised = [audit.targets.denoised[place[i]].float() for i in self.index]
        self.views = []  # functions of a picture of one image
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True):
            self.views.append(lambda picture, r=r, c=c: picture[:, r][:, :, c])
        self.images = [
            view(data.images([i])[0] / 255.0)
            for view, i in zip(self.views, self.index, strict=True)
        ]


def gradient_of(output, x):
    (gradient,) = torch.autograd.grad(output, x)
    return gradient.flatten().double()


@pytest.mark.parametrize("contrast", ["rival", "null"])
def test_terms_are_those_of_a_loop_over_images(build, batch, drawn, student, contrast):
    method = build("evidence", evidence_contrast=contrast, evidence_weight=3.0, evidence_norm=0.1)
    found = {name: float(term.detach()) for name, term in method(batch).items()}
    cosines, norms, ce, kinds = [], [], [], set()
    for i, image in enumerate(drawn.images):
        x = image[None].clone().requires_grad_()
        logits, y = student(x)[0], drawn.labels[i]
        order = [k for k in logits.argsort(descending=True).tolist() if k != y]
        if contrast == "rival":
            rival = order[0] if drawn.chance[i] < 0.5 else drawn.other[i]
            output, evidence_of = logits[y] - logits[rival], (y, rival)
            kinds.add(bool(drawn.chance[i] < 0.5))
        else:
            one = y if drawn.chance[i] < 1 / 3 else drawn.other[i]
            output, evidence_of = logits[one], (one, 3)
            kinds.add(one == y)
        p = float(logits.softmax(0)[y].detach())
        g = gradient_of(output, x)
        t = drawn.views[i](drawn.denoised[i][evidence_of[0]] - drawn.denoised[i][evidence_of[1]])
        t = t.flatten().double()
        cosines.append(float(g @ t / g.norm() / t.norm()))
        norms.append((1 - p) * float(g.abs().sum()))
        ce.append(float(F.cross_entropy(logits[None].detach(), torch.tensor([y]))))
    assert kinds == {True, False}
    with torch.no_grad():
        rest = F.cross_entropy(student(batch.images[:16]), batch.labels[:16], reduction="sum")
    risen = 0.75 / (0.15 * 10)
    assert found["ce"] == pytest.approx((float(rest) + sum(ce)) / 24, rel=1e-4)
    assert found["evidence"] == pytest.approx(risen * 3 * (1 - np.mean(cosines)), rel=1e-4)
    assert found["norm"] == pytest.approx(risen * 0.1 * np.mean(norms), rel=1e-4)


@pytest.mark.parametrize("rivals", [1, 2])
def test_of_a_few_rivals_the_terms_are_those_of_a_loop(build, batch, audit, student, rivals):
    """Each image's evidence is of its own class, one rival or two in their order, and none."""
    whole, generator = audit.targets, torch.Generator().manual_seed(5)
    own = audit.labels[whole.index]
    step = torch.randint(1, 3, own.shape, generator=generator)
    others = torch.stack([own + step, own - step], dim=1)[:, :rivals] % 3
    tried = torch.cat([own[:, None], others, torch.full_like(own[:, None], 3)], dim=1)
    picked = whole.denoised[torch.arange(len(own))[:, None], tried]
    few = replace(audit, targets=EvidenceTargets(whole.index, picked, tried))
    method = build("evidence", audit=few, evidence_weight=3.0)
    found = float(method(batch)["evidence"].detach())

    generator = seeded()
    members = [row for row, i in enumerate(whole.index.tolist()) if i in TRAINED]
    rows = [members[i] for i in torch.randint(len(members), (8,), generator=generator)]
    lines = draw_lines(torch.zeros(8, 3, 16, 16), CONFIG, generator)
    other = torch.randint(1, 1 + rivals, (8,), generator=generator)
    chance, cosines = torch.rand(8, generator=generator), []
    for i, row in enumerate(rows):
        r, c = (line[i].tolist() for line in lines)
        x = (method._images[members.index(row)] / 255.0)[:, r][:, :, c][None].requires_grad_()
        logits, classes = student(x)[0], tried[row].tolist()
        likeliest = max(classes[1 : 1 + rivals], key=lambda k: float(logits[k].detach()))
        rival = likeliest if chance[i] < 0.5 else classes[int(other[i])]
        g = gradient_of(logits[classes[0]] - logits[rival], x)
        apart = whole.denoised[row, classes[0]].float() - whole.denoised[row, rival].float()
        t = apart[:, r][:, :, c].flatten().double()
        cosines.append(float(g @ t / g.norm() / t.norm()))
    assert found == pytest.approx(0.5 * 3 * (1 - np.mean(cosines)), rel=1e-4)
    build("evidence", audit=few, evidence_contrast="null")(again(batch))
    build("evidence-shuffled", audit=few)(again(batch))
    with pytest.raises(UserError, match="audit without `target_rivals`"):
        build("evidence-class-mean", audit=few)


def test_gradient_norm_is_that_of_a_loop_over_images(build, batch, student):
    method = build("gradient-norm", gradient_norm_weight=0.5)
    found = {name: float(term.detach()) for name, term in method(batch).items()}
    norms = []
    for image, label in zip(batch.images[16:], batch.labels[16:], strict=True):
        x = image[None].clone().requires_grad_()
        norms.append(gradient_of(F.cross_entropy(student(x), label[None]), x).abs().sum())
    assert found["norm"] == pytest.approx(0.5 * 0.5 * float(np.mean(norms)), rel=1e-4)
    with torch.no_grad():
        ce = F.cross_entropy(student(batch.images), batch.labels)
    assert found["ce"] == pytest.approx(float(ce), rel=1e-4)


@pytest.mark.parametrize("mode", ["batch norms at rest", "in training"])
@pytest.mark.parametrize("name", ["evidence", "gradient-norm"])
def test_the_gradient_of_the_loss_is_that_of_finite_differences(
    build, batch, monkeypatch, name, mode
):
    """In float64, along random directions of all weights: the second derivatives are whole."""
    method = build(name, evidence_norm=0.1, gradient_norm_weight=0.1)
    method.double().train(mode == "in training")
    student = method.student
    monkeypatch.setattr(evidence, "to_student_range", lambda images: images.double() / 255)
    monkeypatch.setattr(method, "both", student.both)
    batch = replace(batch, images=batch.images.double())
    weights = [w for w in student.parameters() if w.requires_grad]
    gradients = torch.autograd.grad(method(again(batch))["loss"], weights)
    for seed in range(3):
        generator = seeded(seed)
        along = [torch.randn(w.shape, generator=generator).double() for w in weights]
        size, losses = 1e-6, []
        for sign in (1, -2, 1):
            with torch.no_grad():
                torch._foreach_add_(weights, along, alpha=sign * size)
            losses.append(float(method(again(batch))["loss"].detach()))
        wanted = (losses[0] - losses[1]) / (2 * size)
        found = sum(float((g * d).sum()) for g, d in zip(gradients, along, strict=True))
        assert found == pytest.approx(wanted, rel=1e-4)


def with_evidence(audit, denoised):
    return replace(audit, targets=EvidenceTargets(audit.targets.index, denoised.half()))


@pytest.mark.parametrize("padding", [0, 3])
def test_evidence_moves_with_its_image(build, batch, audit, monkeypatch, padding):
    """Evidence that is the image itself, times the class, is parallel to every view of it."""
    images = build("evidence").images.data.images(audit.targets.index.numpy()) / 255
    planted = with_evidence(audit, torch.stack([images * k for k in range(4)], dim=1))
    method = build("evidence", replace(CONFIG, crop_padding=padding), planted)
    shown, met = [], []
    ours = method.both
    monkeypatch.setattr(method, "both", lambda x: (shown.append(x.detach()), ours(x))[1])
    align = evidence.instance_alignment
    monkeypatch.setattr(
        evidence, "instance_alignment", lambda g, t: (met.append(t.detach()), align(g, t))[1]
    )
    method(batch)
    cosine = F.cosine_similarity(shown[0].flatten(1), met[0]).abs()
    assert torch.allclose(cosine, torch.ones(8), atol=1e-4)
    originals = {image.numpy().tobytes() for image in images}
    is_moved = [view.numpy().tobytes() not in originals for view in shown[0]]
    assert any(is_moved) and (padding or not all(is_moved))


def test_gradients_learn_a_planted_direction(build, batch, data, audit):
    """A linear student's z_y - z_c has the gradient w_y - w_c: the evidence is there to be met."""
    planted = torch.randn(4, 3, 16, 16, generator=seeded(5)).expand(42, -1, -1, -1, -1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    student = Student.from_module(net, data.class_names, (3, 16, 16))
    config = replace(CONFIG, flip=False, crop_padding=0)
    method = build("evidence", config, with_evidence(audit, planted), student)
    optimiser = torch.optim.SGD(student.parameters(), lr=0.5)
    terms = []
    for step in range(60):
        terms.append(method(replace(batch, generator=seeded(step)))["evidence"])
        optimiser.zero_grad()
        terms[-1].backward()
        optimiser.step()
    cosines = [1 - float(term.detach()) for term in (terms[0], terms[-1])]  # 2 * 0.5 of 1 - cos
    assert abs(cosines[0]) < 0.1 and cosines[1] > 0.95


def test_no_image_that_is_held_out_is_drawn(data, audit, tmp_path):
    config = DistillConfig(epochs=1, batch_size=60, validation_share=0.5)
    run = StudentRun(data, tmp_path, method="evidence", config=config, audit=audit)
    method = run._state.method
    wanted = np.intersect1d(run.images.index, audit.targets.index.numpy())
    assert 0 < len(wanted) < len(audit.targets.index)
    assert torch.equal(method._images, data.images(wanted))
    assert method._labels.tolist() == data.labels[wanted].tolist()
    held_out = {image.numpy().tobytes() for image in run._validation.images.stored}
    assert not held_out & {image.numpy().tobytes() for image in method._images}


def test_controls_show_the_evidence_of_others(build, data, audit):
    own = build("evidence")
    shuffled, mean = build("evidence-shuffled"), build("evidence-class-mean")
    labels, count = own._labels, len(own._labels)
    assert torch.equal(own._denoised[own._row], own._denoised)
    assert sorted(shuffled._row.tolist()) == list(range(count))
    assert not (shuffled._row == torch.arange(count)).any()
    assert torch.equal(labels[shuffled._row], labels)
    assert torch.equal(build("evidence-shuffled")._row, shuffled._row)
    for label in range(3):
        wanted = own._denoised[labels == label].double().mean(0)
        met = mean._denoised[mean._row[labels == label]].double()
        assert len(met.unique(dim=0)) == 1 and torch.allclose(met[0], wanted, atol=2e-3)


def test_the_twin_has_no_teacher(build, batch, audit):
    terms = build("evidence-norm")(batch)
    other = with_evidence(audit, torch.zeros(42, 4, 3, 16, 16))
    again = build("evidence-norm", audit=other)(replace(batch, generator=seeded()))
    assert set(terms) == {"ce", "norm", "loss"} and torch.equal(terms["loss"], again["loss"])


@pytest.mark.parametrize("name", ["evidence", "gradient-norm"])
def test_the_weights_rise_over_the_warm_up(build, batch, name):
    method = build(name)
    at = [method(replace(again(batch), epoch=epoch))["norm"] for epoch in (0.0, 0.75, 1.5, 9.0)]
    values = [float(term.detach()) for term in at]
    assert values[0] == 0 and values[1] == pytest.approx(values[2] / 2, rel=1e-5)
    assert values[2] == values[3] > 0


def test_it_trains_in_mixed_precision(data, audit, tmp_path):
    config = DistillConfig(epochs=1, batch_size=60, mixed_precision="bf16")
    parts = {"activation": "silu", "config": config}
    run = StudentRun(data, tmp_path, method="evidence", audit=audit, **parts)
    (record,) = run.records()
    assert all(np.isfinite(value) for value in record["train"].values())


def test_an_audit_that_does_not_serve_is_refused(build, audit):
    with pytest.raises(UserError, match="holds no class evidence: audit with `target_share`"):
        build("evidence", audit=replace(audit, targets=None))
    beyond = EvidenceTargets(torch.tensor([110]), audit.targets.denoised[:1])
    with pytest.raises(UserError, match="evidence of none of the training images"):
        build("evidence", audit=replace(audit, targets=beyond))
    knows_all = with_evidence(audit, audit.targets.denoised[:, :3])
    build("evidence", audit=knows_all)
    with pytest.raises(UserError, match="`evidence_contrast=null` needs a teacher that knows no"):
        build("evidence", audit=knows_all, evidence_contrast="null")
    one = EvidenceTargets(torch.tensor([0, 1, 2, 9]), audit.targets.denoised[:4])
    with pytest.raises(UserError, match="class 1 has evidence of one alone"):
        build("evidence-shuffled", audit=replace(audit, targets=one))
