"""CLARID on diffusion models from elsewhere, judged by a classifier that none of them knows.

    python tools/third_party_teachers.py OUT [--images 100] [--seeds 3] [--teachers vit latent dit]

Three teachers of digits (tests/third_party.py), by `Teacher.from_callable`. The judge is trained
here on the first 8,000 of MNIST's test images, and CLARID is run on some of the last 2,000, other
ones a seed: neither judge nor teachers saw them. Their inverted latents are taken as they are
(guidance alone), without top and without random directions. Intervals are over all images, paired
where two rows are compared. Writes OUT/third_party.json and prints the tables.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clarep.clarid.clarid import Clarid
from clarep.clarid.diffusion_classifier import evenly
from clarep.clarid.directions import project_out
from clarep.data.labelled import to_unit_range
from clarep.engine.artefacts import atomic_path
from clarep.engine.statistics import binomial_interval, bootstrap_interval
from clarep.engine.tensors import computed_once
from clarep.select.class_evidence import class_evidence
from third_party import TEACHERS, digit_teacher, digits

SETTINGS = {
    "vit": {"t": 0.85, "k": 31, "guidance": 3.0},
    "latent": {"t": 0.85, "k": 5, "guidance": 3.0},
    "dit": {"t": 0.5, "k": 31, "guidance": 1.0},  # it has no null class
}
KINDS = ("none", "top", "random")
JUDGE_IMAGES = 8_000
JUDGE = {"steps": 1_500, "batch": 100, "seed": 0}


def network() -> nn.Module:
    """A small convolutional classifier of images (B, 3, 28, 28) in [-1, 1]."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train_judge(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Train on uint8 images, shifted by up to two pixels; return the weights."""
    torch.manual_seed(JUDGE["seed"])
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, JUDGE["steps"])
    for _ in range(JUDGE["steps"]):
        some = torch.randint(len(images), (JUDGE["batch"],))
        shift = torch.randint(-2, 3, (2,)).tolist()
        x = torch.roll(to_unit_range(images[some]), shift, (2, 3))
        loss = F.cross_entropy(net(x), labels[some], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return dict(net.state_dict())


def load_judge(folder: Path, images: Tensor, labels: Tensor) -> tuple[nn.Module, float]:
    """Return the judge, trained if it is not in the folder, and its accuracy on the last 2,000."""
    seen = slice(JUDGE_IMAGES)
    weights = computed_once(
        folder / "judge.safetensors", JUDGE, lambda: train_judge(images[seen], labels[seen])
    )
    net = network().eval().requires_grad_(False)
    net.load_state_dict(weights)
    said = net(to_unit_range(images[JUDGE_IMAGES:])).argmax(1)
    return net, float((said == labels[JUDGE_IMAGES:]).float().mean())


def spread(samples: Tensor, labels: Tensor) -> Tensor:
    """Return each sample's mean squared distance from its class's mean, pixels in [0, 1], (N,)."""
    flat = samples.clamp(-1, 1).flatten(1).double() / 2
    means = torch.stack([flat[labels == label].mean(0) for label in range(10)])
    return (flat - means[labels]).square().mean(1)


def measured(
    name: str, images: Tensor, labels: Tensor, *, judge: nn.Module, seed: int
) -> dict[str, dict[str, Tensor]]:
    """Return what is found of each image without directions of each kind, at the fixed setting."""
    found = {}
    teacher, x_te = digit_teacher(name), None
    for kind in KINDS:
        clarid = Clarid(teacher, **SETTINGS[name], kind=kind)
        x_te = clarid.invert(images, labels)[0] if x_te is None else x_te
        latents = []
        for part in torch.arange(len(x_te)).split(clarid.config.batch_size):
            subspace = clarid.directions(x_te[part], labels[part], seed)
            x = x_te[part]
            latents.append(x if subspace is None else project_out(x, subspace.V))
        latent = torch.cat(latents)
        samples = clarid.sample(latent, labels)
        evidence = class_evidence(clarid, latent, labels, judge, seed=seed)
        values = {
            "judge": judge(samples.clamp(-1, 1)).argmax(1) == labels,
            "spread": spread(samples, labels),
            "nats": evidence.nats,
            "posterior": evidence.posterior_right,
            "null decode": evidence.null_right,
            "swap kept": evidence.swap_kept,
        }
        found[kind] = {key: value.double() for key, value in values.items() if value is not None}
    return found


def interval(key: str, values: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of the mean: exact of a share, else bootstrap over images."""
    if key in ("nats", "spread"):
        return bootstrap_interval(values)
    return binomial_interval(int(values.sum()), len(values))


def shown(key: str, values: Tensor) -> str:
    """Return mean and interval as text; the spread as the root of both."""
    numbers = np.array([float(values.mean()), *interval(key, values)])
    if key == "spread":
        numbers = np.sqrt(numbers)
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers)


def main() -> None:
    """Measure every teacher and seed, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, choices=TEACHERS)
    given = parser.parse_args()
    data = digits()
    everything, labels = data.images(np.arange(len(data))), torch.from_numpy(data.labels)
    judge, accuracy = load_judge(given.out, everything, labels)
    print(f"judge: {accuracy:.4f} right on the last 2,000 images\n")
    unseen, rows = np.arange(JUDGE_IMAGES, len(data)), {}
    for name in given.teachers:
        began = time.monotonic()
        found: dict[str, list[dict[str, Tensor]]] = {kind: [] for kind in KINDS}
        left = unseen
        for seed in range(given.seeds):
            few = evenly(data.labels, left, given.images, np.random.default_rng(seed))
            left = np.setdiff1d(left, few)
            each = measured(name, everything[few], labels[few], judge=judge, seed=seed)
            for kind in KINDS:
                found[kind].append(each[kind])
        pooled = {
            kind: {key: torch.cat([one[key] for one in parts]) for key in parts[0]}
            for kind, parts in found.items()
        }
        print_table(name, pooled, given.seeds, time.monotonic() - began)
        rows[name] = {
            kind: {key: [round(float(v), 6) for v in values] for key, values in one.items()}
            for kind, one in pooled.items()
        }
    with atomic_path(given.out / "third_party.json") as path:
        path.write_text(json.dumps({"judge": accuracy, "settings": SETTINGS, "images": rows}))


def print_table(
    name: str, pooled: dict[str, dict[str, Tensor]], seeds: int, seconds: float
) -> None:
    """Print a teacher's rows, and what top directions change, image by image."""
    setting = ", ".join(f"{key} = {value:g}" for key, value in SETTINGS[name].items())
    keys = list(pooled["none"])
    count = len(pooled["none"]["judge"])
    print(f"{name}: {setting}; {count} images, {seeds} seeds, {seconds:.0f} s\n")
    print(f"| directions | {' | '.join(keys)} |\n|{'---|' * (len(keys) + 1)}")
    for kind, values in pooled.items():
        print(f"| {kind} | {' | '.join(shown(key, values[key]) for key in keys)} |")
    for against in ("none", "random"):
        changes = []
        for key in keys:
            change = pooled["top"][key] - pooled[against][key]
            low, high = bootstrap_interval(change)
            changes.append(f"{float(change.mean()):+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"| top less {against} (paired) | {' | '.join(changes)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
