"""`clarep data`: look at a data set."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from clarep.cli.option_groups import DataOptionsGroup
from clarep.cli.terminal import told
from clarep.data.labelled import LabelledImages, readable_indices
from clarep.data.load import DataConfig, DataOptions, load_data
from clarep.data.sheet import choose_by_class, class_sheet
from clarep.engine.artefacts import atomic_path
from clarep.engine.bounds import Seed, Within
from clarep.errors import UserError


@dataclass(frozen=True)
class Show:
    """Write a labelled contact sheet of a data set: one row a class."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """A name (garments, backdrops, noise-backdrops) or a path: class folders, an .npz, or
    CIFAR-10's batches."""
    options: DataOptionsGroup = field(default_factory=DataOptions)
    columns: Annotated[int, Within(1)] = 10
    """Images a class."""
    seed: Seed | None = None
    """Choose the images at random with this seed; without it, the first of each class."""
    skip_bad: bool = False
    """Go on without unreadable images, count the others, and list them; decodes all first."""
    out: Path = Path("sheet.png")
    """The sheet, a PNG."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self) -> None:
        """Write the sheet, then print where it is and what the data set holds."""
        if self.out.suffix.lower() != ".png":
            raise UserError(f"--out {self.out} is no PNG: give a name that ends in .png")
        data = told(load_data(DataConfig(data=self.name, **vars(self.options))))
        kept, bad = np.arange(len(data)), list[str]()
        if self.skip_bad:
            kept, bad = readable_indices(data, kept, skip_bad=True)
        classes = len(data.class_names)
        shown = choose_by_class(data.labels[kept], classes, self.columns, self.seed)
        chosen = [kept[places] for places in shown]
        if not self.skip_bad:
            readable_indices(data, np.concatenate(chosen), skip_bad=False)
        sheet = class_sheet(data, chosen)
        with atomic_path(self.out) as temporary:
            sheet.save(temporary, format="PNG")
        summary = _Summary.of(data, kept, int(np.concatenate(chosen)[0]), self.out, bad)
        print(json.dumps(asdict(summary), indent=2) if self.json else summary.lines())


@dataclass(frozen=True)
class Data:
    """Look at a data set."""

    # The suppressed None makes this a union, from which tyro builds subcommands.
    action: Annotated[Show, tyro.conf.subcommand("show")] | Annotated[None, tyro.conf.Suppress]

    def run(self) -> None:
        """Do what the subcommand says."""
        if self.action is not None:
            self.action.run()


@dataclass(frozen=True)
class _Summary:
    out: str
    name: str
    images: int
    classes: int
    image_size: list[int]  # height, width
    images_per_class: dict[str, int]
    skipped: list[str]
    notes: list[str]

    @classmethod
    def of(
        cls,
        data: LabelledImages,
        kept: NDArray[np.int64],
        readable: int,
        out: Path,
        bad: list[str],
    ) -> "_Summary":
        counts = np.bincount(data.labels[kept], minlength=len(data.class_names))
        return cls(
            out=str(out),
            name=data.name,
            images=len(kept),
            classes=len(data.class_names),
            image_size=list(data.read(readable).shape[:2]),
            images_per_class=dict(zip(data.class_names, counts.tolist(), strict=True)),
            skipped=bad,
            notes=list(data.notes),
        )

    def lines(self) -> str:
        height, width = self.image_size
        size = f"{width}x{height}"
        lines = [f"{self.name}: {self.images} images of {size}, {self.classes} classes"]
        lines += [f"  {count:7d}  {name}" for name, count in self.images_per_class.items()]
        lines += [f"skipped {reason}" for reason in self.skipped]
        return "\n".join([*lines, f"wrote {self.out}"])
