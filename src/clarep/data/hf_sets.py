"""Data sets of Hugging Face's `datasets`: `hf:PLACE`, decoded as they are asked for."""

from pathlib import Path
from typing import Any

import numpy as np

from clarep.data.decode_image import colour, decode_image, require_one_size
from clarep.data.files import NoSplitError
from clarep.data.labelled import LabelledImages, UnreadableImage
from clarep.data.names import Names
from clarep.data.npz import checked_labels
from clarep.engine.extras import require_extra
from clarep.errors import UserError, refusing, said_by, unknown_name

_FIRST_WITHOUT_CODE = 4  # from this version on a data set brings no Python code to be run
_SAME = {"val": "validation"}  # split, and what it is called there
_MAX_CLASSES = 100_000


def load_hf(
    place: str, split: str = "train", image_size: int | None = None, alpha_colour: str = "white"
) -> LabelledImages:
    """Load a data set that has one column of images and one of labels.

    Args:
        place: a folder that `save_to_disk` wrote, or of Parquet files, or of images as
            `imagefolder` takes them; or the name of a data set on Hugging Face's hub. A split
            behind a colon, PLACE:test, names the one part that is read.
        split: which of train, test, val, also if it is called validation there. A part that is
            named in `place` counts as the split of its name, and as train if that is another.
        image_size: side that `square_resize` brings images to; None keeps a common size.
        alpha_colour: what transparency is composed on.

    No code of a data set is run. Classes are the names that its ClassLabel knows, else numbers.

    Raises:
        UserError: for what `datasets` cannot read, other columns, a split that is not there,
            labels outside the classes, and images of several sizes without `image_size`.
    """
    colour(alpha_colour)
    datasets = require_extra("datasets", "web")
    if int(datasets.__version__.split(".")[0]) < _FIRST_WITHOUT_CODE:
        raise UserError(
            f"datasets {datasets.__version__} may run code of a data set: give pip install "
            f"'datasets>={_FIRST_WITHOUT_CODE}'"
        )
    name = f"hf:{place}"
    mend = "give a folder that save_to_disk wrote, or of Parquet or class folders, or a set's name"
    with refusing(f"cannot read {name}", mend, (Exception,)):  # of the readers of many formats
        table = _part(datasets, place, split)
        if not len(table):
            raise UserError(f"{name} holds no images")
        image, label = _columns(datasets, name, table)
        classes = getattr(table.features[label], "names", None)
        labels = np.asarray(table.select_columns([label]).with_format("numpy")[:][label])
        encoded = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    if classes is None:
        largest = int(labels.max()) if labels.dtype.kind in "iu" and labels.ndim == 1 else 0
        if largest >= _MAX_CLASSES:
            raise UserError(f"label {largest} in {name} needs names: give a ClassLabel column")
        classes = list(map(str, range(largest + 1)))
    sources = Names(f"{name}/{i}" for i in range(len(labels)))

    def stored(i: int) -> bytes | Path:
        return _stored(encoded, image, i, sources[i])

    data = LabelledImages(
        name=f"{name}/{split}",
        labels=checked_labels(name, labels, len(classes)),
        class_names=tuple(map(str, classes)),
        sources=sources,
        read=lambda i: decode_image(stored(i), sources[i], image_size, alpha_colour),
    )
    if image_size is None:
        require_one_size(data.name, ((stored(i), sources[i]) for i in range(len(data))))
    return data


def divided(place: str) -> tuple[str, str]:
    """Return the folder or name, and the split behind a colon, if there is one."""
    folder, colon, named = place.rpartition(":")
    return (folder, named) if colon and not Path(place).expanduser().exists() else (place, "")


def _part(datasets: Any, place: str, split: str) -> Any:
    """Return the table of a split. Raises NoSplitError if there is none."""
    folder, named = divided(place)
    if named:
        counts_as = {"validation": "val", "test": "test", "val": "val"}.get(named, "train")
        if counts_as != split:
            raise NoSplitError(
                f"hf:{place} is one part and counts as '{counts_as}', so there is no split "
                f"'{split}': give `split={counts_as}`, or hf:{folder}"
            )
    parts = _read(datasets, folder)
    if not isinstance(parts, dict):
        if named or split != "train":
            raise NoSplitError(
                f"hf:{folder} is not divided into splits and counts as 'train', so there is no "
                f"split '{named or split}': give `split=train`, or a DatasetDict"
            )
        return parts
    wanted = named or (split if split in parts else _SAME.get(split, split))
    if wanted not in parts:
        raise NoSplitError(str(unknown_name(f"split of hf:{folder}", wanted, parts)))
    return parts[wanted]


def _read(datasets: Any, place: str) -> Any:
    """Return a table, or tables by split, of a folder or a name on the hub."""
    folder = Path(place).expanduser()
    if not folder.exists():
        return datasets.load_dataset(place)
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return datasets.load_from_disk(str(folder))
    builder = "parquet" if any(folder.rglob("*.parquet")) else "imagefolder"
    return datasets.load_dataset(builder, data_dir=str(folder))


def _columns(datasets: Any, name: str, table: Any) -> tuple[str, str]:
    """Return the names of the columns of images and of labels."""
    kinds = table.features
    images = [column for column, kind in kinds.items() if isinstance(kind, datasets.Image)]
    labels = [column for column, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    labels = ["label"] if "label" in kinds else labels
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"{column} ({type(kind).__name__})" for column, kind in kinds.items())
        raise UserError(
            f"{name} has the columns {shown[:300]}: give one Image and one ClassLabel column, or a "
            "column called label (rename_column and save_to_disk make it)"
        )
    return images[0], labels[0]


def _stored(encoded: Any, column: str, i: int, source: str) -> bytes | Path:
    """Return an image as it is stored: its bytes, or the path of its file."""
    try:
        found: Any = encoded[int(i)][column]
        content = found["bytes"] if found["bytes"] is not None else Path(found["path"])
    except Exception as error:  # a null, or what Arrow raises on damaged bytes
        raise UnreadableImage(source, said_by(error)) from error
    if isinstance(content, Path) and not content.is_file():
        raise UnreadableImage(source, f"there is no file {content}")
    return content
