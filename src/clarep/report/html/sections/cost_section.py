"""What it cost: the canonical set's ledger, seconds of training and of evaluation."""

from typing import Any

from clarep.report.html.markup import DASH, Cell, fact_list, figure, notes, paragraph, table
from clarep.report.html.material import Material, Section
from clarep.report.html.run_folders import ReportRun


def cost_section(material: Material) -> Section:
    """Show the counts of the canonical set and the seconds of each run."""
    content = paragraph(
        "Wall-clock seconds on the machine each part was run on; nothing here was measured again."
    )
    missing: tuple[str, ...] = ()
    if material.canon is None:
        missing = (material.canon_missing,)
    else:
        content += _canonical_cost(material, material.canon.manifest.get("cost", {}))
    rows = [_row(run) for run in material.runs if run.config or run.evaluation]
    links = material.downloads.add("cost", rows)
    shown = [
        [
            row["run"],
            row["method"],
            row["seed"],
            _seconds(row["training"]),
            _seconds(row["evaluation"]),
        ]
        for row in rows
    ]
    headings = ("run", "method", "seed", "training, s", "evaluation, s")
    content += figure(table("Seconds of each run", headings, shown), "Seconds of each run.", links)
    return Section("cost", "Cost", notes(missing) + content, missing)


def _canonical_cost(material: Material, cost: dict[str, Any]) -> str:
    seconds = cost.get("seconds", {})
    rows = [{"stage": stage, "seconds": spent} for stage, spent in seconds.items()]
    links = material.downloads.add("cost_canonical", rows)
    stages = ", ".join(f"{stage} {spent:,.1f} s" for stage, spent in seconds.items())
    facts = {
        "canonical set": f"{cost.get('images', 0):,} images, {sum(seconds.values()):,.1f} s",
        "by stage": stages or "not recorded",
        "denoiser evaluations": f"{cost.get('denoiser_evaluations', 0):,}",
        "Jacobian products": f"{cost.get('jacobian_products', 0):,}",
        "peak memory": f"{cost.get('peak_memory_mb', 0):,} MiB",
    }
    return figure(fact_list(facts), "Ledger of the canonical set.", links)


def _row(run: ReportRun) -> dict[str, Any]:
    measured = run.evaluation.config if run.evaluation else {}
    return {
        "run": run.name,
        "method": run.method,
        "seed": run.seed,
        "training": total_seconds(run.config),
        "evaluation": total_seconds(measured),
    }


def total_seconds(config: dict[str, Any]) -> float | None:
    """Return the seconds that an artefact records, its stages added up; None if it does not."""
    seconds = config.get("seconds", (config.get("cost") or {}).get("seconds"))
    if isinstance(seconds, dict):
        return float(sum(v for v in seconds.values() if isinstance(v, int | float)))
    return float(seconds) if isinstance(seconds, int | float) else None


def _seconds(value: float | None) -> Cell:
    return (
        Cell(DASH, number=True, css="none") if value is None else Cell(f"{value:,.1f}", number=True)
    )
