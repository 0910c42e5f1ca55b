"""Real photographs for the foreign families, and `clarep doctor` on a teacher."""

import json
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clarep.cli.main import main

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


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run `clarep doctor --json` on a teacher to its end, and return what it says."""

    def run(spec: str, *options: str) -> dict[str, Any]:
        capsys.readouterr()
        code = main(["doctor", "--teacher", spec, "--k", "3", "--json", *options])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        answer: dict[str, Any] = json.loads(printed.out)
        assert answer["teacher"]["spec"] == spec
        assert answer["differentiation"]["engine"] == "forward"
        assert answer["basis"]["k"] == 3
        return answer

    return run
