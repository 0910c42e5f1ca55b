"""The catalogue of CLARID's own measures: what tables call the fields of `Measures`."""

from collections.abc import Callable
from dataclasses import dataclass

LATENT = "Is the class still in the latent? The teacher is asked, and not told."
JUDGED = "Decoded, what does a judge see?"
BACKGROUND = "What is left of the background?"
SPREAD = "Do images of a class come together?"
FOOTNOTE = ""
BLOCKS = (LATENT, JUDGED, BACKGROUND, SPREAD)
"""Questions under which the measures stand, each a table narrow enough to be read."""


@dataclass(frozen=True)
class Column:
    """How tables show a field of `Measures`."""

    heading: str
    block: str
    """One of BLOCKS, or FOOTNOTE."""
    legend: str = ""
    """What must be said of it below the table; empty where the heading is enough."""
    interval: str = ""
    """Field that holds its interval."""


COLUMNS = {
    "evidence": Column(
        "evidence",
        LATENT,
        "evidence: how much likelier than by chance the own class is, in nats, mean over images; 0 "
        "or less is none",
        "evidence_interval",
    ),
    "evidence_change": Column(
        "change",
        LATENT,
        "change: against the same latent before the projection, in pairs",
        "evidence_change_interval",
    ),
    "posterior_share": Column(
        "own likeliest",
        LATENT,
        "own likeliest: share whose own class the teacher finds the likeliest",
        "posterior_interval",
    ),
    "below_share": Column(
        "own, decoded",
        LATENT,
        "own, decoded: the same of what is decoded under no class",
        "below_interval",
    ),
    "null_share": Column(
        "under no class",
        JUDGED,
        "share that the judge gives the own class: decoded under no class; under another class, "
        "without and with guidance (0: the label alone decides); judge accuracy: decoded as the "
        "set is, under the own class, which draws it",
        "null_interval",
    ),
    "swap_share": Column("under another", JUDGED, "", "swap_interval"),
    "swap_guided_share": Column("another, guided", JUDGED, "", "swap_guided_interval"),
    "judge_accuracy": Column(
        "judge accuracy", JUDGED, "judge: an independent classifier", "judge_interval"
    ),
    "background_r2": Column("background R2", BACKGROUND),
    "background_colour": Column(
        "background colour",
        BACKGROUND,
        "background colour: the samples' distance from grey there, its spread between images, and "
        "its R2, how well a probe reads the backdrop's colour from the features",
        "background_interval",
    ),
    "background_spread": Column("background spread", BACKGROUND),
    "removed_on_background": Column(
        "removed off object",
        BACKGROUND,
        "removed off object: share of the removed energy that lies on the backdrop",
        "removed_interval",
    ),
    "sample_within": Column(
        "within samples", SPREAD, "within: variance inside the classes over all of it"
    ),
    "feature_within": Column("within features", SPREAD),
    "nmi_null": Column(
        "NMI no class",
        SPREAD,
        "NMI: k-means clusters of the features, given no class, against the classes",
    ),
    "judge_confidence": Column("judge's confidence", SPREAD),
    "nmi_conditional": Column("NMI given class", FOOTNOTE),
}
"""Every field of `Measures` that is a measure, in the order of tables."""

SCRAMBLED = "scrambled: the same road with images that show nothing, their blocks shuffled"
"""What a row of that name is."""
OTHERS = "data:...: the same road with images of other data, under the labels of the set's"
"""What a row of other data is."""
WHY_A_FOOTNOTE = (
    "the network is told the class, so that its features cluster by class also where the object is "
    "gone"
)
"""Of NMI given class, which no table shows."""


def blocks(known: Callable[[str], bool]) -> dict[str, list[str]]:
    """Return question -> its measures that are known of any row; no question without any."""
    shown = {
        block: [n for n in COLUMNS if COLUMNS[n].block == block and known(n)] for block in BLOCKS
    }
    return {block: names for block, names in shown.items() if names}
