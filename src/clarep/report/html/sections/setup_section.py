"""What was run and what it cost: methods, seeds, data, teacher, settings, versions, seconds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.distill.trainer.run_folder import whole
from clarep.report.html import blocks
from clarep.report.html.blocks import Block, Cell, Download, Figure, Section, Text
from clarep.report.html.report_data import ReportData
from clarep.report.html.run_folders import ReportRun
from clarep.report.html.seed_commands import commands_of_another_seed
from clarep.study.comparison import REFERENCE
from clarep.study.runs import training_over

_SHOWN_OF_HASH = 12
_NO_BREAK = "\N{NO-BREAK SPACE}"
_RHO, _SIGMA = "\N{GREEK SMALL LETTER RHO}", "\N{GREEK SMALL LETTER SIGMA}"


def setup_section(data: ReportData) -> Section:
    """Describe every run, the canonical set, and the versions."""
    rows = [_row(run) for run in data.runs if run.config or run.evaluation]
    headings = (
        "run", "method", "seed", "student", "data", "training", "canonical set",
        "set's hash", "weights' hash",
    )  # fmt: skip
    shown = [[_shown(name, value) for name, value in row.items()] for row in rows]
    caption = (
        "Training data and canonical set of each student. Hashes are SHA-256, shortened here and "
        "whole in the files."
    )
    parts = [
        blocks.Notes(_notes_on_data(data)),
        Figure(blocks.Table("Runs", headings, shown), caption, Download("runs", rows)),
        *_another_seed(data),
        *([] if data.canon is None else _canonical_facts(data, data.canon)),
        *_folded(data),
    ]
    missing = tuple(reason for run in data.runs for reason in run.missing)
    return Section("setup", "What was run", parts, missing)


def cost_section(data: ReportData) -> Section:
    """Show the counts of the canonical set and the seconds of each run."""
    rows = [
        {
            "run": run.name,
            "method": run.method,
            "seed": run.seed,
            "training": total_seconds(run.config),
            "evaluation": total_seconds(run.evaluation.config if run.evaluation else {}),
        }
        for run in data.runs
        if run.config or run.evaluation
    ]
    headings = ["run", "method", "seed", "training, s", "evaluation, s"]
    shown = [list(row.values()) for row in rows]
    caption = "Wall-clock seconds on the machine each part was run on; nothing was measured again."
    if counted := _counted(data):
        headings += ["counted"]
        shown = [[*row, counted.get(str(row[0]))] for row in shown]
        caption += (
            f" Counted: operations of a training over {REFERENCE}'s, whatever the machine; what is "
            "read of a teacher is paid for beside it."
        )
    table = blocks.Table("Cost of each run", headings, shown)
    parts = [] if data.canon is None else [_ledger(data.canon.manifest.get("cost", {}))]
    if data.audit is not None:
        parts.append(_audit_ledger(data.audit.manifest.get("cost", {})))
    parts.append(Figure(table, caption, Download("cost", rows)))
    return Section("cost", "Cost", parts, data.canon_missing)


def _row(run: ReportRun) -> dict[str, Any]:
    config = whole(run.config)
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


def _shown(name: str, value: object) -> object:
    if name in ("settings", "canonical set"):
        return Cell(str(value or blocks.DASH), css="text")
    if name.endswith("sha256") and isinstance(value, str):
        return Cell(f"{value[:_SHOWN_OF_HASH]}\N{HORIZONTAL ELLIPSIS}", tip=value)
    return value


def _notes_on_data(data: ReportData) -> Sequence[str]:
    """What qualifies the images that were chosen and trained on; results tell of the measured."""
    configs = [run.config for run in data.runs]
    configs += [] if data.canon is None else [data.canon.manifest["config"]]
    return list(dict.fromkeys(note for one in configs for note in one.get("data_notes", ())))


def _another_seed(data: ReportData) -> list[Block]:
    """Say what one seed cannot show, and the commands that add another."""
    if not data.single:
        return []
    canon = data.canon
    pairs = [
        commands_of_another_seed(run, canon.folder if canon and _fed_by(run, canon) else None)
        for group in data.single
        for run in group.runs
    ]
    lines = "\n\n".join(filter(None, pairs))
    text = (
        f"One seed only: {', '.join(group.label for group in data.single)}. Their intervals are "
        "over images and do not show how much another seed would change."
    )
    if lines:
        text += " These commands repeat them with another, in folders to give to clarep report too."
    if "CANON" in lines:
        text += " CANON stands for the folder of the run's own canonical set."
    if "CLASSIFIER" in lines:
        text += " CLASSIFIER stands for the run of the stronger student."
    told = [Text(lines, "commands")] if lines else []
    return [Text("Another seed", "h3", "another-seed"), Text(text), *told]


def _fed_by(run: ReportRun, canon: CanonicalSet) -> bool:
    return bool((run.config.get("canon") or {}).get("sha256") == canon.sha256)


def _canonical_facts(data: ReportData, canon: CanonicalSet) -> list[Block]:
    """Return teacher, setting and hash of the canonical set, and which runs learned from it."""
    config, clarid = canon.manifest["config"], canon.setting
    fed = [run.name for run in data.runs if _fed_by(run, canon)]
    options = config.get("data_options", {})
    images = ", ".join(f"{key} {value}" for key, value in options.items() if value is not None)
    facts = {
        "teacher": f"{config.get('teacher', 'unknown')}, SHA-256 {config.get('teacher_sha256')}",
        "images": f"{len(canon)} of {images or 'unknown data'}",
        "setting": f"{clarid.get('kind')} {config.get('num_dirs')} directions at "
        f"{_SIGMA} = {config.get('sigma_te', float('nan')):.3g}, tap {config.get('tap')}, "
        f"{clarid.get('branch')} branch, guidance {clarid.get('guidance'):g}, "
        f"{clarid.get('steps')} steps of {clarid.get('solver')}, seed {config.get('seed')}",
        "content": f"SHA-256 {canon.sha256}",
        "students of it": ", ".join(fed) or "none of these runs records this very set",
    }
    return [Text("The canonical set shown here", "h3"), blocks.Facts(facts)]


def _folded(data: ReportData) -> list[Block]:
    """Return the versions of packages, and every run's configuration, folded away."""
    sources = [run.config.get("versions") for run in data.runs]
    if data.canon is not None and data.canon.manifest["shards"]:
        sources.append(data.canon.manifest["shards"][-1].get("versions"))
    found: dict[str, dict[str, None]] = {}
    for versions in sources:
        for package, version in (versions or {}).items():
            found.setdefault(package, {})[str(version)] = None
    facts = {package: ", ".join(sorted(versions)) for package, versions in found.items()}
    inside: list[Block] = []
    for run in data.runs:
        stored = {"student": run.config} if run.config else {}
        if run.evaluation is not None:
            stored["evaluation"] = run.evaluation.config
        if stored:
            text = Text(json.dumps(stored, indent=1), "pre")
            inside.append(blocks.Details(f"Configuration of {run.name}", [text]))
    versions_of = [blocks.Details("Versions", [blocks.Facts(facts)])] if facts else []
    return [*versions_of, blocks.Details("Configurations, whole", inside)]


def _ledger(cost: Mapping[str, Any]) -> Figure:
    """Return what the canonical set cost."""
    seconds = cost.get("seconds", {})
    rows = [{"stage": stage, "seconds": spent} for stage, spent in seconds.items()]
    stages = ", ".join(f"{stage} {spent:,.1f} s" for stage, spent in seconds.items())
    facts = {
        "canonical set": f"{cost.get('images', 0):,} images, {sum(seconds.values()):,.1f} s",
        "by stage": stages or "not recorded",
        "denoiser evaluations": f"{cost.get('denoiser_evaluations', 0):,}",
        "Jacobian products": f"{cost.get('jacobian_products', 0):,}",
        "peak memory": f"{cost.get('peak_memory_mb', 0):,} MiB",
    }
    download = Download("cost_canonical", rows)
    return Figure(blocks.Facts(facts), "Ledger of the canonical set.", download)


def _audit_ledger(cost: Mapping[str, Any]) -> Figure:
    """Return what the audit cost, which all methods and seeds that read it share."""
    seconds = cost.get("seconds", {})
    facts = {
        "audit": f"{sum(seconds.values()):,.1f} s",
        "denoiser evaluations": f"{cost.get('denoiser_evaluations', 0):,}",
    }
    return Figure(blocks.Facts(facts), "Ledger of the audit.")


def _counted(data: ReportData) -> dict[str, str]:
    """Return run -> its training's operations over the reference's, where both are counted."""
    plain = [run.config for run in data.runs if run.method == REFERENCE]
    ratios = {run.name: training_over([run.config], plain) for run in data.runs}
    return {name: f"{ratio:.2f} x" for name, ratio in ratios.items() if ratio is not None}


def total_seconds(config: Mapping[str, Any]) -> float | None:
    """Return the seconds that an artefact records, its stages added up; None if it does not."""
    seconds = config.get("seconds", (config.get("cost") or {}).get("seconds"))
    if isinstance(seconds, dict):
        return float(sum(v for v in seconds.values() if isinstance(v, int | float)))
    return float(seconds) if isinstance(seconds, int | float) else None
