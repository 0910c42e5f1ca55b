"""What must not change between versions: `golden.json` against what this code makes now.

An entry holds up to three things: `exact` (integers, order, bytes of uint8, names, addresses), the
same everywhere; `near` (a few numbers of float arrays), the same within a tolerance; `bytes`
(SHA-256 of float arrays and files), compared on the kind of machine that wrote the file alone.

To renew it: `python tests/test_golden.py`, which prints the entries that changed.
"""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clarep import DataConfig, load_data, load_teacher
from clarep.cli.main import main
from clarep.errors import ClarepWarning

PATH = Path(__file__).with_name("golden.json")
GOLDEN: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {"entries": {}}
ENTRIES: dict[str, dict[str, Any]] = GOLDEN["entries"]
RECIPES = Path(__file__).parents[1] / "recipes"

DATA = "--data {home}/garments.npz"
TEACHER = "--teacher backdrops-biased --control-images 0"
TRAIN = "--train.epochs 2 --train.batch-size 60 --train.learning-rate 0.02"
SUITE = (
    "--data backdrops --images 20 --attack-images 40 --corruption-images 10 --focus-images 10 "
    "--severities 3 --flip-backdrops 2 --eps-255 1 --eps-l2 0.2 --apgd-steps 5 "
    "--check-images 10"
)
FLOAT_TEXTS = ("note", "untrustworthy", "verdict")
"""Columns of a CSV whose words follow from floats."""
UNSTABLE = re.compile(r"tsne_|pca_|seconds|^training$|^evaluation$|^p$|^p_holm$")
"""Columns that last digits turn over (a sign, an embedding, a test), and times."""

Entry = dict[str, dict[str, Any]]


def machine() -> dict[str, str]:
    """What the last digits of floats depend on."""
    cpu = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else None
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": platform.processor() if model is None else model[1],
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def of_array(array: np.ndarray) -> str:
    return sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())


def numbers(array: np.ndarray) -> dict[str, Any]:
    """A few numbers that tell an array from another; of yes and no, the share of yes."""
    flat = array.astype(np.float64).ravel()
    if np.isin(flat, (0, 1)).all():
        return {"share": rounded(flat.mean()), "of": len(flat)}
    root_mean_square = rounded(np.sqrt((flat**2).mean()))
    entries = [rounded(flat[i]) for i in (0, len(flat) // 2, len(flat) - 1)]
    return {"mean": rounded(flat.mean()), "rms": root_mean_square, "entries": entries}


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def floats(arrays: dict[str, np.ndarray]) -> Entry:
    return {
        "near": {key: numbers(array) for key, array in arrays.items()},
        "bytes": {key: of_array(array) for key, array in arrays.items()},
    }


def run(command: str, home: Path) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("default", ClarepWarning)  # a stored setting that keeps no class
        assert main([word.format(home=home) for word in command.split()]) == 0
    return said.getvalue()


def bundled(home: Path) -> dict[str, Entry]:
    paths = sorted(Path(str(files("clarep"))).rglob("assets/*.*"))
    paths += Path(str(files("clarep_weights"))).glob("*.safetensors")
    kept = [path for path in paths if path.suffix in (".npz", ".safetensors")]
    found = {f"bundled/{path.name}": sha256(path.read_bytes()) for path in kept}
    for name in ("backdrops", "backdrops-biased", "cifar10"):
        found[f"fingerprint/{name}"] = load_teacher(name).fingerprint
    return {name: {"exact": {"sha256": value}} for name, value in found.items()}


def data(home: Path) -> dict[str, Entry]:
    """The demo's garments, twenty a class: written to {home}, for all that follow."""
    arrays = {}
    for split, count in (("train", 20), ("test", 2)):
        images = load_data(DataConfig(correlation=0.9, split=split))
        chosen = [np.flatnonzero(images.labels == c)[:count] for c in range(10)]
        arrays[f"x_{split}"] = images.images(np.concatenate(chosen)).permute(0, 2, 3, 1).numpy()
        arrays[f"y_{split}"] = images.labels[np.concatenate(chosen)]
    arrays["classes"] = np.array(images.class_names)
    np.savez(home / "garments.npz", **arrays)
    return {f"data/{key}": {"exact": {"sha256": of_array(a)}} for key, a in arrays.items()}


def corrupted(home: Path) -> dict[str, Entry]:
    from clarep.robustness.corruptions.by_name import CORRUPTIONS, corrupt

    images = torch.from_numpy(np.load(home / "garments.npz")["x_test"][::5]).permute(0, 3, 1, 2)
    found = {name: corrupt(images, name, 3, seed=0).numpy() for name in CORRUPTIONS}
    return {f"corrupted/{n}": {"exact": {"sha256": of_array(a)}} for n, a in found.items()}


def addresses(home: Path) -> dict[str, Entry]:
    """Where studies keep what all methods need, planned and not built."""
    found = {}
    for recipe, place in (("demo", "demo"), ("rivals", RECIPES / "rivals.toml")):
        said = run(f"run {place} --dry-run --out {{home}}/study", home)
        for name, address in re.findall(r"/(?:store|runs)/(\S+)-([0-9a-f]+)$", said, re.MULTILINE):
            if not re.search("-seed[1-9]$", name):
                found[f"address/{recipe}/{name}"] = {"exact": {"address": address}}
    return found


def canonical(home: Path) -> dict[str, Entry]:
    """A set of the demo's teacher, images and settings, an image a class."""
    run(f"identify --correlation 0.9 --fraction 0.002 {TEACHER} --out {{home}}/demo", home)
    folder = home / "demo" / "canon"
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = sorted(folder.glob("shard-*.safetensors"))
    tensors = [load_file(path) for path in shards]
    arrays = {key: np.concatenate([t[key] for t in tensors]) for key in tensors[0]}
    order = {key: arrays.pop(key).tolist() for key in ("index", "label")}
    config = {key: manifest["config"][key] for key in ("teacher_sha256", "data_sha256", "num_dirs")}
    cost = {key: manifest["cost"][key] for key in ("denoiser_evaluations", "jacobian_products")}
    return {
        "canonical/order": {"exact": order},
        "canonical/config": {"exact": config},
        "canonical/cost": {"bytes": cost},
        "canonical/files": {"bytes": {path.name: sha256(path.read_bytes()) for path in shards}},
        **{f"canonical/{key}": floats({key: array}) for key, array in arrays.items()},
    }


def students(home: Path) -> dict[str, Entry]:
    run(f"identify {DATA} {TEACHER} --fraction 0.1 --k 8 --steps 4 --out {{home}}/c", home)
    run(f"distill {DATA} --method vanilla {TRAIN} --out {{home}}/v", home)
    run(f"distill {DATA} --canon {{home}}/c/canon {TRAIN} --out {{home}}/w", home)
    found: dict[str, Entry] = {}
    for name, run_name in (("vanilla", "v"), ("cadistill", "w")):
        folder = home / run_name / "student"
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        losses = {key: np.array([e["train"][key] for e in history]) for key in history[0]["train"]}
        held_out = json.loads((folder / "held_out.json").read_text())
        weights = folder / "student.safetensors"
        tensors = {key: t for key, t in load_file(weights).items() if t.dtype.kind == "f"}
        together = np.concatenate([tensors[key].ravel() for key in sorted(tensors)])
        found[f"student/{name}/held_out"] = {"exact": {"index": held_out["index"]}}
        found[f"student/{name}/losses"] = floats(losses)
        found[f"student/{name}/weights"] = floats({"all": together, "head": tensors["head.weight"]})
        found[f"student/{name}/file"] = {"bytes": {"sha256": sha256(weights.read_bytes())}}
    return found


def evaluation(home: Path) -> dict[str, Entry]:
    run(f"evaluate {{home}}/v {SUITE} --ood noise-backdrops", home)
    run(f"evaluate {{home}}/w {SUITE} --reference {{home}}/v --baseline {{home}}/v", home)
    folder = home / "w" / "robustness"
    measured = json.loads((folder / "evaluation.json").read_text())["measurements"]
    found: dict[str, Entry] = {
        "evaluation/keys": {"exact": {"keys": [m["key"] for m in measured]}},
        "evaluation/images": {
            "exact": {m["key"]: m["images"] for m in measured if "flipped" not in m["key"]}
        },
    }
    for key, array in sorted(load_file(folder / "arrays.safetensors").items()):
        entry = found.setdefault(f"evaluation/{key.split('/')[0]}", {})
        new = floats({key: array})
        if "flipped" in key or key.endswith("predicted"):  # follows from what the student says
            del new["near"]
        elif array.dtype.kind in "uib":
            new = {"exact": new["bytes"]}
        for kind, values in new.items():
            entry.setdefault(kind, {}).update(values)
    return found


def of_csv(path: Path, home: Path) -> Entry:
    """Columns of a report's table; seconds differ, and a canonical set's hash knows its path."""
    rows = list(csv.DictReader(io.StringIO(path.read_text().replace(str(home), "HOME"))))
    entry: Entry = {"exact": {"columns": list(rows[0])}, "near": {}, "bytes": {}}
    for column in rows[0]:
        texts = [row[column] for row in rows]
        try:
            values = np.array([float(text) for text in texts if text])
        except ValueError:
            is_exact = column not in FLOAT_TEXTS and "sha256" not in column
            if is_exact:
                entry["exact"][column] = list(dict.fromkeys(texts))
        else:
            if len(values) and not UNSTABLE.search(column):
                entry["near"][column] = numbers(values)
        if not path.name.startswith("cost") and column != "canonical sha256":
            entry["bytes"][column] = sha256("\n".join(texts).encode())
    return entry


def report(home: Path) -> dict[str, Entry]:
    run("report {home}/v {home}/w --canon {home}/c --out {home}/r", home)
    run("compare {home}/v {home}/w --out {home}/x", home)
    found = {f"comparison/{p.name}": of_csv(p, home) for p in sorted((home / "x").glob("*.csv"))}
    for path in sorted((home / "r").rglob("*.csv")):
        found[f"report/{path.name}"] = of_csv(path, home)
    return found


STAGES: tuple[Callable[[Path], dict[str, Entry]], ...] = (
    *(bundled, data, corrupted, addresses, canonical, students, evaluation, report),
)


def made(home: Path) -> dict[str, Any]:
    """All entries as this code makes them, and what went wrong with a stage that gave none."""
    threads, found, wrong = torch.get_num_threads(), dict[str, Entry](), ""
    torch.set_num_threads(1)
    try:
        for stage in STAGES:
            try:
                found |= stage(home)
            except Exception:
                wrong += f"{stage.__name__}: {traceback.format_exc()}\n"
    finally:
        torch.set_num_threads(threads)
    return {"machine": machine(), "entries": found, "wrong": wrong}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What `made` gives; processes of one test run share it."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    stored, home = folder / "golden-found.json", folder / "golden"
    with (folder / "golden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stored.exists():
            home.mkdir()
            stored.write_text(json.dumps(made(home)))
    yield json.loads(stored.read_text())


def having(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [n for n, entry in ENTRIES.items() if kind in entry])


def part(found: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    assert name in found["entries"], found["wrong"] or f"{name} is not made any more"
    return found["entries"][name].get(kind, {})


def is_near(found: dict[str, Any], stored: dict[str, Any], tolerance: float) -> bool:
    """The tolerance is in root mean squares; one in ten yeses or noes, or one, may turn over."""
    if found.keys() != stored.keys():
        return False
    if "of" in stored:
        allowed = max(1, stored["of"] // 10) / stored["of"] + 1e-5
        return found["of"] == stored["of"] and abs(found["share"] - stored["share"]) <= allowed
    allowed = tolerance * stored["rms"] + 1e-6
    entries = np.allclose(found["entries"], stored["entries"], rtol=0, atol=5 * allowed)
    return bool(entries) and all(abs(found[k] - stored[k]) <= allowed for k in ("mean", "rms"))


@having("exact")
def test_exact(name: str, found: dict[str, Any]) -> None:
    assert part(found, name, "exact") == ENTRIES[name]["exact"]


@having("near")
def test_near(name: str, found: dict[str, Any]) -> None:
    here, stored = part(found, name, "near"), ENTRIES[name]["near"]
    assert here.keys() == stored.keys()
    # A student's first steps multiply last digits; CLARID's do not.
    tolerance = 0.002 if name.startswith("canonical/") else 0.05
    assert {k: v for k, v in here.items() if not is_near(v, stored[k], tolerance)} == {}


@having("bytes")
def test_bytes(name: str, found: dict[str, Any]) -> None:
    here, stored = part(found, name, "bytes"), ENTRIES[name]["bytes"]
    assert here.keys() == stored.keys()
    if found["machine"] != GOLDEN["machine"]:
        pytest.skip(f"golden.json was written on {GOLDEN['machine']}, this is {found['machine']}")
    assert here == stored


def test_every_entry_is_in_the_file(found: dict[str, Any]) -> None:
    assert set(found["entries"]) - set(ENTRIES) == set()
    assert not found["wrong"], found["wrong"]


def renew() -> None:
    with tempfile.TemporaryDirectory() as folder:
        new = made(Path(folder))
    assert not new["wrong"], new["wrong"]
    entries = new["entries"]
    for name in sorted({*entries, *ENTRIES}):
        if name not in entries or name not in ENTRIES:
            print("gone" if name in ENTRIES else "new", name)
        elif entries[name] != ENTRIES[name]:
            print("changed", name)
    lines = (f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries))
    text = f'{{"machine": {json.dumps(new["machine"])},\n"entries": {{\n'
    PATH.write_text(text + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    renew()
