"""Class evidence of many latents in a few numbers, as fields of `Measures`."""

from typing import Any

from torch import Tensor

from clarep.engine.statistics import binomial_interval, bootstrap_interval
from clarep.select.class_evidence import ClassEvidence


def summarised(found: ClassEvidence, before: ClassEvidence | None = None) -> dict[str, Any]:
    """Return means, shares and their 95 % intervals over images.

    before: of the same images before the projection, None where there was none; the change is that
        of each image, by which its own noise and what its image is like cancel.
    """
    change = None if before is None else found.nats - before.nats
    return {
        "labels_tried": found.labels,
        "evidence": float(found.nats.mean()),
        "evidence_interval": bootstrap_interval(found.nats),
        "evidence_change": None if change is None else float(change.mean()),
        "evidence_change_interval": None if change is None else bootstrap_interval(change),
        **_share("posterior", found.posterior_right),
        **_share("below", found.below_right),
        **_share("null", found.null_right),
        **_share("swap", found.swap_kept),
        **_share("swap_guided", found.swap_kept_guided),
    }


def _share(name: str, right: Tensor | None) -> dict[str, Any]:
    """Return the fields NAME_share and NAME_interval, None where nothing was asked."""
    if right is None:
        return {f"{name}_share": None, f"{name}_interval": None}
    count, of = int(right.sum()), len(right)
    return {f"{name}_share": count / of, f"{name}_interval": binomial_interval(count, of)}
