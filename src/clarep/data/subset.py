"""Some images of a data set, as a set of their own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarep.data.cues import GroupedImages, cues_of
from clarep.data.labelled import LabelledImages
from clarep.data.names import Names


def subset(data: LabelledImages, kept: NDArray[np.int64], which: str) -> LabelledImages:
    """Return the images at indices `kept` alone; `which` says which they are, in the name.

    Of a set that knows more of its images the spurious cues alone go with them.
    """
    parts: dict[str, Any] = {
        "name": f"{data.name} {which}",
        "labels": data.labels[kept],
        "class_names": data.class_names,
        "sources": Names(data.sources[i] for i in kept),
        "read": lambda i: data.read(int(kept[i])),
        "notes": data.notes,
    }
    cues = cues_of(data)
    if cues is None:
        return LabelledImages(**parts)
    others = data.other_cues if isinstance(data, GroupedImages) else {}
    others = {name: subset(other, kept, which) for name, other in others.items()}
    return GroupedImages(**parts, cue=cues[kept], other_cues=others)
