"""The one style of clarep's figures (figures.mplstyle), whoever draws and saves them."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from clarep.engine.artefacts import atomic_path

COLUMN = 3.3
"""Width of a column of a paper, in inches."""
PAGE = 6.8
"""Width of its page, in inches."""
BLUE, ORANGE, GREEN, PINK, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"
SERIES = (BLUE, ORANGE, GREEN, PINK, "#e69f00", SKY, "#000000")
"""Of what stands beside each other, in this order."""
_STYLE = str(files("clarep.engine") / "figures.mplstyle")


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style within the block; settings of a user's own are as before afterwards."""
    style = matplotlib.rc_params_from_file(_STYLE, use_default_template=False)
    with matplotlib.rc_context(dict(style)):
        yield


class PaperFigure(Figure):
    """A figure that is saved in the style too: a PDF keeps its letters as text."""

    def savefig(self, *where: Any, **how: Any) -> None:
        with styled():
            super().savefig(*where, **how)


def paper_figure(width: float, height: float) -> PaperFigure:
    """Return an empty figure of so many inches, to be drawn on within `styled`."""
    return PaperFigure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG at 150 dots an inch, atomically; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
