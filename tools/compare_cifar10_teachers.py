"""Compare shapes and preconditionings of our U-Net on CIFAR-10 at equal seconds of training.

    python tools/compare_cifar10_teachers.py cifar10_jpegbytes_train.npz CLASSIFIER_RUN OUT

Each candidate is trained for the same seconds on one thread, its half cosine ending with them,
from one seed; as many at a time as there are cores. Losses are EDM's weighted ones with
sigma_data = 0.5 whatever the network's own, so that they can be compared; samples are measured by a
classifier trained on real images (`clarep distill --method vanilla --data ...`). Writes
OUT/comparison.json and OUT/comparison.png.
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.data.load import DataConfig, load_data
from clarep.report.quality import SampleSettings, teacher_quality
from clarep.students.student_files import load_student
from clarep.teachers.teacher_config import TrainConfig
from clarep.teachers.teacher_run import TeacherRun
from clarep.teachers.unet import UNet, UNetShape
from clarep.teachers.unet_teacher import UNetTeacher

_EDM = UNetShape(widths=(48, 96, 160), sigma_data=0.5)
CANDIDATES = {
    # sigma_data 1 is v-prediction but for a sign: c_skip = 1 / (1 + sigma^2).
    "EDM, 48-96-160": _EDM,
    "v, 48-96-160": replace(_EDM, sigma_data=1.0),
    "EDM, 64-128-192": replace(_EDM, widths=(64, 128, 192)),
    "EDM, 48-96-160, two blocks": replace(_EDM, encoder_blocks=2, decoder_blocks=2),
}
SECONDS = 720
TRIAL_STEPS = 20
BANDS = ((0.01, 0.1), (0.1, 0.5), (0.5, 2.0), (2.0, 10.0), (10.0, 80.0))
HELD_OUT_IMAGES = 500
SAMPLES = SampleSettings(guidances=(1.0, 2.0), images_per_class=50, steps=15)


@torch.no_grad()
def losses_by_sigma(net: UNet, data: LabelledImages) -> dict[str, float]:
    """Return EDM's weighted loss with sigma_data = 0.5 in each band of sigma, labels given."""
    images = to_unit_range(data.images(np.arange(HELD_OUT_IMAGES)))
    labels = torch.from_numpy(data.labels[:HELD_OUT_IMAGES])
    generator = torch.Generator().manual_seed(0)
    losses = {}
    for low, high in BANDS:
        sigma = low * (high / low) ** torch.rand(len(images), generator=generator)
        noise = torch.randn(images.shape, generator=generator)
        each = []
        for x0, s, eps, y in zip(
            images.split(250), sigma.split(250), noise.split(250), labels.split(250), strict=True
        ):
            error = net(x0 + s[:, None, None, None] * eps, s, y) - x0
            each.append((s**2 + 0.25) / (0.5 * s) ** 2 * error.square().mean(dim=(1, 2, 3)))
        losses[f"{low:g}-{high:g}"] = float(torch.cat(each).mean())
    return losses


def train(name: str, data: LabelledImages, test: LabelledImages, out: Path):
    """Train one candidate; return its network, its curve and the images it saw."""
    folder = out / name.replace(", ", "_").replace(" ", "-")
    config = TrainConfig(
        unet=CANDIDATES[name], warmup_steps=100, evaluate_every=10**9, checkpoint_every=10**9
    )
    trial = TeacherRun(data, test, replace(config, steps=TRIAL_STEPS), folder / "trial")
    (record,) = trial.records()
    config = replace(config, steps=round(SECONDS * record["images_per_s"] / config.batch_size))
    run = TeacherRun(data, test, config, folder / "run")
    curve, trained, before = [], 0.0, 0
    for record in run.records():
        step = record["step"]
        trained += (step - before) * config.batch_size / record["images_per_s"]
        before = step
        if step % 100 == 0 or step == config.steps:
            found = losses_by_sigma(run.ema, test)
            curve.append({"step": step, "seconds": round(trained, 1), **found})
            print(name, curve[-1], flush=True)
    return run.ema, curve, config.steps * config.batch_size


def measure(name: str, data_path: str, classifier_path: str, out: Path) -> dict:
    """Train one candidate and measure its samples."""
    torch.set_num_threads(1)
    data, test = (load_data(DataConfig(data=data_path, split=s)) for s in ("train", "test"))
    net, curve, images = train(name, data, test, out)
    classifier = load_student(classifier_path)
    chosen = np.random.default_rng(0).permutation(len(test))[: 10 * SAMPLES.images_per_class]
    reference = to_unit_range(test.images(chosen))
    teacher = UNetTeacher(net, data.class_names, TrainConfig.sigma_min, TrainConfig.sigma_max)
    samples = teacher_quality(teacher, classifier, reference, SAMPLES)
    print(name, samples, flush=True)
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "images": images,
        "curve": curve,
        "samples": samples,
    }


def main() -> None:
    """Measure all, as many at a time as there are cores, and draw their curves."""
    data_path, classifier_path, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        jobs = {
            name: pool.submit(measure, name, data_path, classifier_path, out) for name in CANDIDATES
        }
        found = {name: job.result() for name, job in jobs.items()}
    (out / "comparison.json").write_text(json.dumps(found, indent=2))
    draw(found, out / "comparison.png")


def draw(found: dict, path: Path) -> None:
    """Draw loss against seconds, a panel a band."""
    figure, axes = plt.subplots(1, len(BANDS), figsize=(16, 3.2), layout="constrained")
    for axis, (low, high) in zip(axes, BANDS, strict=True):
        for name, one in found.items():
            seconds = [point["seconds"] for point in one["curve"]]
            axis.plot(seconds, [point[f"{low:g}-{high:g}"] for point in one["curve"]], label=name)
        axis.set(title=f"sigma {low:g} to {high:g}", xlabel="seconds of training", yscale="log")
    axes[0].set_ylabel("held-out loss, sigma_data 0.5")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
