"""The same twelve images to train on and six to test, in every layout that `load_data` reads."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")
SIDE = 6


def pixels(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 (N, SIDE, SIDE, 3) and labels, by class as folders have them."""
    count = {"train": 12, "test": 6}[split]
    rng = np.random.default_rng(len(split))
    x = rng.integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    return x, np.repeat(np.arange(3), count // 3)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def folders(root: Path, splits: tuple[str, ...] = ("train", "test")) -> str:
    for split in splits:
        inner = root / (split if len(splits) > 1 else "")
        for i, (image, label) in enumerate(zip(*pixels(split), strict=True)):
            path = inner / CLASSES[label] / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
    return str(root)


def archive(root: Path) -> str:
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"], arrays[f"y_{split}"] = pixels(split)
    np.savez(root / "all.npz", classes=np.array(CLASSES), **arrays)
    return str(root / "all.npz")


def two_archives(root: Path) -> str:
    for split in ("train", "test"):
        x, y = pixels(split)
        np.savez(root / f"pets_{split}.npz", x=x, y=y, classes=np.array(CLASSES))
    return str(root / "pets_train.npz")


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def shards(root: Path) -> str:
    for split in ("train", "test"):
        x, y = pixels(split)
        for part, at in enumerate(np.array_split(np.arange(len(x)), 2)):
            with tarfile.open(root / f"pets-{split}-{part:03d}.tar", "w") as tar:
                for i in at:
                    add(tar, f"{i:05d}.cls", CLASSES[y[i]].encode())
                    add(tar, f"{i:05d}.png", png(x[i]))
                    add(tar, f"{i:05d}.json", b"{}")
    return f"wds:{root}/pets-{{split}}-{{000..001}}.tar"


def shards_by_a_library(root: Path) -> str:
    import webdataset

    for split in ("train", "test"):
        (root / split).mkdir()
        with webdataset.ShardWriter(f"{root}/{split}/%03d.tar", maxcount=5, verbose=0) as writer:
            for i, (image, label) in enumerate(zip(*pixels(split), strict=True)):
                name = CLASSES[label]
                writer.write({"__key__": f"x{i:03d}", "cls": name.encode(), "png": png(image)})
    return f"wds:{root}/{{split}}"


def _tables(root: Path):
    import datasets

    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    tables = {}
    for split in ("train", "test"):
        x, y = pixels(split)
        rows = {"image": [{"bytes": png(one), "path": None} for one in x], "label": y.tolist()}
        tables[split] = datasets.Dataset.from_dict(rows, features=kinds)
    return datasets.DatasetDict(tables)


def saved_to_disk(root: Path) -> str:
    _tables(root).save_to_disk(str(root / "saved"))
    return f"hf:{root}/saved"


def parquet(root: Path) -> str:
    for split, table in _tables(root).items():
        table.to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
    return f"hf:{root}"


def image_folder(root: Path) -> str:
    return "hf:" + folders(root)


DIVIDED: dict[str, Callable[[Path], str]] = {
    "class folders": folders,
    "npz": archive,
    "two npz": two_archives,
    "wds": shards,
    "wds by webdataset": shards_by_a_library,
    "hf save_to_disk": saved_to_disk,
    "hf parquet": parquet,
    "hf imagefolder": image_folder,
}
"""Name of a layout -> what writes it into a folder and returns what `--data` takes."""
