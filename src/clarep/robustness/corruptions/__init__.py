"""The common corruptions of Hendrycks & Dietterich, and mCE."""

from clarep.robustness.corruptions.by_name import corrupt as corrupt
