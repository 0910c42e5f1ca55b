"""One HTML file of what a set of runs measured: no network, every number to take away."""

from clarep.report.html.build import build_report

__all__ = ["build_report"]
