"""What was run: methods, seeds, data, teacher, settings, versions, hashes."""

import json
from collections.abc import Mapping
from typing import Any

from clarep.distill.trainer.run_folder import whole
from clarep.report.html.again import commands_of_another_seed
from clarep.report.html.markup import (
    DASH,
    Cell,
    commands,
    escape,
    fact_list,
    figure,
    notes,
    paragraph,
    table,
)
from clarep.report.html.material import Material, Section
from clarep.report.html.run_folders import ReportRun

_SHOWN_OF_HASH = 12
_NO_BREAK = "\N{NO-BREAK SPACE}"
_RHO, _SIGMA = "\N{GREEK SMALL LETTER RHO}", "\N{GREEK SMALL LETTER SIGMA}"


def setup_section(material: Material) -> Section:
    """Describe every run, the canonical set, and the versions."""
    rows = [_row(run) for run in material.runs if run.config or run.evaluation]
    links = material.downloads.add("runs", rows)
    shown = [
        [
            run["run"], run["method"], run["seed"], run["student"], run["data"],
            Cell(str(run["settings"] or DASH), css="text"),
            Cell(run["canonical set"], css="text"),
            _hash(run["canonical sha256"]), _hash(run["weights sha256"]),
        ]
        for run in rows
    ]  # fmt: skip
    headings = (
        "run", "method", "seed", "student", "data", "training", "canonical set",
        "set's hash", "weights' hash",
    )  # fmt: skip
    content = figure(
        table("Runs", headings, shown),
        "Training data and canonical set of each student. Hashes are SHA-256, "
        "shortened here and whole in the files.",
        links,
    )
    missing = tuple(reason for run in material.runs for reason in run.missing)
    content += _another_seed(material)
    content += _canonical_facts(material) + _versions(material) + _configurations(material)
    told = notes((*missing, *_notes_on_data(material)))
    return Section("setup", "What was run", told + content, missing)


def _notes_on_data(material: Material) -> list[str]:
    """What qualifies the images that were chosen and trained on; results tell of the measured."""
    configs = [run.config for run in material.runs]
    configs += [] if material.canon is None else [material.canon.manifest["config"]]
    return list(dict.fromkeys(note for one in configs for note in one.get("data_notes", ())))


def _row(run: ReportRun) -> dict[str, Any]:
    config = run.config
    canon = config.get("canon") or {}
    measured = run.evaluation.config if run.evaluation else {}
    options = config.get("data_options") or {}
    data = str(options.get("data", config.get("data", "unknown")))
    if options.get("correlation"):
        data += f" {_RHO}{_NO_BREAK}={_NO_BREAK}{options['correlation']:g}"
    kind = f"{canon.get('kind', '?')}, guidance {canon.get('guidance', '?')}, "
    return {
        "run": run.name,
        "method": run.method,
        "seed": run.seed,
        "student": config.get("student", "unknown"),
        "data": data,
        "settings": _short_settings(whole(config).get("train") or {}),
        "canonical set": f"{kind}{canon.get('images', '?')} images" if canon else "none",
        "canonical sha256": canon.get("sha256"),
        "weights sha256": config.get("student_sha256") or measured.get("student_sha256"),
    }


def _short_settings(train: Mapping[str, Any]) -> str:
    """Return the settings that a reader asks for first."""
    names = {"epochs": "epochs", "optimiser": "", "batch_size": "batch", "learning_rate": "rate"}
    parts = [
        f"{words} {train[key]}".strip().replace(" ", _NO_BREAK)
        for key, words in names.items()
        if train.get(key) is not None
    ]
    return ", ".join(parts)


def _hash(value: object) -> Cell:
    if not isinstance(value, str):
        return Cell(DASH, css="none")
    short = escape(value[:_SHOWN_OF_HASH])
    return Cell(value, html=f'<span class="hash" title="{escape(value)}">{short}…</span>')


def _another_seed(material: Material) -> str:
    """Say what one seed cannot show, and the commands that add another."""
    if not material.single:
        return ""
    names = ", ".join(group.label for group in material.single)
    digest = _digest(material)
    known = None if material.canon is None else material.canon.folder
    pairs = [
        commands_of_another_seed(run, known if digest and _fed_by(run, digest) else None)
        for group in material.single
        for run in group.runs
    ]
    lines = "\n\n".join(filter(None, pairs))
    text = (
        f"One seed only: {names}. Their intervals are over images and do not "
        "show how much another seed would change."
    )
    if lines:
        text += " These commands repeat them with another, in folders to give to clarep report too."
    if "CANON" in lines:
        text += " CANON stands for the folder of the run's own canonical set."
    if "CLASSIFIER" in lines:
        text += " CLASSIFIER stands for the run of the stronger student."
    content = '<h3 id="another-seed">Another seed</h3>' + paragraph(text)
    return content + (commands(lines) if lines else "")


def _digest(material: Material) -> str:
    return "" if material.canon is None else material.canon.sha256


def _fed_by(run: ReportRun, digest: str) -> bool:
    return (run.config.get("canon") or {}).get("sha256") == digest


def _canonical_facts(material: Material) -> str:
    """Return teacher, setting and hash of the canonical set, and which runs learned from it."""
    if material.canon is None:
        return ""
    config = material.canon.manifest["config"]
    clarid, digest = material.canon.setting, _digest(material)
    fed = [run.name for run in material.runs if _fed_by(run, digest)]
    options = config.get("data_options", {})
    data = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    facts = {
        "teacher": f"{config.get('teacher', 'unknown')}, SHA-256 {config.get('teacher_sha256')}",
        "images": f"{len(material.canon)} of {data or 'unknown data'}",
        "setting": f"{clarid.get('kind')} {config.get('num_dirs')} directions at "
        f"{_SIGMA} = {config.get('sigma_te', float('nan')):.3g}, tap {config.get('tap')}, "
        f"{clarid.get('branch')} branch, guidance {clarid.get('guidance'):g}, "
        f"{clarid.get('steps')} steps of {clarid.get('solver')}, seed {config.get('seed')}",
        "content": f"SHA-256 {digest}",
        "students of it": ", ".join(fed) or "none of these runs records this very set",
    }
    return "<h3>The canonical set shown here</h3>" + fact_list(facts)


def _versions(material: Material) -> str:
    sources = {run.name: run.config.get("versions") for run in material.runs}
    if material.canon is not None and material.canon.manifest["shards"]:
        sources["canonical set"] = material.canon.manifest["shards"][-1].get("versions")
    known = {name: v for name, v in sources.items() if isinstance(v, dict)}
    if not known:
        return ""
    packages = list(dict.fromkeys(package for v in known.values() for package in v))
    rows = [
        [package, ", ".join(sorted({str(v[package]) for v in known.values() if package in v}))]
        for package in packages
    ]
    inner = table("Versions", ("package", "version"), rows)
    return f"<details><summary>Versions</summary>{inner}</details>"


def _configurations(material: Material) -> str:
    """Return every run's configuration, whole, folded away."""
    parts = []
    for run in material.runs:
        whole = {"student": run.config} if run.config else {}
        if run.evaluation is not None:
            whole["evaluation"] = run.evaluation.config
        if whole:
            text = escape(json.dumps(whole, indent=1))
            parts.append(
                f"<details><summary>Configuration of {escape(run.name)}</summary>"
                f'<pre tabindex="0">{text}</pre></details>'
            )
    inner = "".join(parts)
    return f"<details><summary>Configurations, whole</summary>{inner}</details>"
