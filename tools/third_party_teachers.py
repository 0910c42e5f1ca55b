"""CLARID on diffusion models from elsewhere, judged by a classifier that none of them knows.

    python tools/third_party_teachers.py OUT [--images 100] [--seeds 3] [--automatic] [--kind top]

Three teachers of digits (tests/third_party.py), by `Teacher.from_callable`. The judge is trained
here on the first 8,000 of MNIST's test images, and CLARID is run on some of the last 2,000, other
ones a seed: neither judge nor teachers saw them. Their inverted latents are taken as they are
(guidance alone), without the directions of each kind, and without random ones. Intervals are over
all images, paired where two rows are compared. Prints the tables, and keeps what was measured in
OUT.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.diffusion_classifier import evenly
from clarep.clarid.directions import project_out
from clarep.data.labelled import to_unit_range
from clarep.engine.statistics import (
    binomial_interval,
    bootstrap,
    bootstrap_interval,
    percentile_interval,
)
from clarep.engine.tensors import computed_once
from clarep.errors import UserError
from clarep.select.auto_setting import auto_setting
from clarep.select.class_evidence import class_evidence
from clarep.select.controls import control_of
from clarep.teachers.teacher import Teacher
from third_party import TEACHERS, digit_teacher, digits

SETTINGS = {
    "vit": {"t": 0.85, "k": 31, "guidance": 3.0},
    "latent": {"t": 0.85, "k": 5, "guidance": 3.0},
    "dit": {"t": 0.5, "k": 31, "guidance": 1.0},  # it has no null class
}
Setting = dict[str, float]
KINDS = ("top", "mask", "centre", "contrast")
USUAL = ("none", "top", "random")
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
    clarid: Clarid,
    images: Tensor,
    labels: Tensor,
    judge: nn.Module,
    seed: int,
    *,
    kinds: tuple[str, ...] = USUAL,
) -> dict[str, Tensor]:
    """Return what is found of each image without directions of each kind: KIND/MEASURE -> (N,)."""
    found, x_te = {}, clarid.invert(images, labels)[0]
    for kind in kinds:
        clarid = control_of(clarid, kind)
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
        found |= {f"{kind}/{key}": v.double() for key, v in values.items() if v is not None}
    return found


def automatic(
    name: str, teacher: Teacher, among: np.ndarray, judge: nn.Module, out: Path
) -> Setting | None:
    """Return the setting that clarep chooses on images `among` others, or None."""
    guidance = SETTINGS[name]["guidance"]
    config = ClaridConfig(t="auto", k="auto", guidance=guidance)
    folder, described = out / f"auto-{name}", {"judge": JUDGE, "data": "t10k"}
    try:
        found = auto_setting(
            teacher, digits(), config, folder=folder, among=among, judge=judge, described=described
        )
    except UserError as error:
        print(f"{name}, automatic: {error}\n")
        return None
    print(f"{name}, automatic: t = {found.t:g}, k = {found.k}; {found.reason}\n", flush=True)
    return {"t": found.t, "k": found.k, "guidance": guidance}


def interval(key: str, values: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of the mean: exact of a share, else bootstrap over images."""
    if key in ("nats", "spread"):
        return bootstrap_interval(values)
    return binomial_interval(int(values.sum()), len(values))


def shown(key: str, values: Tensor) -> str:
    """Return mean and interval as text; of the spread, their roots."""
    numbers = np.array([float(values.mean()), *interval(key, values)])
    if key == "spread":
        return "{:.3f} [{:.3f}, {:.3f}]".format(*np.sqrt(numbers))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)


def change(key: str, after: Tensor, before: Tensor) -> str:
    """Return how a mean changes, with its interval over images that are the same in both."""
    root = np.sqrt if key == "spread" else np.asarray
    a, b = after.numpy(), before.numpy()
    drawn = bootstrap(len(a), lambda picks: root(a[picks].mean(1)) - root(b[picks].mean(1)))
    numbers = [float(root(a.mean()) - root(b.mean())), *percentile_interval(drawn)]
    text = "{:+.3f} [{:+.3f}, {:+.3f}]" if key == "spread" else "{:+.2f} [{:+.2f}, {:+.2f}]"
    return text.format(*numbers)


def print_table(title: str, found: dict[str, Tensor], kinds: tuple[str, ...]) -> None:
    """Print the rows of all kinds, and what directions change, image by image."""
    keys = [key.removeprefix("none/") for key in found if key.startswith("none/")]
    print(f"{title}; {len(found['none/judge'])} images\n")
    print(f"| directions | {' | '.join(keys)} |\n|{'---|' * (len(keys) + 1)}")
    for kind in kinds:
        print(f"| {kind} | {' | '.join(shown(key, found[f'{kind}/{key}']) for key in keys)} |")
    _, first, *more, random = kinds
    pairs = [(first, "none"), (first, random)]
    for kind in more:
        pairs += [(kind, "none"), (kind, first)]
    pairs += [("mask", "centre")] if {"mask", "centre"} <= {*kinds} else []
    for kind, other in pairs:
        changes = [change(key, found[f"{kind}/{key}"], found[f"{other}/{key}"]) for key in keys]
        print(f"| {kind} less {other} | {' | '.join(changes)} |")
    print(flush=True)


def main() -> None:
    """Measure every teacher, setting and seed, and print the tables; a second call goes on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, choices=TEACHERS)
    parser.add_argument("--automatic", action="store_true", help="clarep chooses t and k")
    parser.add_argument("--kind", nargs="+", default=["top"], choices=KINDS)
    given = parser.parse_args()
    kinds = ("none", *dict.fromkeys(given.kind), "random")
    data = digits()
    everything, labels = data.images(np.arange(len(data))), torch.from_numpy(data.labels)
    judge, accuracy = load_judge(given.out, everything, labels)
    print(f"judge: {accuracy:.4f} right on the last 2,000 images\n")
    drawn, left = [], np.arange(JUDGE_IMAGES, len(data))
    for seed in range(given.seeds):
        drawn.append(evenly(data.labels, left, given.images, np.random.default_rng(seed)))
        left = np.setdiff1d(left, drawn[-1])
    for name in given.teachers:
        teacher, setting = digit_teacher(name), SETTINGS[name]
        if given.automatic:
            setting = automatic(name, teacher, left, judge, given.out)
        if setting is None:
            continue
        parts = []
        for seed, few in enumerate(drawn):
            clarid = Clarid(teacher, **setting)
            described = clarid.describe(seed, given.images) | {"images": few.tolist()}
            described |= {"judge": JUDGE, "sigma_min": teacher.sigma_min}
            asked = "" if kinds == USUAL else "-" + "-".join(given.kind)
            described |= {"kinds": list(kinds)} if asked else {}
            file = f"{name}-t{setting['t']:g}-k{setting['k']}{asked}-{seed}.safetensors"
            place = given.out / file
            shown = (everything[few], labels[few], judge, seed)
            work = partial(measured, clarid, *shown, kinds=kinds)
            parts.append(computed_once(place, described, work))
        text = ", ".join(f"{key} = {value:g}" for key, value in setting.items())
        found = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        print_table(f"{name}: {text}; {given.seeds} seeds", found, kinds)


if __name__ == "__main__":
    main()
