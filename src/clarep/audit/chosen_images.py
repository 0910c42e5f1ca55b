"""Which images of each class a canonical set is made of: any, or those that an audit names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clarep.audit.audit import Audit, check_audit
from clarep.audit.audit_config import Part
from clarep.data.class_balance import class_balanced_choice
from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages
from clarep.engine.printable import counted
from clarep.errors import UserError

Choice = Literal["random", "doubted", "typical"]
_READ: tuple[Part, ...] = ("errors",)


@dataclass(frozen=True)
class ChoiceConfig:
    """How the share of every class is chosen that a canonical set is made of."""

    choose: Choice = "random"
    """Which images of each class: random ones, those that the audit doubts most (the cue of another
    class speaks against their label), or those that it doubts least."""
    audit: Path | None = None
    """Folder of clarep audit, of these data, by which doubted or typical ones are chosen."""


def chosen_images(
    data: LabelledImages,
    config: ChoiceConfig,
    fraction: float,
    seed: int,
    only: tuple[int, ...] = (),
) -> tuple[Indices, dict[str, Any]]:
    """Return which images a set is made of, sorted, and what its manifest tells of the choice.

    fraction: of every class; at least one image of each. seed: of a random choice. only: these
    images, whatever the rest says.

    Raises:
        UserError: for a choice that lacks its audit or does not need the one given, an audit of
            other data, or one that holds fewer images of a class than are to be chosen.
    """
    by_audit = config.choose != "random"
    if by_audit == (config.audit is None) or (by_audit and only):
        raise UserError(
            f"`choose={config.choose}` does not fit the rest: `choose=doubted` and "
            "`choose=typical` take `audit`, a folder of clarep audit, and no `only`; random takes "
            "no `audit`"
        )
    if only:
        return data.positions(only), {}
    random = class_balanced_choice(data.labels, fraction, seed)
    if config.audit is None:
        return random, {"fraction": fraction}
    audit = Audit.load(config.audit)
    check_audit(audit, data)
    sign = -1 if config.choose == "doubted" else 1
    order = (sign * audit.doubts).argsort(stable=True).numpy()
    index, labels = audit.index.numpy()[order], audit.labels.numpy()[order]
    chosen = []
    for label, count in zip(*np.unique(data.labels[random], return_counts=True), strict=True):
        members = index[labels == label][:count]
        if len(members) < count:
            raise UserError(
                f"{audit.folder} is an audit of {counted(len(members), 'image')} of "
                f"'{data.class_names[label]}', and `fraction={fraction:g}` of the class are "
                f"{count}: give an audit of all images, or a smaller share"
            )
        chosen.append(members)
    told = {"choose": config.choose, "audit_sha256": audit.sha256_of(_READ)}
    return np.sort(np.concatenate(chosen)), {"fraction": fraction} | told
