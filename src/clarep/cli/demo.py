"""`clarep demo`: the whole road on the bundled teacher and data, in a few minutes."""

from dataclasses import dataclass
from pathlib import Path

from clarep.cli.identify import Identify


@dataclass(frozen=True)
class Demo:
    """Garments on photographs to canonical samples, a picture and a table of controls."""

    out: Path = Path("runs/demo")
    """Folder of the run: canon/ holds the set, report/ the picture and the table."""

    def run(self) -> None:
        """Run `clarep identify` on the bundled teacher, with every cheap control."""
        Identify(
            fraction=0.03,
            controls=("none", "reconstruction", "random", "bottom"),
            control_images=50,
            out=self.out,
        ).run()
