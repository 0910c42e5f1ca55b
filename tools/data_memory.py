"""How much memory loading takes, from few images to many, in every layout.

    python tools/data_memory.py OUT [--images 2000 50000] [--side 32]

For each layout and number of images a fresh process loads the set with --image-size, reads all of
it in batches of 100 in random order, hashes it, and tells the most memory that it held. Prints a
table: layout, images, seconds to load, images a second when read, MiB at the start (libraries),
at most, and at the end what belongs to it alone (without files that are mapped). Data are made
under OUT, of images of noise.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from clarep.data.load import DataConfig, load_data

CLASSES = 100


def _png(i: int, side: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _folders(root: Path, count: int, side: int) -> str:
    for i in range(count):
        path = root / f"n{i % CLASSES:08d}" / f"n{i % CLASSES:08d}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(i, side))
    return str(root)


def _shards(root: Path, count: int, side: int) -> str:
    root.mkdir(parents=True)
    for start in range(0, count, 5_000):
        with tarfile.open(root / f"{start // 5_000:05d}.tar", "w") as tar:
            for i in range(start, min(start + 5_000, count)):
                for ending, content in (("png", _png(i, side)), ("cls", b"%d" % (i % CLASSES))):
                    info = tarfile.TarInfo(f"{i:08d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return f"wds:{root}"


def _table(root: Path, count: int, side: int) -> str:
    datasets.disable_progress_bars()

    def rows():
        for i in range(count):
            yield {"image": {"bytes": _png(i, side), "path": None}, "label": i % CLASSES}

    names = [f"c{i}" for i in range(CLASSES)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    cache = str(root.with_suffix(".cache"))
    features = datasets.Features(kinds)
    made = datasets.Dataset.from_generator(rows, features=features, cache_dir=cache)
    made.save_to_disk(str(root))
    return f"hf:{root}"


LAYOUTS = {"folders": _folders, "wds": _shards, "hf": _table}


def _memory(kind: str) -> float:
    """Return what this process holds, VmRSS or RssAnon, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def _measure(place: str, side: int) -> None:
    datasets.disable_progress_bars()
    load_data("garments")  # libraries, once
    before, started = _memory("VmRSS"), time.perf_counter()
    data = load_data(DataConfig(data=place, image_size=side))
    loaded = time.perf_counter()
    for batch in np.random.default_rng(0).permutation(len(data)).reshape(-1, 100):
        data.images(batch)
    read = time.perf_counter()
    data.sha256()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    own = _memory("RssAnon")
    print(
        f"{len(data):>8} {loaded - started:>8.2f} {len(data) / (read - loaded):>9.0f} "
        f"{before:>8.0f} {most:>8.0f} {own:>8.0f}"
    )


def main() -> None:
    """Make what is not there, and measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 50_000])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--measure", help="a place, for the processes that this one starts")
    given = parser.parse_args()
    if given.measure:
        _measure(given.measure, given.side)
        return
    print("layout    images   load s  images/s  start MiB most MiB  own MiB")
    for name, make in LAYOUTS.items():
        for count in given.images:
            root = given.out / f"{name}-{count}-{given.side}"
            done = root / "done"
            if not done.exists():
                root.mkdir(parents=True, exist_ok=True)
                done.write_text(make(root / "set", count, given.side), encoding="utf-8")
            command = [sys.executable, __file__, str(given.out), "--side", str(given.side)]
            command += ["--measure", done.read_text(encoding="utf-8")]
            print(f"{name:<8}", end=" ", flush=True)
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
