"""The catalogue of CLARID's own measures: what tables call the fields of `Measures`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """How tables show a field of `Measures`."""

    heading: str
    legend: str = ""
    """What must be said of it below the table; empty where the heading is enough."""
    interval: str = ""
    """Field that holds its interval."""


COLUMNS = {
    "judge_accuracy": Column(
        "judge accuracy", "judge: an independent classifier", "judge_interval"
    ),
    "judge_confidence": Column("confidence"),
    "nmi_null": Column("NMI no class"),
    "nmi_conditional": Column(
        "NMI given class", "NMI: k-means clusters of the features against the classes"
    ),
    "background_r2": Column("background R2"),
    "background_colour": Column(
        "background colour",
        "background colour: the samples' distance from grey there, its spread between images, and "
        "its R2, how well a probe reads the backdrop's colour from the features",
        "background_interval",
    ),
    "background_spread": Column("background spread"),
    "removed_on_background": Column(
        "removed off object",
        "removed off object: share of the removed energy that lies on the backdrop",
        "removed_interval",
    ),
    "sample_within": Column("within samples", "within: variance inside the classes over all of it"),
    "feature_within": Column("within features"),
}
"""Every field of `Measures` that is a measure, in the order of tables."""
