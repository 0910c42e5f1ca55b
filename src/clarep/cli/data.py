"""`clarep data`: look at a data set."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from clarep.cli.option_groups import DataOptionsGroup
from clarep.cli.terminal import told
from clarep.data.labelled import readable_indices
from clarep.data.load import DataConfig, DataOptions, load_data
from clarep.data.sheet import choose_by_class, class_sheet
from clarep.engine.artefacts import atomic_path
from clarep.engine.bounds import Seed, Within
from clarep.engine.printable import counted
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
        height, width = data.read(int(np.concatenate(chosen)[0])).shape[:2]
        counts = np.bincount(data.labels[kept], minlength=classes).tolist()
        each = dict(zip(data.class_names, counts, strict=True))
        if self.json:
            answer = {
                "out": str(self.out),
                "name": data.name,
                "images": len(kept),
                "classes": classes,
                "image_size": [height, width],
                "images_per_class": each,
                "skipped": bad,
                "notes": data.notes,
            }
            print(json.dumps(answer, indent=2))
            return
        images = f"{counted(len(kept), 'image')} of {width}x{height}"
        print(f"{data.name}: {images}, {counted(classes, 'class')}")
        for name, count in each.items():
            print(f"  {count:7d}  {name}")
        for reason in bad:
            print(f"skipped {reason}")
        print(f"wrote {self.out}")


# The suppressed None makes a union of one command, from which tyro builds subcommands.
@dataclass(frozen=True)
class Data:
    """Look at a data set."""

    action: Annotated[Show, tyro.conf.subcommand("show")] | Annotated[None, tyro.conf.Suppress]

    def run(self) -> None:
        """Do what the subcommand says."""
        if self.action is not None:
            self.action.run()
