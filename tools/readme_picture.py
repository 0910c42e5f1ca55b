"""Draw the README's picture: garments and CIFAR-10, and what three settings make of them.

    python tools/readme_picture.py cifar10_jpegbytes_train.npz docs/canonical.png

One image of each of six classes, the first that seed 0 draws; none is picked.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from clarep import Clarid, DataConfig, load_data
from clarep.data.labelled import LabelledImages

CLASSES = 6


@dataclass(frozen=True)
class Panel:
    """Half of the picture: a teacher, where it inverts to, and a column a setting."""

    title: str
    teacher: str
    t: float
    settings: dict[str, dict[str, Any]]


PANELS = (
    Panel(
        "garments on photographs, t = 0.85",
        "backdrops",
        0.85,
        {
            "guidance\nalone": {"kind": "none"},
            "top 8\ndirections out": {"k": 8},
            "top 123 (4 %)\nout": {"k": 123},
        },
    ),
    Panel(
        "CIFAR-10, t = 0.5",
        "cifar10",
        0.5,
        {
            "guidance\nalone": {"kind": "none"},
            "top 31 (1 %)\nout": {"k": 31},
            "31 out, class\nleft alone (mask)": {"k": 31, "kind": "mask"},
        },
    ),
)


def columns(panel: Panel, data: LabelledImages) -> dict[str, np.ndarray]:
    """Return heading -> images (classes, H, W, 3) in [0, 1]."""
    rng = np.random.default_rng(0)
    chosen = np.array([rng.choice(np.flatnonzero(data.labels == c)) for c in range(CLASSES)])
    images = data.images(chosen)
    found = {"original": images.permute(0, 2, 3, 1).numpy() / 255}
    for heading, setting in panel.settings.items():
        clarid = Clarid(panel.teacher, t=panel.t, **({"k": 1} | setting))
        samples = clarid(images, data.labels[chosen]).sample
        found[heading] = ((samples.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    return found


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cifar10")
    parser.add_argument("out")
    given = parser.parse_args()
    drawn = [
        columns(panel, load_data(config))
        for panel, config in zip(
            PANELS, (DataConfig(), DataConfig(data=given.cifar10)), strict=True
        )
    ]
    figure = plt.figure(figsize=(9.2, 6.9), layout="constrained")
    for part, panel, found in zip(figure.subfigures(1, 2), PANELS, drawn, strict=True):
        part.suptitle(panel.title, fontsize=10)
        grid = part.subplots(CLASSES, len(found))
        for j, (heading, images) in enumerate(found.items()):
            grid[0, j].set_title(heading, fontsize=8)
            for i, image in enumerate(images):
                grid[i, j].imshow(image)
                grid[i, j].axis("off")
    figure.savefig(given.out, dpi=110)


if __name__ == "__main__":
    main()
