"""How well a teacher's doubt finds images on a foreign backdrop, beside students, at what cost.

    python tools/audit_cost.py OUT [--images 5000] [--correlations 0.9 0.5 0.95]

Teacher backdrops-biased; backdrops; students see all 5,000 images. The images that should be found
show another class's scene. A table a correlation: draws of noise, classes that an image is
tried with, denoisings an image, AUC, precision and recall with intervals; then what students say,
JTT's error set and confident learning. Then all of it with a tenth of the labels flipped: what
finds wrong labels, and tells them from foreign scenes. Costs of students are in denoisings, by CPU
time. Writes OUT/audit_cost.json; what was denoised and trained is kept in OUT, so that a killed run
goes on.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from clarep.audit.detection import confident_learning, detection, jtt_errors
from clarep.clarid.diffusion_classifier import drawn_errors
from clarep.clarid.noise_draws import ERRORS, noise_of
from clarep.data.backdrops import load_backdrops
from clarep.data.class_balance import class_balanced_choice
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.data.subset import subset
from clarep.distill.distill_config import DistillConfig
from clarep.distill.train_student import train_student
from clarep.engine.artefacts import write_json
from clarep.engine.tensors import computed_once
from clarep.teachers.zoo import load_teacher

SIGMAS = (0.25, 0.5, 1.0)
DRAWS = 4
CLASSES = 10
FOLDS, FOLD_EPOCHS = 5, 4
JTT = [(1, 0), (2, 0), (2, 1), (2, 2)]  # epochs, seed


def errors_of(teacher, data, index, path, *, sigmas, draws):
    """Return errors under all classes and none, (levels, draws, n, 11), in the classes' order."""

    def compute():
        parts = []
        for some in np.array_split(index, -(-len(index) // 250)):
            x = to_unit_range(data.images(some))
            tried = torch.arange(CLASSES + 1).expand(len(some), -1)  # the last is no class

            def noise(level, draw, some=some):
                shape = teacher.latent_shape
                return noise_of(some, shape, seed=0, purpose=ERRORS, level=level, draw=draw)

            parts.append(
                drawn_errors(teacher, x, tried, sigmas, noise, draws=draws, batch_size=200)
            )
        return {"errors": torch.cat(parts, dim=2)}

    return computed_once(path, {"sigmas": sigmas, "draws": draws}, compute)["errors"]


def doubts(errors, labels, draws=DRAWS, rivals=None, null=False):
    """Return the doubt at one level from fewer draws, other classes, or against no class."""
    mean, rows = errors[:draws].mean(0), torch.arange(len(labels))
    own = mean[rows, labels]
    if null:
        return own - mean[:, CLASSES]
    allowed = torch.ones(len(labels), CLASSES, dtype=torch.bool)
    if rivals is not None:
        generator = torch.Generator().manual_seed(0)
        order = torch.rand(len(labels), CLASSES, generator=generator)
        order[rows, labels] = 2
        allowed = order.argsort(1).argsort(1) < rivals
    allowed[rows, labels] = False
    return own - mean[:, :CLASSES].masked_fill(~allowed, torch.inf).amin(1)


def cost_table(errors, labels, conflicting):
    """Return a row a setting at the lowest noise level."""
    rows = []
    for rivals, null in ((None, False), (5, False), (3, False), (1, False), (None, True)):
        for draws in (1, 2, 4):
            score = doubts(errors[0.25], labels, draws, rivals, null)
            tried = 2 if null else 1 + (rivals or CLASSES - 1)
            found = detection(score, conflicting)
            what = "no class" if null else str(rivals or "all")
            name = f"doubt against {what}, {draws} draw(s)"
            rows.append({"score": name, "denoisings": draws * tried} | asdict(found))
    for sigma in [sigma for sigma in errors if sigma > SIGMAS[0]]:
        for draws in (1, 2):
            found = detection(doubts(errors[sigma], labels, draws), conflicting)
            name = f"doubt against all, {draws} draw(s), sigma {sigma:g}"
            rows.append({"score": name, "denoisings": draws * CLASSES} | asdict(found))
    return rows


def trained_on(data, out, config):
    """Return a vanilla ResNet-8 of the last epoch."""
    return train_student(data, out, config=config).eval()


@torch.no_grad()
def probabilities(student, data, index):
    """Return a student's class probabilities of some images."""
    parts = np.array_split(index, -(-len(index) // 500))
    return torch.cat([student(data.images(part).float() / 255).softmax(1) for part in parts])


def student_scores(data, out):
    """Return name -> (score, CPU seconds): JTT's error sets, and confident learning.

    The latter is the margin, and less the self-confidence, of students that did not see the image.
    """
    labels, found = torch.from_numpy(data.labels), {}
    config = DistillConfig(validation_share=0.0, pick="last")

    def compute():
        tensors = {}
        for epochs, seed in JTT:
            started = time.process_time()
            given = {"epochs": epochs, "seed": seed}
            student = trained_on(data, out / f"jtt-{epochs}-{seed}", replace(config, **given))
            tensors[f"jtt {epochs} {seed}"] = probabilities(student, data, np.arange(len(data)))
            tensors[f"seconds jtt {epochs} {seed}"] = torch.tensor(time.process_time() - started)
        started, out_of_fold = time.process_time(), torch.zeros(len(data), CLASSES)
        fold = np.random.default_rng(0).permutation(len(data)) % FOLDS
        for held in range(FOLDS):
            rest = subset(data, np.flatnonzero(fold != held), f"without fold {held}")
            student = trained_on(rest, out / f"fold-{held}", replace(config, epochs=FOLD_EPOCHS))
            at = np.flatnonzero(fold == held)
            out_of_fold[torch.from_numpy(at)] = probabilities(student, data, at)
        seconds = torch.tensor(time.process_time() - started)
        return tensors | {"folds": out_of_fold, "seconds folds": seconds}

    described = {"folds": [FOLDS, FOLD_EPOCHS], "jtt": JTT, "data": data.sha256()}
    kept = computed_once(out / "students.safetensors", described, compute)
    for epochs, seed in JTT:
        key = f"jtt {epochs} {seed}"
        name = f"errors of {epochs} epoch(s) (JTT), seed {seed}"
        found[name] = jtt_errors(kept[key], labels), float(kept[f"seconds {key}"])
    spent, own = float(kept["seconds folds"]), kept["folds"].gather(1, labels[:, None])[:, 0]
    found["confident learning, margin"] = confident_learning(kept["folds"], labels), spent
    found["confident learning, self-confidence"] = -own, spent
    return found


def seconds_each(teacher, data, index):
    """Return the CPU seconds of a denoising."""
    x, started = to_unit_range(data.images(index[:200])), time.process_time()
    tried = torch.arange(5).expand(len(x), -1)
    drawn_errors(teacher, x, tried, [0.25], lambda *_: x, draws=1, batch_size=200)
    return (time.process_time() - started) / tried.numel()


def told(rows):
    """Print rows of a table."""
    for row in rows:
        figures = "  ".join(
            f"{name} {row[name]:.3f} [{row[f'{name}_interval'][0]:.3f}, "
            f"{row[f'{name}_interval'][1]:.3f}]"
            for name in ("auc", "precision", "recall")
        )
        print(f"  {row['score']:44} {row['denoisings']:6.1f}  {figures}", flush=True)


def scored(scores, truth, among=None, share=0.1):
    """Return a row a score, name -> (score, denoisings), among some of the images."""
    among = np.ones(len(truth), bool) if among is None else among
    rows = []
    for name, (score, denoisings) in scores.items():
        found = detection(score[torch.from_numpy(among)], truth[among], share)
        rows.append({"score": name, "denoisings": denoisings} | asdict(found))
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--correlations", type=float, nargs="+", default=[0.9, 0.5, 0.95])
    given = parser.parse_args()
    teacher, answer = load_teacher("backdrops-biased"), {}
    for correlation in given.correlations:
        whole = load_backdrops("train", 0, correlation)
        index = class_balanced_choice(whole.labels, given.images / len(whole), 0)
        out, cues = given.out / f"{correlation:g}", whole.cues()[index]
        own = whole.labels[index]
        path = given.out / f"errors-{correlation:g}.safetensors"
        errors = errors_of(teacher, whole, index, path, sigmas=SIGMAS[:1], draws=DRAWS)
        coarse = given.out / f"coarse-{correlation:g}.safetensors"
        sigmas = SIGMAS if correlation == 0.9 else SIGMAS[2:]
        more = errors_of(teacher, whole, index, coarse, sigmas=sigmas, draws=2)
        every = dict(zip(sigmas, more, strict=True)) | {SIGMAS[0]: errors[0]}
        each = seconds_each(teacher, whole, index)
        print(f"correlation {correlation:g}: {(cues != own).sum()} of {len(own)} foreign")
        rows = cost_table(every, torch.from_numpy(own), cues != own)
        if correlation == 0.9:
            found = students_of(whole, whole.labels, out / "right", each)
            rows += scored(at(found, index), cues != own)
        told(rows)
        answer[f"correlation {correlation:g}"] = rows
        found = flipped(teacher, whole, index, every, out=out, each=each)
        answer[f"correlation {correlation:g}, a tenth of the labels flipped"] = found
        for what, some in found.items():
            print(f" with flipped labels, {what}: {some[0]['found']} of {some[0]['images']}")
            told(some)
        write_json(given.out / "audit_cost.json", answer)


def students_of(whole, labels, out, each):
    """Return students' scores of all images under these labels; `each`: seconds of a denoising."""
    named = (whole.class_names, whole.sources, whole.read)
    data = LabelledImages(f"{whole.name} relabelled", labels, *named)
    found = student_scores(data, out)
    return {name: (score, spent / each / len(data)) for name, (score, spent) in found.items()}


def at(scores, index):
    """Return scores of some of the images."""
    few = torch.from_numpy(index)
    return {name: (score[few], denoisings) for name, (score, denoisings) in scores.items()}


def flipped(teacher, whole, index, every, *, out, each):
    """Return how well scores find a tenth of flipped labels, and tell them from foreign scenes."""
    rng = np.random.default_rng(0)
    count, own = len(whole), whole.labels
    wrong = np.zeros(count, bool)
    wrong[rng.choice(count, count // 10, replace=False)] = True
    every_label = np.where(wrong, (own + rng.integers(1, CLASSES, count)) % CLASSES, own)
    given, own, wrong, cues = every_label[index], own[index], wrong[index], whole.cues()[index]
    labels, foreign = torch.from_numpy(given), ~wrong & (cues != own)
    scores = {f"doubt, sigma {s:g}": (doubts(e, labels, 2), 2 * CLASSES) for s, e in every.items()}
    scores["doubt against no class, sigma 0.25"] = doubts(every[0.25], labels, 2, null=True), 4
    scores |= at(students_of(whole, every_label, out / "flipped", each), index)
    either = wrong | foreign
    rows = np.flatnonzero(either)
    path = out / "wide.safetensors"
    wide = errors_of(teacher, whole, index[rows], path, sigmas=(4.0,), draws=2)[0].mean(0)
    few = torch.from_numpy(rows)
    mean = every[0.25][:2].mean(0)[few, :CLASSES].clone()
    mean[torch.arange(len(few)), labels[few]] = torch.inf
    gap = torch.zeros(len(index), dtype=torch.float64)
    row = torch.arange(len(few))
    gap[few] = (wide[row, labels[few]] - wide[row, mean.argmin(1)]).double()
    apart = scores | {"own less rival of sigma 0.25, at sigma 4": (gap, 2 * CLASSES + 4)}
    return {
        "either, among all": scored(scores, either, share=float(either.mean())),
        "flipped, among all": scored(scores, wrong),
        "foreign, among those of the right label": scored(scores, cues != own, ~wrong),
        "flipped, among either": scored(apart, wrong, either, float(wrong[either].mean())),
    }


if __name__ == "__main__":
    main()
