"""Cards of what goes to the Hugging Face hub: what it is, how it is used, what was measured.

A figure stands on a card if it was stored with the very weights or shards that lie beside it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.engine.printable import counted, one_line
from clarep.report.measures_table import measures_table, rows_beside
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import heading_of
from clarep.students.student import Student
from clarep.teachers.unet_teacher import UNetTeacher

_NOTHING = "Nothing was measured of it."
_PLACE = "OWNER/NAME"


def student_card(
    student: Student, evaluation: Evaluation | None, told: Mapping[str, Any], repo_id: str | None
) -> str:
    """Return a student's card. evaluation: of these weights; told: how it was trained."""
    shape, of = _shape(student.info.image_shape), _classes(student.info.class_names)
    front: dict[str, Any] = {"library_name": "clarep", "pipeline_tag": "image-classification"}
    front["tags"] = ["clarep", student.info.name]
    method = f", trained by `{plain_word(told['method'])}`" if "method" in told else ""
    parts = [
        f"A classifier (`{student.info.name}`{method}) of {shape} images, floats in [0, 1], into "
        f"{of}. It normalises them itself.",
        _use(f'student = Student.from_pretrained("{repo_id or _PLACE}")', "Student"),
    ]
    measured = _NOTHING
    if evaluation is not None and evaluation.measurements:
        data = evaluation.config["data"]
        name = _without_folders(data["name"])
        measured = (
            f"On {counted(data['images'], 'image')} of {plain_word(name)}, "
            f"seed {evaluation.config['seed']}, by "
            f"`clarep evaluate`; in brackets 95 % intervals over images.\n\n{_figures(evaluation)}"
        )
        metrics = [
            {"type": one.key, "name": heading_of(one.key), "value": one.value}
            for one in evaluation.measurements
            if not one.untrustworthy
        ]
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": name, "type": re.sub(r"[^\w.-]+", "-", name)},
            "metrics": metrics,
        }
        title = repo_id.split("/")[-1] if repo_id else student.info.name
        front["model-index"] = [{"name": title, "results": [result]}]
    return _written(front, repo_id or student.info.name, parts, measured)


def teacher_card(teacher: UNetTeacher, card: Mapping[str, Any] | None, repo_id: str | None) -> str:
    """Return the card of one of our own teachers. card: its `clarep card`, of these weights."""
    front = {
        "library_name": "clarep",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["clarep", "class-conditional"],
    }
    parts = [
        f"A class-conditional diffusion model of {_shape(teacher.image_shape)} images, a U-Net "
        f"with EDM preconditioning that draws {_classes(teacher.class_names)}; noise levels "
        f"{teacher.sigma_min:g} to {teacher.sigma_max:g} of x = x_0 + sigma * eps.",
        _use(
            f'clarid = Clarid(UNetTeacher.from_pretrained("{repo_id or _PLACE}"))',
            "Clarid",
            "from clarep.teachers import UNetTeacher",
        ),
    ]
    found = [] if card is None else _teacher_figures(card)
    measured = "\n\n".join(found) + "\n\nAll of it is in `card.json`." if found else _NOTHING
    return _written(front, repo_id or (card or {}).get("name", "teacher"), parts, measured)


def set_card(canonical: CanonicalSet, repo_id: str | None) -> str:
    """Return a canonical set's card, with the measures that `clarep identify` left beside it."""
    count, setting = len(canonical), canonical.setting
    front = {"task_categories": ["image-classification"], "tags": ["clarep"]}
    level = f"sigma = {canonical.config['sigma_te']:.3g}"
    parts = [
        f"Canonical latent representations of {counted(count, 'image')} of "
        f"{_classes(canonical.class_names)}: t = {setting['t']}, {level}, "
        f"k = {counted(canonical.config['num_dirs'], 'direction')} of kind {setting['kind']}, tap "
        f"`{canonical.config['tap']}`. Safetensors shards with latents, samples, features and "
        "singular values; `manifest.json` tells all settings, seeds and hashes.",
        _use(
            f'canonical = CanonicalSet.from_pretrained("{repo_id or _PLACE}")\n'
            "pairs = canonical.to_dataset()  # of samples and labels, for a DataLoader",
            "CanonicalSet",
        ),
    ]
    rows, median = rows_beside(canonical), float(canonical.round_trip_psnr.median())
    measured = f"Median round trip {median:.1f} dB."
    if known := (canonical.manifest.get("findings") or {}).get("recognition"):
        measured += f" Does the teacher know these classes? {known['said']}."
    measured += f"\n\n```\n{measures_table(rows)}\n```" if rows else ""
    return _written(front, repo_id or "canonical set", parts, measured)


def plain_word(text: Any) -> str:
    """Return a name that neither breaks a table nor is markup, without the folders of a path."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", _without_folders(text))


def _without_folders(text: Any) -> str:
    path = Path(str(text))
    return one_line(path.name if path.is_absolute() else str(text))


def _figures(evaluation: Evaluation) -> str:
    lines = ["| measure | value | 95 % | images | |", "|---|---|---|---|---|"]
    for one in evaluation.measurements:
        low, high = one.interval
        remarks = plain_word("; ".join(one.remarks))
        lines.append(
            f"| {plain_word(heading_of(one.key))} | {one.value:.3g} | [{low:.3g}, {high:.3g}] | "
            f"{one.images} | {remarks} |"
        )
    return "\n".join(lines)


def _teacher_figures(card: Mapping[str, Any]) -> list[str]:
    """Return what a card holds of losses, samples and the round trip, in words."""
    losses = card.get("held_out_loss") or {}
    found = []
    if losses:
        cells = [f"| {sigma} | {loss:.4f} |" for sigma, loss in losses.items()]
        found.append("\n".join(["| sigma | held-out loss |", "|---|---|", *cells]))
    if quality := card.get("quality"):
        floor = quality["frechet_distance_of_train_images"]
        cells = [
            f"| {one['guidance']:g} | {one['class_accuracy']:.3f} | {one['frechet_distance']:.3f} |"
            for one in quality["samples"]
        ]
        table = ["| guidance | class accuracy | Fréchet distance |", "|---|---|---|", *cells]
        judge = "an independent judge" if "judge" in quality else "a student of the same data"
        found.append(
            "\n".join(table) + f"\n\nSamples, {quality['images_per_class']} of each class, by "
            f"{judge}; distance in its features to {quality['reference']} (training images are "
            f"{floor:.3f} away)."
        )
    if trip := card.get("round_trip"):
        found.append(
            f"Round trip of {counted(trip['images'], 'image')} at sigma = {trip['sigma']:.3g}: "
            f"median {trip['psnr_median']} dB, least {trip['psnr_least']} dB."
        )
    return found


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _classes(names: Sequence[str]) -> str:
    few = ", ".join(map(plain_word, names[:10]))
    return f"{counted(len(names), 'class')} ({few}{', …' if len(names) > 10 else ''})"


def _use(line: str, name: str, more: str = "") -> str:
    lines = [f"from clarep import {name}", more, "", line]
    code = "\n".join(one for i, one in enumerate(lines) if one or i != 1)
    return f"```python\n{code}\n```"


def _written(front: Mapping[str, Any], title: str, parts: Sequence[str], measured: str) -> str:
    """Return the card; JSON is YAML too."""
    head = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()]
    licence = "The licence is the owner's to say: `license:` in the first lines of this file."
    body = [f"# {plain_word(title)}", *parts, "## Measured", measured, licence]
    return "---\n" + "\n".join(head) + "\n---\n\n" + "\n\n".join(body) + "\n"
