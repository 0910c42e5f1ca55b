"""`clarep verify` of all that clarep writes: whole it is silent, damaged it names the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.clarid.canonical_set import MANIFEST
from clarep.clarid.canonical_shards import entry_name
from clarep.cli.main import main
from clarep.engine.artefacts import read_json, sha256_file, write_json
from clarep.engine.tensors import save_tensors
from set_of_seven import CHOSEN, CONFIG, SHARDS, rep_of, shard_bytes, write

QUICK = "--train.epochs 1 --train.batch-size 16 --train.validation-share 0.25"
COMMANDS = {
    "teacher": "train-teacher --data {data} --train.steps 2 --train.batch-size 4 "
    "--train.unet.widths 8 16 --train.unet.embed-dim 16",
    "set": "identify --data {data} --teacher {teacher} --fraction 0.25 --k 2 --steps 2 "
    "--shard-size 5 --control-images 0",
    "asked": "audit --data {data} --teacher {teacher} --draws 1 --mask-draws 0 --target-share 0",
    "run": "distill --method vanilla --data {data} " + QUICK,
    "measured": "evaluate {home}/run --data {data} --groups clean",
}


@pytest.fixture(scope="module")
def home(garments_path: Path, tiny_teacher_path: Path, tmp_path_factory) -> Path:
    """A folder with one of each kind, and a recipe."""
    home = tmp_path_factory.mktemp("all") / "all"
    for name, command in COMMANDS.items():
        given = command.format(data=garments_path, teacher=tiny_teacher_path, home=home)
        assert main([*given.split(), "--out", str(home / name)]) == 0, name
    (home / "mine.toml").write_text('methods = ["vanilla"]\n[train]\nepochs = 2\n')
    return home


@pytest.fixture
def copied(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(home, tmp_path / "all")
    return tmp_path / "all"


def verify(capsys, *arguments: object) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["verify", *map(str, arguments)])
    return code, capsys.readouterr().out.splitlines()


def test_what_is_whole_is_silent(home, capsys, garments_path):
    code, lines = verify(capsys, home)
    assert (code, len(lines)) == (0, 1), lines
    code, lines = verify(capsys, home, "--data", garments_path, "--json")
    told = json.loads("\n".join(lines))
    assert code == 0 and told["faults"] == [] and told["done"] == []
    kinds = {"canonical sets": 1, "audits": 1, "evaluations": 2, "trainings": 2}
    assert told["checked"].items() >= kinds.items()


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip])
def test_every_file_that_is_damaged_is_named(home, copied, capsys, damage):
    """All that clarep reads again, one after the other; a flipped bit where a hash guards it."""
    kinds = {".json", ".toml", ".safetensors", ".pt", ".jsonl"}
    files = [path for path in sorted(home.rglob("*")) if path.suffix in kinds]
    assert len(files) > 15
    unguarded = {"mine.toml", "measures.json"} if damage is flip else set()
    silent = []
    for whole in files:
        relative = whole.relative_to(home)
        if whole.name in unguarded or (damage is flip and "report" in relative.parts):
            continue
        target = copied / relative
        damage(target)
        code, lines = verify(capsys, copied / relative.parts[0])
        named = [line for line in lines if str(target) in line or str(target.parent) in line]
        if code != 1 or not named:
            silent.append((str(relative), code, lines))
        shutil.copy(whole, target)
    assert silent == []


def test_repair_drops_what_is_broken_and_the_next_run_makes_just_that(
    home, copied, capsys, garments_path, tiny_teacher_path
):
    places = {"data": garments_path, "teacher": tiny_teacher_path, "home": copied}
    shard = copied / "set/canon/shard-00001.safetensors"
    student = copied / "run/student/student.safetensors"
    for path in (shard, student, copied / "measured/parts/clean/arrays.safetensors"):
        flip(path)
    cut(copied / "set/canon/manifest.json")
    kept = (copied / "set/canon/shard-00000.safetensors").stat().st_mtime_ns
    code, lines = verify(capsys, copied, "--repair")
    assert code == 0 and any(line.startswith(f"dropped {shard}") for line in lines), lines
    assert "nothing left" in lines[-1]
    assert not shard.exists() and not student.exists()
    assert verify(capsys, copied / "run")[0] == 0  # its checkpoint is whole
    code, lines = verify(capsys, copied / "set")
    assert code == 1 and "incomplete (5 of 10 images)" in lines[0]
    for name in ("set", "run", "measured"):
        command = COMMANDS[name].format(**places)
        assert main([*command.split(), "--out", str(copied / name)]) == 0
    code, lines = verify(capsys, copied)
    assert code == 0, lines
    assert (copied / "set/canon/shard-00000.safetensors").stat().st_mtime_ns == kept
    for path in ("set/canon/shard-00001.safetensors", "run/student/student.safetensors"):
        assert sha256_file(copied / path) == sha256_file(home / path)


def edit(path: Path, change) -> None:
    content = read_json(path)
    change(content)
    write_json(path, content, sealed=True)


def test_a_figure_outside_its_interval(copied, capsys):
    folder = copied / "measured"
    edit(folder / "evaluation.json", lambda e: e["measurements"][0].update(value=0.99999))
    code, lines = verify(capsys, folder)
    assert code == 1 and "outside its interval" in lines[0]
    whole = read_json(folder / "parts/clean/evaluation.json")["measurements"]
    edit(folder / "evaluation.json", lambda e: e.update(measurements=[whole[0], whole[0]]))
    assert "is in it twice" in verify(capsys, folder)[1][0]


def test_an_evaluation_of_another_student(home, copied, capsys):
    shutil.copytree(copied / "measured", copied / "run/robustness")
    assert verify(capsys, copied / "run")[0] == 0
    edit(
        copied / "run/robustness/evaluation.json", lambda e: e["config"].update(student_sha256="x")
    )
    code, lines = verify(capsys, copied / "run")
    assert code == 1 and "of another student" in lines[0]


def test_other_data_than_it_was_made_of(home, tmp_path, capsys, garments_path):
    arrays = dict(np.load(garments_path))
    arrays["x_train"] = 255 - arrays["x_train"]
    np.savez(tmp_path / "other.npz", **arrays)
    code, lines = verify(capsys, home, "--data", tmp_path / "other.npz")
    told = [line for line in lines if "other images or labels" in line]
    assert code == 1 and len(told) == 4  # set, audit, both trainings


def test_data_are_read_with_the_options_that_they_were_made_with(tmp_path, capsys):
    from clarep.data.load import DataConfig, load_data

    given = DataConfig(data="backdrops", split="test", correlation=0.5)
    told = {"chosen": CHOSEN, "data_sha256": load_data(given).sha256(CHOSEN)}
    write(tmp_path, config=CONFIG | told)
    options = ["--data", "backdrops", "--split", "test"]
    assert verify(capsys, tmp_path, *options, "--correlation", 0.5)[0] == 0
    assert verify(capsys, tmp_path, *options)[0] == 1


@pytest.fixture
def canon(tmp_path: Path) -> Path:
    write(tmp_path / "canon", config=CONFIG | {"chosen": CHOSEN})
    return tmp_path / "canon"


def rewrite(folder: Path, number: int, **tensors: torch.Tensor) -> None:
    """Replace tensors of a shard, and write in the manifest what it is now."""
    from clarep.clarid.canonical_shards import read_shard, write_shard
    from clarep.engine.places import Folder

    about, found = read_shard(Folder(folder), SHARDS[number])
    found = {name: tensor.clone() for name, tensor in found.items()} | tensors
    kept = {key: about[key] for key in ("format", "config", "images")}
    entry = write_shard(Folder(folder), SHARDS[number], kept, found, {})
    edit(folder / MANIFEST, lambda manifest: manifest["shards"][number].update(entry))
    (folder / entry_name(SHARDS[number])).unlink()


def test_a_set_of_its_own(canon, capsys):
    assert verify(capsys, canon)[0] == 0
    rewrite(canon, 0, latent=torch.full((3, 3, 4, 4), torch.nan))
    code, lines = verify(capsys, canon)
    assert code == 1 and "latent hold NaN" in lines[0]
    reps = [rep_of(index) for index in (3, 5, 8)]
    rewrite(canon, 0, **{"latent": torch.cat([rep.latent for rep in reps])})
    assert verify(capsys, canon)[0] == 0
    rewrite(canon, 0, index=torch.tensor([3, 5, 13]))
    assert "[13] are in it twice" in " ".join(verify(capsys, canon)[1])
    rewrite(canon, 0, index=torch.tensor([5, 3, 8]))
    assert "not in the order" in " ".join(verify(capsys, canon)[1])
    rewrite(canon, 0, index=torch.tensor([3, 5, 9]))
    assert "not chosen" in " ".join(verify(capsys, canon)[1])
    edit(canon / MANIFEST, lambda m: m["shards"][1]["ranges"].update(sample=[0.0, 1.0]))
    assert "not in the ranges" in " ".join(verify(capsys, canon)[1])


def test_a_set_that_is_not_closed(tmp_path, capsys, monkeypatch):
    from clarep.clarid.canonical_set import CanonicalSetWriter

    monkeypatch.setattr(CanonicalSetWriter, "finish", lambda self: False)
    write(tmp_path / "canon")
    code, lines = verify(capsys, tmp_path)
    assert code == 1 and "not closed: give --finish" in lines[0]
    assert verify(capsys, tmp_path, "--finish")[0] == 0
    assert sorted(path.name for path in (tmp_path / "canon").iterdir()) == [MANIFEST, *SHARDS]
    write(tmp_path / "other", shards=2)
    code, lines = verify(capsys, tmp_path / "other", "--finish")
    assert code == 1 and "incomplete (6 of 7 images)" in lines[0] and len(lines) == 2


def test_repair_of_shards_that_no_entry_tells_of(tmp_path, capsys):
    write(tmp_path / "whole")
    write(tmp_path / "canon", shards=2)
    (tmp_path / "canon" / SHARDS[2]).write_bytes(b"half a sha")
    cut(tmp_path / "canon" / SHARDS[0])
    (tmp_path / "canon/shard-notes.txt").write_text("a user's own")
    code, lines = verify(capsys, tmp_path / "canon", "--repair")
    assert code == 0 and len([line for line in lines if line.startswith("dropped")]) == 3
    assert verify(capsys, tmp_path / "canon")[0] == 1  # incomplete
    assert verify(capsys, tmp_path / "canon", "--repair")[0] == 0  # which the same command goes on
    assert set(shard_bytes(tmp_path / "canon")) == {SHARDS[1]}
    assert (tmp_path / "canon/shard-notes.txt").exists()
    assert write(tmp_path / "canon") == [SHARDS[0], SHARDS[2]]
    assert shard_bytes(tmp_path / "canon") == shard_bytes(tmp_path / "whole")
    assert verify(capsys, tmp_path)[0] == 0


def test_repair_of_a_shard_that_is_gone(canon, capsys):
    (canon / SHARDS[1]).unlink()
    assert verify(capsys, canon, "--repair")[0] == 0  # what is left is merely not there yet
    assert write(canon, config=CONFIG | {"chosen": CHOSEN}) == [SHARDS[1]]


def test_what_is_nothing_of_clareps(tmp_path, capsys):
    for path in (tmp_path, tmp_path / "nowhere"):
        assert main(["verify", str(path)]) == 2
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)})
    assert verify(capsys, tmp_path / "x.safetensors")[0] == 0
    flip(tmp_path / "x.safetensors")
    assert verify(capsys, tmp_path)[0] == 1


def test_repair_deletes_nothing_of_others(tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes(b"a user's own")
    (tmp_path / "evaluation.json").write_text('{"accuracy": 0.9}')
    (tmp_path / "lines.json").write_text('{"a": 1}\n{"a": 2}\n')
    (tmp_path / "foreign.safetensors").write_bytes(b"\x10" + bytes(7) + b'{"a": "cut short')
    theirs = sorted(tmp_path.iterdir())
    save_tensors(tmp_path / "own.safetensors", {"a": torch.zeros(3)})
    write_json(tmp_path / "own.json", {"a": 1234}, sealed=True)
    (tmp_path / "own.json").write_text((tmp_path / "own.json").read_text().replace("1234", "2"))
    flip_last(tmp_path / "own.safetensors")
    code, lines = verify(capsys, tmp_path, "--repair")
    assert code == 1 and len([line for line in lines if line.startswith("dropped")]) == 2
    assert sorted(tmp_path.iterdir()) == theirs
    assert all(any(str(path) in line for line in lines) for path in theirs), lines
    assert all(str(path) in lines[-1] for path in theirs if path.suffix != ".pt"), lines
    code, lines = verify(capsys, tmp_path, "--repair", "--json")
    told = json.loads("\n".join(lines))
    assert code == 1 and told["left"] == told["faults"] and told["done"] == []


def test_repair_that_leaves_nothing(tmp_path, capsys):
    """A single file of clarep's, damaged: once it is dropped nothing is wrong."""
    path = tmp_path / "own.safetensors"
    save_tensors(path, {"a": torch.zeros(3)})
    flip_last(path)
    assert verify(capsys, path)[0] == 1
    code, lines = verify(capsys, path, "--repair", "--json")
    told = json.loads("\n".join(lines))
    assert code == 0 and told["left"] == [] and told["done"] == [f"dropped {path}"]
    assert not path.exists()


def flip_last(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_set_under_an_address(capsys):
    pytest.importorskip("fsspec")
    from clarep.engine.places import place_of

    write("memory://verified/canon")
    assert verify(capsys, "memory://verified/canon")[0] == 0
    place_of("memory://verified/canon").write(SHARDS[1], b"half")
    code, lines = verify(capsys, "memory://verified/canon", "--repair")
    assert code == 0 and "dropped memory://verified/canon/shard-00001" in lines[1]
    assert write("memory://verified/canon") == [SHARDS[1]]
    assert verify(capsys, "memory://verified/canon")[0] == 0
    assert main(["verify", "memory://verified/nothing"]) == 2
