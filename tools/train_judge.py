"""Train the judge, the classifier that measures the bundled teachers' samples.

python tools/train_judge.py fashion_mnist.npz OUT, with the whole Fashion-MNIST archive (x_train,
y_train, x_test, y_test); 20 minutes on two cores. It measures samples, so it must not lean on
backdrops: it is trained on garments before photographs, plain colours and everything between,
sharp and blurred, clean and noisy, and on none that a bundled teacher saw. Writes
OUT/student.safetensors and OUT/judge.json.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clarep.data.backdrops import Backdrops, load_backdrops
from clarep.data.garments import CLASS_NAMES, garment_arrays
from clarep.data.labelled import to_unit_range
from clarep.engine.artefacts import sha256_file
from clarep.students.student import Student, StudentInfo
from clarep.students.student_files import build_student, save_student

SETTING = {
    "steps": 4_500,
    "batch_size": 128,
    "learning_rate": 4e-3,
    "weight_decay": 0.02,
    "label_smoothing": 0.05,
    "seed": 0,
}
VARIANTS = ("original", "only_fg", "mixed_rand")


def unseen_by_teacher(archive: str) -> NDArray[np.int64]:
    """Return the indices of training garments in an archive that the embedded subset lacks."""
    embedded = {garment.tobytes() for garment in garment_arrays("train")[0]}
    garments, _ = garment_arrays("train", archive)
    kept = [i for i, garment in enumerate(garments) if garment.tobytes() not in embedded]
    return np.array(kept, dtype=np.int64)


def train_judge(archive: str, setting: dict[str, float] = SETTING) -> Student:
    """Return a judge trained on what no teacher saw; its randomness is the seed's."""
    steps, size, seed = (int(setting[name]) for name in ("steps", "batch_size", "seed"))
    usable = unseen_by_teacher(archive)
    judge = build_student(StudentInfo("resnet8-half", CLASS_NAMES, (3, 32, 32)), seed=seed)
    judge.to(memory_format=torch.channels_last)
    rate, decay = setting["learning_rate"], setting["weight_decay"]
    adam = torch.optim.AdamW(judge.parameters(), weight_decay=decay, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, rate, steps)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        indices = rng.choice(usable, size=size, replace=False)
        composed = load_backdrops("train", (seed + step) % 2**32, garments_path=archive)
        x = _augmented(composed, indices, generator)
        labels = torch.from_numpy(composed.labels[indices])
        logits = judge((x + 1) / 2)
        loss = F.cross_entropy(logits, labels, label_smoothing=setting["label_smoothing"])
        adam.zero_grad()
        loss.backward()
        adam.step()
        cycle.step()
        if step % 50 == 0:
            print(f"{step}/{steps} steps, loss {loss.item():.4f}", file=sys.stderr)
    return judge.eval().to(memory_format=torch.contiguous_format)


@torch.no_grad()
def judge_accuracy(judge: Student, variant: str) -> float:
    """Return the share of the 1,000 embedded test garments that the judge names rightly."""
    data = load_backdrops("test", variant=variant)
    parts = [
        judge(to_unit_range(data.images(part)) / 2 + 0.5)
        for part in np.array_split(np.arange(len(data)), 4)
    ]
    return float((torch.cat(parts).argmax(1).numpy() == data.labels).mean())


def _augmented(
    data: Backdrops, indices: NDArray[np.int64], generator: torch.Generator
) -> Float[Tensor, "batch 3 32 32"]:
    """Compose garments before all kinds of backgrounds, then disturb the whole image."""
    composed = [data.composition(int(i)) for i in indices]
    stack = torch.from_numpy(np.stack([c.image for c in composed])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([c.mask for c in composed]))[:, None]  # (B, 1, 32, 32)
    images = to_unit_range(stack.contiguous())
    images = torch.where(masks, images, _weaken_backdrop(images, generator))
    return _disturb(images, generator)


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, 1, 1, generator=generator)


def _weaken_backdrop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blend images with a plain colour: 60 % not at all, 20 % in part, 20 % wholly."""
    batch = len(images)
    kind = torch.rand(batch, 1, 1, 1, generator=generator)
    kept = torch.where(kind < 0.2, _uniform(0.0, 1.0, batch, 1, generator=generator), 1.0)
    kept = torch.where(kind > 0.8, 0.0, kept)
    colour = _uniform(-1.0, 1.0, batch, 3, generator=generator)
    grey = colour[:, :1].expand_as(colour)
    which = torch.rand(batch, 1, 1, 1, generator=generator)
    colour = torch.where(which < 0.45, grey, colour)
    colour = torch.where(which > 0.8, -1.0, colour)
    return kept * images + (1 - kept) * colour


def _disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift and zoom a little; change colour and contrast, blur and add noise to some."""
    batch = len(images)
    some = torch.rand(4, batch, 1, 1, 1, generator=generator) < 0.3  # which image gets what
    theta = torch.zeros(batch, 2, 3)
    theta[:, [0, 1], [0, 1]] = _uniform(0.9, 1.1, batch, 1, generator=generator).flatten(1)
    theta[:, :, 2] = _uniform(-0.1, 0.1, batch, 2, generator=generator).flatten(1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = torch.where(some[0], moved, images)
    gain = _uniform(0.4, 1.1, batch, 1, generator=generator)
    gain = gain * _uniform(0.85, 1.15, batch, 3, generator=generator)
    shift = _uniform(-0.3, 0.3, batch, 1, generator=generator)
    images = torch.where(some[1], gain * images + shift, images)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = _uniform(0.0, 1.0, batch, 1, generator=generator)
    images = torch.where(some[2], images.lerp(blurred, blur.expand_as(images)), images)
    noise = torch.randn(images.shape, generator=generator)
    noise = noise * _uniform(0.0, 0.25, batch, 1, generator=generator)
    return torch.where(some[3], images + noise, images).clamp(-1, 1)


def main(archive: str, out: str) -> None:
    """Train, test, save."""
    started = time.perf_counter()
    judge, path = train_judge(archive), Path(out) / "student.safetensors"
    save_student(judge, path)
    card = {
        "what": "ResNet-8 at half resolution over garments on backdrops, independent of the "
        "bundled teachers",
        "data": "Fashion-MNIST's training set without the images of the embedded subset",
        "parameters": sum(p.numel() for p in judge.parameters()),
        "train": SETTING,
        "seconds": round(time.perf_counter() - started, 1),
        "torch": torch.__version__,
        "test_accuracy": {variant: judge_accuracy(judge, variant) for variant in VARIANTS},
        "sha256": sha256_file(path),
    }
    (Path(out) / "judge.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card["test_accuracy"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
