"""Real photographs for the foreign families."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import pytest
from PIL import Image

_PHOTOGRAPHS = ("chelsea", "coffee", "astronaut")


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Write two crops of a photograph of scikit-image's a class, in folders of these names."""
    import skimage

    def write(class_names: Sequence[str]) -> Path:
        root = tmp_path / "photographs"
        for name, photograph in zip(class_names, cycle(_PHOTOGRAPHS)):
            image = Image.open(Path(skimage.__file__).parent / "data" / f"{photograph}.png")
            (root / name).mkdir(parents=True)
            for i in range(2):
                corner = 20 + 60 * i
                image.crop((corner, corner, corner + 200, corner + 200)).save(
                    root / name / f"{i}.png"
                )
        return root

    return write
