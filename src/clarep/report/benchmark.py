"""The tables of `clarep bench subspace`."""

from typing import Any

from rich.console import Console
from rich.table import Table

from clarep.geometry.benchmark import Case

_NAMES = {
    "clarep": "clarep",
    "reference": "reference",
    "reference_with_our_products": "ref., our J",
}


def case_line(case: Case) -> str:
    """Return what a case cost, as one line."""
    return (
        f"{_NAMES[case.method]} k={case.k} batch={case.batch} {case.measure}: "
        f"{case.products_per_image:.0f} products, {case.seconds_per_image:.3f} s an image"
        f"{'' if case.reached else ', not reached'}"
    )


def print_subspace(result: dict[str, Any]) -> None:
    """Print the result of `clarep bench subspace` as two tables and notes, to stdout."""
    console = Console(highlight=False, color_system=None)
    if not console.is_terminal:
        console = Console(highlight=False, color_system=None, width=120)
    table = Table(title="Cost an image", box=None, pad_edge=False, title_justify="left")
    for column in ("method", "k", "batch", "to", "iter.", "prod.", "seconds", "MiB"):
        table.add_column(column, justify="left" if column in ("method", "to") else "right")
    for column in ("GFLOP/s", "energy", "angle"):
        table.add_column(column, justify="right")
    for case in result["cases"]:
        iterations, peak = case["iterations"], case["peak_mb"]
        mark = (">" if not case["reached"] else "") + ("~" if case["seconds_estimated"] else "")
        table.add_row(
            _NAMES[case["method"]],
            str(case["k"]),
            str(case["batch"]),
            case["measure"].replace("_", " "),
            "" if iterations is None else f"{iterations:g}",
            f"{case['products_per_image']:.0f}",
            f"{mark}{case['seconds_per_image']:.3f}",
            "" if peak is None else f"{peak:.0f}",
            f"{case['gflops']:.0f}",
            f"{case['captured']:.4f}",
            f"{case['angle']:.4f}",
        )
    console.print(table)
    console.print(_ratio_table(result["ratios"]))
    for line in _notes(result):
        console.print(line, soft_wrap=True)


_STOPS = {"truth": "told by the exact SVD", "own": "by itself, as the field runs it"}


def _ratio_table(ratios: list[dict[str, Any]]) -> Table:
    """Lay out how many times our cost the references take, one block a way of stopping them."""
    title = "Times our cost; ours always stops by itself"
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for column in ("reference", "stopped", "k", "batch", "ours to", "seconds", "products"):
        table.add_column(column, justify="right" if column in ("k", "batch") else "left")
    for column in ("its energy / ours", "its angle / ours"):
        table.add_column(column, justify="right")
    for ratio in sorted(ratios, key=lambda ratio: ratio["reference_stop"] == "own"):
        least = ">" if ratio["at_least"] else ""
        missed = "" if ratio["ours_reached"] else " (ours missed)"
        pairs = ratio["captured"], ratio["angle"]
        table.add_row(
            _NAMES[ratio["against"]],
            _STOPS[ratio["reference_stop"]],
            str(ratio["k"]),
            str(ratio["batch"]),
            ratio["measure"] + missed,
            f"{least}{ratio['seconds']:.1f}",
            f"{least}{ratio['products']:.1f}",
            *(f"{pair['reference']:.4f} / {pair['clarep']:.4f}" for pair in pairs),
        )
    return table


def _notes(result: dict[str, Any]) -> list[str]:
    config, shares, problem = result["config"], result["time_shares"], result["problem"]
    return [
        "to energy: 0.99 of the optimal captured energy; to angle: worst principal angle 1e-2; "
        "own stop: where the reference ends by itself. energy and angle are true ones, of the "
        "worst image. > gave up or missed it.",
        f"reference: {config['images']} images one at a time, mean, taken for every batch. "
        "~ iterations with the exact J times measured seconds of one. "
        f"It gives up after {config['max_iterations']}.",
        "MiB: peak resident memory above what was held before the case, sampled every 5 ms.",
        f"Our time at k={shares['k']}, batch {shares['batch']}: {shares['arithmetic']:.0%} "
        f"convolutions and matrix products, {shares['factorisation']:.0%} factorisations, "
        f"{shares['other']:.0%} other.",
        f"One forward pass to the tap: {problem['forward_mflop']:.0f} MFLOP; GFLOP/s count one "
        f"such pass a product; a plain matrix product reaches "
        f"{result['machine']['matmul_gflops']:.0f} GFLOP/s here.",
    ]
