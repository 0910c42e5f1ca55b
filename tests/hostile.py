"""What clarep reads of a user's files, fed with bytes that a fuzzer makes of whole ones.

`tests/test_hostile_input.py` feeds a seeded 10,000, tools/fuzz.py as many as one likes.
"""

import hashlib
import importlib.util
import io
import json
import os
import pickle
import re
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.identify import identify_steps
from clarep.data.cifar_batch import records
from clarep.data.decode_image import decode_image, upright_size
from clarep.data.files import read_classes_file
from clarep.data.labelled import LabelledImages
from clarep.data.npy_files import read_npy
from clarep.data.npz import load_npz
from clarep.data.shards import load_shards
from clarep.engine.artefacts import seal
from clarep.engine.tensors import read_tensors
from clarep.engine.training_folder import read_records
from clarep.errors import UserError
from clarep.robustness.evaluation import Evaluation, Measurement
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, load_student, save_student
from clarep.study.recipe import load_recipe
from clarep.teachers.checkpoint_files import read_weights
from clarep.teachers.families.edm_convert import read_pickle
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet
from clarep.teachers.zoo import load_teacher

SIDE, NAMES = 8, ("a", "b", "c")


@dataclass(frozen=True)
class Target:
    """A reader, whole inputs for it, and what is done to an input before it is read."""

    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    """Takes the file; returns whatever it holds, or raises UserError."""
    path: Path
    """Where the bytes are put, beside whatever else the reader needs."""
    mend: Callable[[bytes], bytes] = lambda content: content
    """Makes checksums right, as who forges a file does."""
    share: float = 1
    """How many of the inputs it takes, beside others."""


# What a reader does -----------------------------------------------------------------------------

_FORBIDDEN = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork"),
    *("subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "ctypes.dlopen"),
    *("os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod", "shutil.rmtree"),
}
_watching: list[list[str]] = []
"""What was seen, in each of the blocks that are entered."""


def _watch(event: str, arguments: Any) -> None:
    if not _watching:
        return
    if event in _FORBIDDEN:
        _watching[-1].append(f"{event} {arguments!r}"[:300])
    elif event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if flags else 0
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            _watching[-1].append(f"writes {path!r}")


sys.addaudithook(_watch)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Yield what is done within the block that no reader may do: it stays empty."""
    done = list[str]()
    _watching.append(done)
    try:
        yield done
    finally:
        _watching.pop()


def feed(target: Target, content: bytes) -> bool:
    """Let a target read bytes; True if it took them. AssertionError if it did what it may not."""
    target.path.write_bytes(target.mend(content))
    taken = True
    with watched() as done, warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            target.read(target.path)
        except UserError as error:
            taken = False
            text = str(error)
            assert text and len(text) < 5_000, text[:300]
    assert not done, done
    return taken


# What is made of whole inputs --------------------------------------------------------------------

_TOKENS = (
    *(b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b'"x"', b'"../../x"', b"[]", b"{}"),
    *(b"1" + b"0" * 30, b"9" * 5000, b'"\\u0000"', b'"\\ud800"', b"4294967296", b"0.5", b"-0.0"),
    *(b"[" * 200 + b"]" * 200, b"1979-05-27", b'{"a": 1}', b"[[1]]", b"2147483647", b'""'),
)
_NUMBERS = (b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
Edit = tuple[int, int, bytes]
"""Where, what, and bytes for it."""


def edited(seed: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a seed after edits, each a place, a kind and bytes."""
    content = bytearray(seed)
    for place, kind, given in edits:
        at = place % (len(content) + 1)
        match kind % 8:
            case 0:
                content[at : at + len(given)] = given
            case 1:
                content[at:at] = given * (1 + place % 50)
            case 2:
                del content[at : at + 1 + place % 40]
            case 3:
                content[at:at] = content[at : at + 1 + place % 200]
            case 4:
                del content[at:]
            case 5:
                number = _NUMBERS[place % len(_NUMBERS)]
                content[at : at + len(number)] = number
            case 6 | 7:  # a value of a text becomes another
                values = [*re.finditer(rb'-?\b[0-9][0-9.e+-]*|"[^"\\]*"|\[[^\[\]]*\]', content)]
                if values:
                    found = values[place % len(values)]
                    token = _TOKENS[sum(given) % len(_TOKENS)]
                    content[found.start() : found.end()] = token
    return bytes(content)


def resealed(content: bytes) -> bytes:
    """Return JSON with the hash of its content made right, where there is one."""
    try:
        value = json.loads(content)
        sealed = isinstance(value, dict) and value.pop("content_sha256", None) is not None
        return json.dumps(seal(value)).encode() if sealed else content
    except (ValueError, RecursionError):
        return content


def with_digest(content: bytes) -> bytes:
    """Return safetensors with the hash of the data made right, where the header can be read."""
    end = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:end])
        if "data_sha256" in header["__metadata__"]:
            header["__metadata__"]["data_sha256"] = hashlib.sha256(content[end:]).hexdigest()
        text = json.dumps(header).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return content
    return len(text).to_bytes(8, "little") + text + content[end:]


def header_of(content: bytes) -> bytes:
    """Return the header of safetensors."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def under_header(whole: bytes) -> Callable[[bytes], bytes]:
    """Return what puts a header before the data of a whole file."""
    data = whole[8 + len(header_of(whole)) :]
    return lambda text: with_digest(len(text).to_bytes(8, "little") + text + data)


def with_crc(content: bytes) -> bytes:
    """Return a PNG whose chunks have right checksums; all else as it is."""
    mended, at = bytearray(content), 8
    while content[:4] == b"\x89PNG" and at + 12 <= len(content):
        end = at + 8 + struct.unpack(">I", content[at : at + 4])[0]
        if end + 4 > len(content):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(content[at + 4 : end]))
        at = end + 4
    return bytes(mended)


def with_checksums(content: bytes) -> bytes:
    """Return a tar file whose headers have right checksums."""
    mended = bytearray(content)
    for at in range(0, len(content) - 511, 512):
        if content[at + 257 : at + 262] == b"ustar":
            mended[at + 148 : at + 156] = b" " * 8
            mended[at + 148 : at + 156] = b"%06o\0 " % sum(mended[at : at + 512])
    return bytes(mended)


def as_member(name: str) -> Callable[[bytes], bytes]:
    """Return what makes an .npz of an array's bytes, with two labels beside it."""

    def archive(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as zipped:
            zipped.writestr(f"{name}.npy", content)
            if name != "y":
                zipped.writestr("y.npy", npy(np.array([0, 1])))
            if name != "x":
                zipped.writestr("x.npy", npy(np.zeros((2, 4, 4, 3), np.uint8)))
        return buffer.getvalue()

    return archive


# Whole inputs -------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    """Return an array as np.save writes it."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def images() -> dict[str, bytes]:
    """Return an image in every format that Pillow writes."""
    Image.init()
    rng, found = np.random.default_rng(0), {}
    picture = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    for kind in sorted(Image.SAVE):
        for mode in ("RGB", "L", "1", "P"):
            buffer = io.BytesIO()
            try:
                picture.convert(mode).save(buffer, kind)
            except Exception:  # a stub, a handler that is not there, or another mode is wanted
                continue
            found[kind] = buffer.getvalue()
            break
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (
        ("PNG interlaced", {"format": "PNG", "exif": exif}),
        ("JPEG turned", {"format": "JPEG", "exif": exif}),
        ("TIFF packed", {"format": "TIFF", "compression": "tiff_lzw"}),
        ("TIFF jpeg", {"format": "TIFF", "compression": "jpeg"}),
        ("WEBP lossless", {"format": "WEBP", "lossless": True}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, **options)
        found[name] = buffer.getvalue()
    grey = Image.fromarray(rng.integers(0, 60_000, (7, 9)).astype(np.uint16))
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        grey.save(buffer, kind)
        found[f"{kind} 16"] = buffer.getvalue()
    return found


class _Runs:
    def __reduce__(self):
        return os.system, ("true",)


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(3):
            for ending, content in (("png", images()["PNG"]), ("cls", b"%d" % i)):
                info = tarfile.TarInfo(f"{'x' * 120 if i else ''}{i}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _teacher(path: Path) -> Path:
    torch.manual_seed(0)
    net = UNet(UNetConfig(image_size=SIDE, num_classes=3, widths=(8,), embed_dim=8))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.1)
    save_unet(net, path, NAMES, 0.01, 80.0)
    return path


def _canon(folder: Path, teacher: Path) -> Path:
    x = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    data = LabelledImages("x", np.array([0, 1, 2, 0]), NAMES, list("abcd"), lambda i: x[i])
    solver = Clarid(load_teacher(str(teacher)), ClaridConfig(k=1, steps=1, t=0.5, tolerance=0.9))
    for _ in identify_steps(solver, data, folder, np.arange(4), shard_size=2):
        pass
    return folder


def _evaluation(folder: Path) -> Path:
    arrays = {"clean/correct": torch.ones(4)}
    measurements = [
        Measurement("accuracy", 0.5, (0.4, 0.6), 4),
        Measurement("pgd_linf_8", 0.25, (0.1, 0.6), 4, note="weak"),
    ]
    Evaluation({"student": "x", "suite": {"images": 4}}, measurements, arrays).save(folder)
    return folder


def _pickle_of_cifar() -> bytes:
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1], b"batch_label": b"x"}
    return pickle.dumps(batch, protocol=2)


def _torch_file(folder: Path) -> bytes:
    torch.save({"state_dict": {"w": torch.ones(2, 3)}, "epoch": 3}, folder / "seed.pt")
    return (folder / "seed.pt").read_bytes()


def _read_tar(path: Path) -> None:
    data = load_shards(str(path))
    data.images(range(len(data)))


def _read_npz(path: Path) -> None:
    data = load_npz(path)
    data.images([0, len(data) - 1])


def _read_image(path: Path) -> None:
    content = path.read_bytes()
    for read in (decode_image, upright_size):
        read(content, "the image")


def _read_batch(path: Path) -> None:
    """Read as the process of `cifar_batch` does, which makes any error of its reader a refusal."""
    try:
        records(path.read_bytes())
    except Exception as error:
        raise UserError(repr(error)[:300]) from error


def _read_set(path: Path) -> None:
    repr(CanonicalSet.load(path.parent))


def _read_evaluation(path: Path) -> None:
    found = Evaluation.load(path.parent)
    repr(found)
    found.to_rows()


def _forged(path: Path) -> Callable[[bytes], bytes]:
    """Return what makes the hash of a changed shard right, in the manifest too."""
    manifest = path.with_name("manifest.json")
    whole = json.loads(manifest.read_text())

    def forge(content: bytes) -> bytes:
        content = with_digest(content)
        entry = next(one for one in whole["shards"] if one["file"] == path.name)
        entry["sha256"] = hashlib.sha256(content).hexdigest()
        manifest.write_bytes(resealed(json.dumps(whole).encode()))
        return content

    return forge


def targets(root: Path) -> dict[str, Target]:
    """Make whole inputs under a folder; returns every target by name."""
    made = {name: root / name for name in ("canon", "entries", "shards", "student", "beside")}
    teacher = _teacher(root / "teacher.safetensors")
    for name in ("canon", "shards"):
        _canon(made[name], teacher)
    net = build_student(StudentInfo("resnet8-half", NAMES, (3, SIDE, SIDE)))
    for name in ("student", "beside"):
        save_student(net, made[name] / "student.safetensors")
    digest = hashlib.sha256((made["beside"] / "student.safetensors").read_bytes()).hexdigest()
    config = json.dumps({"student_sha256": digest, "train": {"epochs": 2}}).encode()
    evaluation = _evaluation(root / "evaluated") / "evaluation.json"
    weights = (made["student"] / "student.safetensors").read_bytes()
    unet = teacher.read_bytes()
    shard = sorted(made["shards"].glob("shard-*.safetensors"))[0]
    recipes = sorted(Path(__file__).parent.parent.glob("recipes/*.toml"))
    history = b"".join(
        json.dumps(seal({"step": i, "loss": 0.5})).encode() + b"\n" for i in (50, 100)
    )
    small = npy(np.zeros((2, 4, 4, 3), np.uint8))
    whole_npz = as_member("x")(small)
    return {
        "manifest": Target(
            [(made["canon"] / "manifest.json").read_bytes()],
            _read_set,
            made["canon"] / "manifest.json",
            resealed,
            1,
        ),
        "shard": Target([shard.read_bytes()], _read_set, shard, _forged(shard)),
        "safetensors": Target(
            [header_of(weights), header_of(unet)],
            lambda path: read_tensors(path, "tensors"),
            root / "t.safetensors",
            under_header(weights),
            2,
        ),
        "student": Target(
            [header_of(weights)],
            load_student,
            made["student"] / "student.safetensors",
            under_header(weights),
        ),
        "student's bytes": Target(
            [weights], load_student, root / "student.safetensors", with_digest, 0.2
        ),
        "student's config": Target(
            [config],
            lambda path: load_student(path.parent),
            made["beside"] / "config.json",
        ),
        "teacher": Target(
            [header_of(unet)], lambda path: load_teacher(str(path)), teacher, under_header(unet), 2
        ),
        "evaluation": Target([evaluation.read_bytes()], _read_evaluation, evaluation, resealed, 2),
        "recipe": Target([path.read_bytes() for path in recipes], load_recipe, root / "r.toml"),
        "npz": Target([whole_npz], _read_npz, root / "a.npz"),
        "npz's array": Target([small], _read_npz, root / "b.npz", as_member("x")),
        "npz's labels": Target([npy(np.array([0, 1]))], _read_npz, root / "c.npz", as_member("y")),
        "npy": Target([small], read_npy, root / "a.npy"),
        "image": Target(list(images().values()), _read_image, root / "i", with_crc, 8),
        "tar": Target([_tar()], _read_tar, root / "a.tar", with_checksums, 2),
        "cifar": Target([_pickle_of_cifar(), pickle.dumps(_Runs())], _read_batch, root / "c"),
        "torch": Target([_torch_file(root)], read_weights, root / "w.pt"),
        "pickle": Target(_edm(root), read_pickle, root / "p.pkl"),
        "history": Target(
            [history], lambda path: read_records(path.parent, "step"), root / "history.jsonl"
        ),
        "classes": Target(
            [b"n1 cat\nn2  # none\n\xc3\xa9 # x\n"],
            lambda path: read_classes_file(path, ["n1", "n2", "\u00e9"]),
            root / "classes.txt",
        ),
    }


def _edm(root: Path) -> list[bytes]:
    """Return a pickle of a small network as NVlabs leaves it, and one that asks for a call."""
    path = Path(__file__).parent / "teachers" / "edm_pickles.py"
    spec: Any = importlib.util.spec_from_file_location("edm_pickles", path)
    made: Any = importlib.util.module_from_spec(spec)
    sys.modules["edm_pickles"] = made
    spec.loader.exec_module(made)
    layers = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ModuleDict())
    whole = made.dump(root / "seed.pkl", made.snapshot(layers, {"img_resolution": 8}))
    return [whole.read_bytes(), pickle.dumps({"ema": made.touch(root / "ran")})]


def temporary() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder for `targets`."""
    return tempfile.TemporaryDirectory(prefix="clarep-hostile-")
