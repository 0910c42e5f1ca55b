"""Class evidence and spread by kind of directions and label of inversion, for docs/results.md.

    python tools/compare_kinds.py cifar10 0.5 100 --data cifar10_jpegbytes_train.npz
    python tools/compare_kinds.py backdrops-biased 0.85 60 --correlation 0.9
    python tools/compare_kinds.py cifar10 0.5 250 --data cifar10_jpegbytes_train.npz \
        --device cuda --batch 125 --draw 1 --out draw-1.jsonl

Prints a line of JSON for each setting; with --out each is also kept with its values image by image,
so that two settings can be compared in pairs. `cifar10` is judged by the third party's ResNet-56 of
`tests/third_party.py`, garments by the bundled judge. A batch changes the solver's start.
"""

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep import Clarid, DataConfig, class_evidence, load_data, load_teacher
from clarep.clarid.directions import project_out
from clarep.report.quality import student_judge
from clarep.select.clarep_measures import background_colours, colour_spread, scene_of
from clarep.select.judging import Scorer
from clarep.students.student_files import load_judge
from clarep.teachers.options import TeacherOptions

PLAN: dict[str, dict[str, list[int]]] = {
    "class": {
        "top": [8, 31],
        "contrast": [31, 123],
        "mask": [8, 31, 61],
        "centre": [8, 31, 61],
        "random": [123],
    },
    "null": {"top": [8], "contrast": [123], "mask": [31, 61], "centre": [31, 61]},
}


def within_class(samples: Tensor, labels: Tensor) -> float:
    """Return the root of the unbiased within-class variance, summed over pixels."""
    flat, total, freedom = samples.flatten(1).double(), 0.0, 0
    for label in labels.unique():
        own = flat[labels == label]
        total += float((own - own.mean(0)).square().sum())
        freedom += len(own) - 1
    return float((total / freedom) ** 0.5)


def judge_of(teacher: str, device: str) -> Scorer:
    """Return the judge of a teacher's classes, on a device; what it says lies on the CPU."""
    if teacher == "cifar10":
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        scorer = import_module("third_party").cifar_judge(56).to(device)
    else:
        scorer = student_judge(load_judge().to(device))

    def on_device(images: Tensor) -> Tensor:
        logits: Tensor = scorer(images.to(device)).cpu()
        return logits

    return on_device


def main() -> None:
    """Measure every setting of PLAN."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher")
    parser.add_argument("t", type=float)
    parser.add_argument("images", type=int)
    parser.add_argument("--data", default="backdrops")
    parser.add_argument("--correlation", type=float, default=0.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--draw", type=int, default=0, help="seed of the draw of images")
    parser.add_argument("--batch", type=int, default=20, help="images at once")
    parser.add_argument("--out", type=Path, help="JSON lines, with values image by image")
    given = parser.parse_args()
    judge = judge_of(given.teacher, given.device)
    teacher = load_teacher(given.teacher, TeacherOptions(device=given.device))
    data = load_data(DataConfig(data=given.data, correlation=given.correlation))
    rng, each = np.random.default_rng(given.draw), given.images // len(data.class_names)
    members = [np.flatnonzero(data.labels == c) for c in range(len(data.class_names))]
    index = np.sort(np.concatenate([rng.choice(own, each, replace=False) for own in members]))
    labels, scene = torch.from_numpy(data.labels[index]), scene_of(data, index)
    parts = [slice(i, i + given.batch) for i in range(0, len(index), given.batch)]
    began = time.monotonic()

    def say(clarid: Clarid, k: int, latents: Tensor) -> None:
        found = class_evidence(clarid, latents, labels, judge, indices=torch.from_numpy(index))
        samples = clarid.sample(latents, labels).clamp(-1, 1)
        by_image: dict[str, Tensor | None] = {
            "nats": found.nats,
            "null_right": found.null_right,
            "swap_kept": found.swap_kept,
            "guided_right": judge(samples).argmax(1) == labels,
        }
        known = {name: v.double() for name, v in by_image.items() if v is not None}
        row = {
            "draw": given.draw,
            "images": len(index),
            "inverted under": clarid.config.inversion_label,
            "kind": clarid.config.kind,
            "k": k,
            **{name: float(values.mean()) for name, values in known.items()},
            "nats_error": float(found.nats.std() / len(index) ** 0.5),
            "within_class": within_class(samples, labels),
        }
        if scene.masks is not None:
            row["background_spread"] = colour_spread(background_colours(samples, scene.masks))
        row["seconds"] = round(time.monotonic() - began)
        print(json.dumps(row), flush=True)
        if given.out:
            kept = {"index": index.tolist()} | {name: v.tolist() for name, v in known.items()}
            with given.out.open("a") as lines:
                lines.write(json.dumps(row | {"by image": kept}) + "\n")

    for inverted_under, kinds in PLAN.items():
        shared: dict[str, Any] = {
            "t": given.t,
            "inversion_label": inverted_under,
            "batch_size": given.batch,
        }
        alone = Clarid(teacher, k=1, kind="none", **shared)
        x = torch.cat([alone.invert(data.images(index[at]), labels[at])[0] for at in parts])
        say(alone, 0, x)
        for kind, ks in kinds.items():
            clarid = Clarid(teacher, k=max(ks), kind=kind, **shared)
            bases = [clarid.directions(x[at], labels[at], seed=at.start) for at in parts]
            V = torch.cat([basis.V for basis in bases if basis is not None])
            for k in ks:
                say(clarid, k, project_out(x, V[:, :, :k]))


if __name__ == "__main__":
    main()
