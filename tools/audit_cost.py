"""How well a teacher's doubt finds images on a foreign backdrop, and what that costs.

    python tools/audit_cost.py OUT [--images 1500]

Teacher backdrops-biased; backdrops at correlations of 0.5, 0.9 and 0.95. The images that should be
found show another class's scene. One table a correlation: draws of noise, classes that an image is
tried with, denoisings an image, AUC with its interval. Then, at 0.9 with a tenth of the labels
flipped, what tells a wrong label from a foreign scene. Writes OUT/audit_cost.json; what was
denoised is kept in OUT, so that a killed run goes on.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from clarep.audit.detection import detection
from clarep.clarid.diffusion_classifier import denoising_residuals, drawn_errors
from clarep.clarid.noise_draws import ERRORS, MASKS, noise_of
from clarep.data.backdrops import load_backdrops
from clarep.data.labelled import class_balanced_choice, to_unit_range
from clarep.engine.artefacts import write_json
from clarep.engine.tensors import computed_once
from clarep.teachers.zoo import load_teacher

SIGMAS = (0.25, 0.5, 1.0)
DRAWS = 4
CLASSES = 10


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
            score = doubts(errors[0], labels, draws, rivals, null)
            tried = 2 if null else 1 + (rivals or CLASSES - 1)
            found = detection(score, conflicting)
            what = "no class" if null else str(rivals or "all")
            rows.append({"draws": draws, "against": what, "denoisings": draws * tried})
            rows[-1] |= asdict(found)
    for level, sigma in enumerate(SIGMAS[1:], start=1):
        for draws in (1, 2):
            found = detection(doubts(errors[level], labels, draws), conflicting)
            rows.append({"draws": draws, "against": f"all, sigma {sigma:g}"})
            rows[-1] |= {"denoisings": draws * CLASSES} | asdict(found)
    return rows


def maps_of(teacher, data, index, path, *, own, rivals):
    """Return the error under the rival less that under the own class at each pixel, 16 draws."""

    def compute():
        total = torch.zeros(len(index), 32, 32)
        x, both = to_unit_range(data.images(index)), torch.stack([own, rivals], 1)
        for draw in range(16):
            eps = noise_of(index, teacher.latent_shape, seed=0, purpose=MASKS, draw=draw)
            for image, column, residual in denoising_residuals(
                teacher, x, both, SIGMAS[0], eps, batch_size=200
            ):
                sign = 2 * column - 1
                squared = residual.square().sum(1) * sign[:, None, None]
                total.index_add_(0, image, squared / 16)
        return {"maps": total}

    return computed_once(path, {"draws": 16}, compute)["maps"]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=1500)
    given = parser.parse_args()
    teacher, answer = load_teacher("backdrops-biased"), {}
    for correlation in (0.9, 0.5, 0.95):
        data = load_backdrops("train", 0, correlation)
        index = class_balanced_choice(data.labels, given.images / len(data), 0)
        labels, cues = torch.from_numpy(data.labels[index]), data.cues()[index]
        path = given.out / f"errors-{correlation:g}.safetensors"
        errors = errors_of(teacher, data, index, path, sigmas=SIGMAS[:1], draws=DRAWS)
        coarse = given.out / f"coarse-{correlation:g}.safetensors"
        more = errors_of(teacher, data, index, coarse, sigmas=SIGMAS, draws=2)
        every = [errors[0], more[1], more[2]]
        rows = cost_table(every, labels, cues != data.labels[index])
        answer[f"correlation {correlation:g}"] = rows
        print(f"correlation {correlation:g}: {rows[0]['found']} of {rows[0]['images']}")
        for row in rows:
            print(
                f"  {row['draws']} draws, against {row['against']:16} {row['denoisings']:3}  AUC "
                f"{row['auc']:.3f} [{row['auc_interval'][0]:.3f}, {row['auc_interval'][1]:.3f}]  "
                f"precision {row['precision']:.2f}  recall {row['recall']:.2f}",
                flush=True,
            )
        if correlation == 0.9:
            answer["flipped labels"] = flipped(teacher, data, index, every, given.out)
            print(json.dumps(answer["flipped labels"], indent=2), flush=True)
    write_json(given.out / "audit_cost.json", answer)


def flipped(teacher, data, index, every, out):
    """Return how well scores find flipped labels, and tell them from foreign scenes."""
    rng = np.random.default_rng(0)
    own = data.labels[index]
    wrong = np.zeros(len(index), bool)
    wrong[rng.choice(len(index), len(index) // 10, replace=False)] = True
    given = np.where(wrong, (own + rng.integers(1, CLASSES, len(own))) % CLASSES, own)
    labels, cues = torch.from_numpy(given), data.cues()[index]
    foreign = ~wrong & (cues != own)
    scores = {
        f"doubt, sigma {s:g}": doubts(e, labels, 2) for s, e in zip(SIGMAS, every, strict=True)
    }
    found = {
        "images": {"flipped": int(wrong.sum()), "foreign scene": int(foreign.sum())},
        "flipped among all": {name: asdict(detection(s, wrong)) for name, s in scores.items()},
        "foreign or flipped among all": asdict(
            detection(scores["doubt, sigma 0.25"], wrong | foreign, 0.2)
        ),
    }
    rows = np.flatnonzero(wrong | foreign)
    few = torch.from_numpy(rows)
    mean = every[0][:2].mean(0)[few, :CLASSES].clone()
    mean[torch.arange(len(few)), labels[few]] = torch.inf
    rivals = mean.argmin(1)
    maps = maps_of(
        teacher, data, index[rows], out / "maps.safetensors", own=labels[few], rivals=rivals
    )
    smooth = F.avg_pool2d(maps[:, None], 7, 1, 3, count_include_pad=False)[:, 0].flatten(1)
    told = {name: score[few] for name, score in scores.items()} | {
        "least share of pixels that speak for the label": -(smooth > 0).double().mean(1),
        "least evidence for the label at any place": -smooth.amax(1),
        "the same, over the most against it": -smooth.amax(1) / -smooth.amin(1),
    }
    found["flipped among foreign or flipped"] = {
        name: asdict(detection(score, wrong[rows], float(wrong[rows].mean())))
        for name, score in told.items()
    }
    return found


if __name__ == "__main__":
    main()
