"""Run folders as clarep distill and clarep evaluate would leave them, made up quickly."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.identify import identify_steps
from clarep.data.backdrops import load_backdrops
from clarep.data.foregrounds import VARIANTS
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig, load_data
from clarep.robustness.evaluation import Evaluation, Measurement, mean_of
from clarep.robustness.measures import measure_of
from clarep.robustness.suite.suite_config import GROUPS
from clarep.teachers.zoo import load_teacher

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur",
    "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform",
    "pixelate", "jpeg_compression",
)  # fmt: skip
SKILL = {"vanilla": 0.62, "cadistill": 0.78, "guidance-only": 0.74, "random": 0.66}
_IMAGES = 120


def make_canon(folder: Path, teacher: str, count: int = 12, **clarid: Any) -> Path:
    """Identify `count` images with a teacher, 4 directions each; return the set's folder."""
    data = DataConfig(data="backdrops")
    loaded = load_data(data)
    settings = {"k": 4, "steps": 2} | clarid
    solver = Clarid(load_teacher(teacher), ClaridConfig(**settings))
    options = json.loads(json.dumps(asdict(data), default=str))
    described = {"teacher": teacher, "data_options": options}
    for _ in identify_steps(solver, loaded, folder, np.arange(count), described=described):
        pass
    return folder


def make_run(
    folder: Path,
    method: str = "vanilla",
    seed: int = 0,
    *,
    evaluated: bool = True,
    without: tuple[str, ...] = (),
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a run; `without` names groups (attack, background ...) that were not measured."""
    canon = None if method == "vanilla" else {
        "sha256": "ab" * 32, "teacher_sha256": "cd" * 32, "kind": "top", "guidance": 3.0,
        "images": 500,
    }  # fmt: skip
    content = {
        "method": method,
        "seed": seed,
        "student": "resnet8",
        "data": "backdrops",
        "data_options": {"correlation": 0.9, "data_seed": 0},
        "train": {"epochs": 10, "batch_size": 128, "optimiser": "sgd", "learning_rate": 0.2},
        "canon": canon,
        "versions": {"python": "3.12.1", "torch": "2.8.0"},
        "seconds": 61.25 + seed,
    }
    (folder / "student").mkdir(parents=True)
    info = {"name": "resnet8", "class_names": CLASS_NAMES, "image_shape": [3, 32, 32]}
    weights = folder / "student" / "student.safetensors"
    save_file({"w": torch.zeros(1)}, weights, {"info": json.dumps(info)})
    (folder / "student" / "config.json").write_text(json.dumps(content | (config or {})))
    if evaluated:
        _evaluation(method, seed, without).save(folder / "robustness")
    return folder


def _evaluation(method: str, seed: int, without: tuple[str, ...]) -> Evaluation:
    rng = np.random.default_rng([seed, len(method)])
    skill = SKILL.get(method, 0.6) + 0.02 * rng.standard_normal()
    measured: list[Measurement] = []
    arrays: dict[str, torch.Tensor] = {}

    def share(key: str, p: float, doubt: str = "") -> None:
        if key.split("/", maxsplit=1)[0] in without:
            return
        values = torch.from_numpy((rng.random(_IMAGES) < max(p, 0.0)).astype(np.float32))
        arrays[key] = values
        measured.append(mean_of(key, values, doubt))

    def figure(key: str, value: float) -> None:
        if key.split("/", maxsplit=1)[0] not in without:
            measured.append(Measurement(key, value, (value * 0.8, value * 1.2), _IMAGES))

    share("clean/accuracy", skill + 0.1)
    for attack, drop in (("pgd-linf", 0.10), ("apgd-ce-linf", 0.11), ("worst-linf", 0.12)):
        for eps in (0.25, 0.5, 1, 2, 4):
            doubt = "256 steps lower it by 9 points" if method == "random" and eps == 4 else ""
            share(f"attack/{attack}/eps_255={eps:g}", skill + 0.1 - drop * eps**0.8 * 2, doubt)
    for eps in (0.1, 0.25, 0.5):
        share(f"attack/pgd-l2/eps_l2={eps:g}", skill + 0.1 - eps)
    figure("attack/cw-l2/median_l2", 0.2 * skill)
    for i, name in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            share(f"corruption/{name}/severity={severity}", skill - 0.02 * i - 0.05 * severity)
        share(f"corruption/{name}/mean", skill - 0.02 * i - 0.15)
    share("corruption/mean", skill - 0.3)
    figure("corruption/mce", 1.2 - skill)
    for i, variant in enumerate(VARIANTS):
        share(f"background/{variant}", skill + 0.1 - 0.05 * i)
    share("background/gap", 0.8 - skill)
    share("background/flipped", 1 - skill)
    for name in ("ece", "adaptive_ece", "brier", "nll"):
        figure(f"calibration/{name}", 0.3 * (1 - skill))
    share("beyond/cifar10.1/accuracy", skill)
    figure("ood/garments/auroc", 0.7)
    share("focus/input_gradient", skill / 2)
    share("focus/integrated_gradients", skill / 2 + 0.05)
    share("focus/area", 0.37)
    labels = torch.from_numpy(np.arange(_IMAGES) % 10)
    logits = rng.standard_normal((_IMAGES, 10)) + 4 * skill * np.eye(10)[labels.numpy()]
    arrays["label"] = labels
    arrays["probabilities"] = torch.softmax(torch.from_numpy(logits), 1).float()
    centres = np.random.default_rng(0).standard_normal((10, 16))
    noisy = 3 * skill * centres[labels.numpy()] + rng.standard_normal((_IMAGES, 16))
    arrays["features"] = torch.from_numpy(noisy).float()
    if "examples" not in without:
        arrays |= _examples(rng)
    settings = {
        "student": "resnet8",
        "student_sha256": f"{seed}{len(method)}" * 32,
        "seed": 0,
        "classes": list(CLASS_NAMES),
        "suite": {"groups": sorted({measure_of(one.key).group for one in measured} & {*GROUPS})},
        "cost": {"seconds": {"clean": 0.5, "attacks": 20.25}},
    }
    return Evaluation(settings, measured, arrays)


def _examples(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    indices = np.arange(4)
    arrays = {}
    for variant in VARIANTS:
        data = load_backdrops("test", variant=variant)
        arrays[f"examples/{variant}"] = data.images(indices)
        arrays[f"examples/{variant}/predicted"] = torch.from_numpy(rng.integers(0, 10, 4))
    originals = load_backdrops("test")
    arrays["examples/label"] = torch.from_numpy(originals.labels[:4])
    arrays["examples/mask"] = originals.masks(indices)
    arrays["examples/saliency"] = torch.from_numpy(rng.random((4, 32, 32))).float()
    return arrays
