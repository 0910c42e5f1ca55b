"""What was run: methods, seeds, data, teacher, settings, versions, hashes."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from clarep.clarid.canonical_set import MANIFEST
from clarep.engine.artefacts import sha256_file
from clarep.report.html.markup import DASH, Cell, figure, notes, table
from clarep.report.html.material import Material, Section
from clarep.report.html.runs import ReportRun

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
    missing += _seeds_missing(material)
    content += _canonical_facts(material) + _versions(material) + _configurations(material)
    return Section("setup", "What was run", notes(missing) + content, missing)


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
        "settings": _short_settings(config.get("train") or {}),
        "canonical set": f"{kind}{canon.get('images', '?')} images" if canon else "none",
        "canonical sha256": canon.get("sha256"),
        "weights sha256": _find(measured, ("student_file_sha256", "student_sha256")),
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


def _find(config: Any, keys: tuple[str, ...]) -> str | None:
    """Return the first string under one of these keys, at any depth, shallow first."""
    if not isinstance(config, dict):
        return None
    for key in keys:
        if isinstance(config.get(key), str):
            return str(config[key])
    found = (_find(inner, keys) for inner in config.values())
    return next((one for one in found if one), None)


def _hash(value: object) -> Cell:
    if not isinstance(value, str):
        return Cell(DASH, css="none")
    short = escape(value[:_SHOWN_OF_HASH])
    return Cell(value, html=f'<span class="hash" title="{escape(value)}">{short}…</span>')


def _seeds_missing(material: Material) -> tuple[str, ...]:
    single = [group for group in material.groups if len(group.runs) == 1]
    if not single:
        return ()
    names = ", ".join(group.label for group in single)
    return (
        f"One seed only: {names}. Their intervals come from the bootstrap over images and do not "
        f"show how much another seed would change: `clarep distill --method {single[0].method} "
        f"--train.seed {(single[0].runs[0].seed or 0) + 1} …`, then `clarep evaluate`, adds one",
    )


def _canonical_facts(material: Material) -> str:
    """Return teacher, setting and hash of the canonical set, and which runs learned from it."""
    if material.canon is None:
        return ""
    config = material.canon.manifest["config"]
    clarid, digest = config.get("clarid", {}), sha256_file(material.canon.folder / MANIFEST)
    fed = [r.name for r in material.runs if (r.config.get("canon") or {}).get("sha256") == digest]
    options = config.get("data_options", {})
    data = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    facts = {
        "teacher": f"{config.get('teacher', 'unknown')}, SHA-256 {config.get('teacher_sha256')}",
        "images": f"{len(material.canon)} of {data or 'unknown data'}",
        "setting": f"{clarid.get('kind')} {config.get('num_dirs')} directions at "
        f"{_SIGMA} = {config.get('sigma_te', float('nan')):.3g}, tap {config.get('tap')}, "
        f"{clarid.get('branch')} branch, guidance {clarid.get('guidance'):g}, "
        f"{clarid.get('steps')} steps of {clarid.get('solver')}, seed {config.get('seed')}",
        "manifest": f"SHA-256 {digest}",
        "students of it": ", ".join(fed) or "none of these runs records this very manifest",
    }
    return "<h3>The canonical set shown here</h3>" + fact_list(facts)


def fact_list(facts: Mapping[str, object]) -> str:
    """Return names with what belongs to them."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


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
