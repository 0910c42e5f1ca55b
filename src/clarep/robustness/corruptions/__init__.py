"""The common corruptions of Hendrycks & Dietterich, and mCE."""

from clarep.data.sets.official_corruptions import SEVERITIES
from clarep.robustness.corruptions.by_name import COMMON, CORRUPTIONS, EXTRA, corrupt
from clarep.robustness.corruptions.mce import (
    Baseline,
    baseline_of,
    mean_accuracy,
    mean_corruption_error,
)

__all__ = [
    "COMMON",
    "CORRUPTIONS",
    "EXTRA",
    "SEVERITIES",
    "Baseline",
    "baseline_of",
    "corrupt",
    "mean_accuracy",
    "mean_corruption_error",
]
