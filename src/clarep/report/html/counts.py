"""How many images stand behind the figures, in words for captions, headings and rows."""

from collections.abc import Iterator, Sequence

from clarep.report.html.run_folders import Group
from clarep.robustness.evaluation import Measurement


def images_of(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Return the number of images of each run, such as n = 200 or n = 896 to 930."""
    counts = sorted({one.images for one in _single(groups, keys)})
    if not counts:
        return ""
    return f"n = {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else "")


def per_row(groups: Sequence[Group], keys: Sequence[str]) -> dict[str, str]:
    """Return what a row of each key says of its images: nothing where the caption says it."""
    usual = _usual(groups, keys)
    said = {key: images_of(groups, [key]) for key in keys}
    return {key: "" if images == usual else images for key, images in said.items()}


def counted(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Return the end of a caption: the images, and what an interval of no width means."""
    if not (usual := _usual(groups, keys)):
        return ""
    each = " for each seed" if any(len(group.evaluations) > 1 for group in groups) else ""
    uneven = any(per_row(groups, keys).values())
    text = f" {usual} images{each}{', unless a row says otherwise' if uneven else ''}."
    return text + no_width(groups, keys)


def _usual(groups: Sequence[Group], keys: Sequence[str]) -> str:
    said = [images for key in keys if (images := images_of(groups, [key]))]
    return max(said, key=said.count, default="")


def no_width(groups: Sequence[Group], keys: Sequence[str]) -> str:
    """Say what an interval of no width means, where there is one."""
    alone = [group for group in groups if len(group.evaluations) == 1]
    flat = any(one.interval[0] == one.interval[1] for one in _single(alone, keys))
    if not flat:
        return ""
    return (
        " An interval of no width means that all n images agreed: from them the bootstrap cannot "
        "tell how others would do, of which up to about 3 in n may differ."
    )


def _single(groups: Sequence[Group], keys: Sequence[str]) -> Iterator[Measurement]:
    for group in groups:
        for evaluation in group.evaluations:
            for key in keys:
                if key in evaluation:
                    yield evaluation[key]
