"""Class evidence and spread by kind of directions and label of inversion, for docs/results.md.

    python tools/compare_kinds.py cifar10 0.5 100 --data cifar10_jpegbytes_train.npz
    python tools/compare_kinds.py backdrops-biased 0.85 60 --correlation 0.9

Prints a line of JSON for each setting. `cifar10` is judged by the third party's ResNet-56 of
`tests/third_party.py`, garments by the bundled judge.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clarep import Clarid, DataConfig, class_evidence, load_data
from clarep.clarid.directions import project_out
from clarep.report.quality import student_judge
from clarep.select.clarep_measures import background_colours, colour_spread, scene_of
from clarep.students.student_files import load_judge

PLAN: dict[str, dict[str, list[int]]] = {
    "class": {"top": [8, 31], "contrast": [31, 123], "mask": [8, 31, 61], "random": [123]},
    "null": {"top": [8], "contrast": [123], "mask": [31, 61]},
}
BATCH = 20


def within_class(samples: Tensor, labels: Tensor) -> float:
    """Return the root of the unbiased within-class variance, summed over pixels."""
    flat, total, freedom = samples.flatten(1).double(), 0.0, 0
    for label in labels.unique():
        own = flat[labels == label]
        total += float((own - own.mean(0)).square().sum())
        freedom += len(own) - 1
    return float((total / freedom) ** 0.5)


def main() -> None:
    """Measure every setting of PLAN."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher")
    parser.add_argument("t", type=float)
    parser.add_argument("images", type=int)
    parser.add_argument("--data", default="backdrops")
    parser.add_argument("--correlation", type=float, default=0.0)
    given = parser.parse_args()
    judge: Any = student_judge(load_judge())
    if given.teacher == "cifar10":
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        judge = import_module("third_party").cifar_judge(56)
    data = load_data(DataConfig(data=given.data, correlation=given.correlation))
    rng, each = np.random.default_rng(0), given.images // len(data.class_names)
    members = [np.flatnonzero(data.labels == c) for c in range(len(data.class_names))]
    index = np.sort(np.concatenate([rng.choice(own, each, replace=False) for own in members]))
    labels, scene = torch.from_numpy(data.labels[index]), scene_of(data, index)
    starts = range(0, len(index), BATCH)

    def say(clarid: Clarid, k: int, latents: Tensor) -> None:
        found = class_evidence(clarid, latents, labels, judge, indices=torch.from_numpy(index))
        samples = clarid.sample(latents, labels).clamp(-1, 1)
        row = {
            "inverted under": clarid.config.inversion_label,
            "kind": clarid.config.kind,
            "k": k,
            "nats": float(found.nats.mean()),
            "nats_error": float(found.nats.std() / len(index) ** 0.5),
            "null_right": None
            if found.null_right is None
            else float(found.null_right.float().mean()),
            "swap_kept": None if found.swap_kept is None else float(found.swap_kept.float().mean()),
            "guided_right": float((judge(samples).argmax(1) == labels).float().mean()),
            "within_class": within_class(samples, labels),
        }
        if scene.masks is not None:
            row["background_spread"] = colour_spread(background_colours(samples, scene.masks))
        print(json.dumps(row), flush=True)

    for inverted_under, kinds in PLAN.items():
        shared: dict[str, Any] = {"t": given.t, "inversion_label": inverted_under}
        alone = Clarid(given.teacher, k=1, kind="none", **shared)
        parts = [slice(i, i + BATCH) for i in starts]
        x = torch.cat([alone.invert(data.images(index[at]), labels[at])[0] for at in parts])
        say(alone, 0, x)
        for kind, ks in kinds.items():
            clarid = Clarid(given.teacher, k=max(ks), kind=kind, **shared)
            bases = [clarid.directions(x[at], labels[at], seed=at.start) for at in parts]
            V = torch.cat([basis.V for basis in bases if basis is not None])
            for k in ks:
                say(clarid, k, project_out(x, V[:, :, :k]))


if __name__ == "__main__":
    main()
