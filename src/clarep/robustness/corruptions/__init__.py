"""The common corruptions of Hendrycks & Dietterich, their official files, and mCE."""

from clarep.data.sets.official_corruptions import load_official, official_names
from clarep.robustness.corruptions.by_name import COMMON, CORRUPTIONS, EXTRA, SEVERITIES, corrupt
from clarep.robustness.corruptions.constants import CONSTANTS
from clarep.robustness.corruptions.mce import (
    ALEXNET,
    Baseline,
    baseline_of,
    mean_accuracy,
    mean_corruption_error,
    relative_mean_corruption_error,
)

__all__ = [
    "ALEXNET",
    "COMMON",
    "CONSTANTS",
    "CORRUPTIONS",
    "EXTRA",
    "SEVERITIES",
    "Baseline",
    "baseline_of",
    "corrupt",
    "load_official",
    "mean_accuracy",
    "mean_corruption_error",
    "official_names",
    "relative_mean_corruption_error",
]
