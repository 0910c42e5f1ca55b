"""The store: what is written comes back, and nothing damaged passes for whole."""

import errno
import json
import os
import subprocess
import sys
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from clarep.clarid import shard_rows
from clarep.clarid.canonical_set import MANIFEST, CanonicalSet, CanonicalSetWriter
from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig
from clarep.cli import main as cli
from clarep.engine.artefacts import atomic_path, read_json, sha256_file, write_json
from clarep.engine.identity import plain, recorded
from clarep.errors import UserError
from set_of_seven import CHOSEN, CONFIG, COST, LABELS, SHARDS, entries, rep_of, shard_bytes, write


@pytest.fixture
def folder(tmp_path):
    assert write(tmp_path / "canon") == SHARDS
    return tmp_path / "canon"


def test_what_is_stored_comes_back(folder):
    canonical = CanonicalSet.load(folder)
    assert len(canonical) == 7
    assert canonical.tensors["index"].tolist() == CHOSEN
    assert canonical.tensors["label"].tolist() == LABELS
    for i, index in enumerate(CHOSEN):
        for name, value in rep_of(index).tensors.items():
            stored = canonical[i].tensors[name]
            assert torch.equal(stored, value) and stored.dtype == value.dtype, name


def test_rows_are_read_when_they_are_asked_for(folder, monkeypatch):
    canonical = CanonicalSet.load(folder)
    assert not {"sample", "features", "x_te", "latent"} & set(vars(canonical))
    opened: list[str] = []
    read = shard_rows.read_shard
    monkeypatch.setattr(
        shard_rows, "read_shard", lambda *given: opened.append(given[1]) or read(*given)
    )
    some = canonical[[6, 0, 2]]
    assert set(opened) == {SHARDS[0], SHARDS[2]}
    for name, value in some.tensors.items():
        wanted = torch.cat([getattr(rep_of(CHOSEN[i]), name) for i in (6, 0, 2)])
        assert torch.equal(value, wanted), name
    assert canonical[[]].sample.shape == (0, 3, 16, 16)
    assert "sample" not in vars(canonical) and some.shards is None
    whole = canonical.sample
    assert canonical.sample is whole and len(whole) == 7
    del opened[:]
    assert torch.equal(canonical[3:5].sample, whole[3:5])
    parts = [torch.cat(of) for of in zip(*canonical.by_shard("index", "sample"), strict=True)]
    assert parts[0].tolist() == CHOSEN and torch.equal(parts[1], whole)
    with pytest.raises(AttributeError, match="no attribute colour"):
        _ = canonical.colour
    assert copy(canonical).index is canonical.index and repr(canonical).startswith("CanonicalSet(7")


def test_a_real_clarid_is_stored(tmp_path, teacher, images, labels):
    reps = Clarid(teacher, sigma=2.0, steps=2, k=5)(images, labels)
    writer = CanonicalSetWriter(tmp_path, CONFIG, [0, 1, 2, 3], shard_size=4)
    [(name, _)] = writer.missing()
    writer.add(name, [reps[:1], reps[1:]], COST)
    assert torch.equal(CanonicalSet.load(tmp_path)[2].latent, reps[2].latent)


def test_no_directions_are_stored_as_none(tmp_path, teacher, images, labels):
    reps = Clarid(teacher, sigma=2.0, steps=2, kind="none")(images, labels)
    writer = CanonicalSetWriter(tmp_path, CONFIG, [0, 1, 2, 3], shard_size=4)
    writer.add(SHARDS[0], [reps], COST)
    assert CanonicalSet.load(str(tmp_path)).tensors["singular_values"].shape == (4, 0)


def test_the_manifest(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["format"] == 2
    assert manifest["complete"] is True
    assert manifest["config"] == CONFIG
    assert manifest["images"] == 7
    assert {"python", "clarep", "torch", "numpy"} <= manifest["shards"][0]["versions"].keys()
    assert manifest["cost"]["denoiser_evaluations"] == 30
    assert manifest["cost"]["seconds"] == {"invert": 4.5}
    assert manifest["cost"]["peak_memory_mb"] == 100
    assert [shard["file"] for shard in manifest["shards"]] == SHARDS
    assert [shard["images"] for shard in manifest["shards"]] == [[3, 5, 8], [13, 21, 34], [55]]
    for shard in manifest["shards"]:
        assert shard["sha256"] == sha256_file(folder / shard["file"])
        reps = [rep_of(i) for i in shard["images"]]
        for field in ("latent", "sample"):
            values = torch.cat([getattr(rep, field) for rep in reps])
            assert shard["ranges"][field] == [float(values.min()), float(values.max())]


def test_the_hash_is_sha256(tmp_path):
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    nothing = tmp_path / "nothing"
    nothing.touch()
    assert sha256_file(nothing) == empty


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (1, [3]),
        (3, [3, 13, 55]),
        (4, [3, 13, 55, 5]),
        (6, [3, 13, 55, 5, 21, 8]),
        (99, [3, 13, 55, 5, 21, 8, 34]),
    ],
)
def test_balanced_takes_the_first_of_each_class_in_turn(folder, count, chosen):
    balanced = CanonicalSet.load(folder).balanced(count)
    assert balanced.tensors["index"].tolist() == chosen
    for i, index in enumerate(chosen):
        assert torch.equal(balanced[i].features, rep_of(index).features)


def test_a_run_that_stopped_goes_on_and_ends_with_the_same_bytes(folder, tmp_path):
    other = tmp_path / "other"
    assert write(other, shards=1) == SHARDS
    with pytest.raises(UserError, match=r"incomplete \(3 of 7 images\): .* goes on"):
        CanonicalSet.load(other)
    assert write(other, shards=1) == SHARDS[1:]
    assert write(other) == SHARDS[2:]
    assert write(other) == []
    assert shard_bytes(other) == shard_bytes(folder)
    assert json.loads((other / MANIFEST).read_text()) == json.loads((folder / MANIFEST).read_text())


def test_a_shard_that_the_manifest_does_not_know_yet_is_written_again(folder, tmp_path):
    """Killed between the shard's renaming and the manifest's."""
    other = tmp_path / "other"
    write(other, shards=1)
    (other / SHARDS[1]).write_bytes(b"another run's")
    assert write(other) == SHARDS[1:]
    assert shard_bytes(other) == shard_bytes(folder)


def test_what_a_kill_left_is_cleared_away(tmp_path):
    write(tmp_path, shards=1)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, 2**62, 2**80, os.getpid()):  # the last two: no id, and an earlier one's
        (tmp_path / f".{SHARDS[1]}.{pid}.tmp").write_bytes(b"half a sha")
    write(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [MANIFEST, *SHARDS]


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    writing = tmp_path / f".{SHARDS[1]}.{os.getppid()}.tmp"
    writing.write_bytes(b"half a sha")
    theirs = tmp_path / ".notes.tmp"
    theirs.write_bytes(b"not of clarep's naming")
    write(tmp_path)
    assert writing.exists()
    assert theirs.exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_shard(folder, damage):
    whole = shard_bytes(folder)
    damage(folder / SHARDS[1])
    for use in (CanonicalSet.load, write):
        with pytest.raises(UserError, match=rf"{SHARDS[1]} is truncated or changed .*delete it"):
            use(folder)
    (folder / SHARDS[1]).unlink()
    assert write(folder) == [SHARDS[1]]
    assert shard_bytes(folder) == whole


def test_a_missing_shard(folder):
    whole = shard_bytes(folder)
    (folder / SHARDS[0]).unlink()
    with pytest.raises(UserError, match=rf"{SHARDS[0]} is missing: run the same"):
        CanonicalSet.load(folder)
    assert write(folder) == [SHARDS[0]]
    assert shard_bytes(folder) == whole
    assert len(CanonicalSet.load(folder)) == 7


def test_a_shard_without_a_tensor(folder):
    from safetensors.torch import save_file

    save_file({"index": torch.zeros(1)}, folder / SHARDS[2])
    edit(
        folder,
        lambda manifest: manifest["shards"][2].update(sha256=sha256_file(folder / SHARDS[2])),
    )
    with pytest.raises(UserError, match=r"lacks \['features', 'label'"):
        CanonicalSet.load(folder)


def test_a_shard_that_is_no_archive(folder):
    (folder / SHARDS[2]).write_bytes(b"nothing of the kind")
    edit(
        folder,
        lambda manifest: manifest["shards"][2].update(sha256=sha256_file(folder / SHARDS[2])),
    )
    with pytest.raises(UserError, match=rf"{SHARDS[2]} cannot be read"):
        CanonicalSet.load(folder)


@pytest.fixture(
    params=[
        Path.unlink,
        truncate,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"format": 2}'),
        lambda path: path.write_text(
            path.read_text().replace('"sigma_te": 2.0', '"sigma_te": 3.0')
        ),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: edit(path.parent, lambda manifest: manifest["shards"][1].pop("images")),
    ]
)
def damage_of_a_manifest(request):
    return request.param


def edit(folder, change):
    manifest = read_json(folder / MANIFEST)
    change(manifest)
    write_json(folder / MANIFEST, manifest, sealed=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"clarid": {"k": 5, "t": 0.5}}, "k: 4 there, 5 now"),
        ({"clarid": {"k": 4, "t": None}}, "t: 0.5 there, null now"),
        ({"chosen": list(range(99))}, "chosen: null there"),
    ],
)
def test_another_configuration_is_refused_by_name(folder, change, words):
    whole = shard_bytes(folder)
    with pytest.raises(UserError, match=rf"another configuration \({words}.*give another `out`"):
        write(folder, config=CONFIG | change)
    assert shard_bytes(folder) == whole


@pytest.mark.parametrize("full_first", [True, False])
def test_a_full_setting_of_an_earlier_version_is_the_same(tmp_path, full_first):
    short = CONFIG | {"clarid": recorded(ClaridConfig(k=4, t=0.5))}
    full = CONFIG | {"clarid": plain(ClaridConfig(k=4, t=0.5, precision="fp32"))}
    stored, given = (full, short) if full_first else (short, full)
    write(tmp_path, shards=1, config=stored)
    assert write(tmp_path, config=given) == SHARDS[1:]
    canonical = CanonicalSet.load(tmp_path)
    assert canonical.manifest["config"] == stored
    assert canonical.setting == full["clarid"] and "kind" not in short["clarid"]


def test_a_configuration_that_stored_nothing_binds_no_one(tmp_path):
    write(tmp_path, shards=0, config=CONFIG | {"seed": 1})
    assert write(tmp_path) == SHARDS
    assert CanonicalSet.load(tmp_path).manifest["config"] == CONFIG


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read .*manifest.json"),
        ('{"format": 2, "complete"', "cannot read .*manifest.json"),
        ("[]", "cannot read .*manifest.json"),
        ("{}", "cannot read .*manifest.json"),
        ('{"format": 2}', "it lacks complete, config, images, shards"),
        ('{"format": 1}', "is of format 1, this clarep reads 2: make the set again"),
        ('{"format": 2, "complete": NaN}', "cannot read .*manifest.json"),
    ],
)
def test_a_manifest_that_cannot_be_used(folder, text, words):
    for name in SHARDS:
        (folder / name).unlink()  # which would tell it
    (folder / MANIFEST).write_text(text)
    for use in (CanonicalSet.load, write):
        with pytest.raises(UserError, match=words):
            use(folder)
    (folder / MANIFEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*manifest.json"):
        CanonicalSet.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": None}, "entry 1 of its shards lacks one of file, sha256, images, cost"),
        ({"sha256": None}, "entry 1 of its shards lacks"),
        ({"images": 3}, "entry 1 of its shards lacks"),
        ({"cost": None}, "entry 1 of its shards lacks"),
        ({"file": "../elsewhere.safetensors"}, "is not a file of this folder"),
        ({"file": "shard-\ud800.safetensors"}, "is not a file of this folder"),  # found by fuzzing
    ],
)
def test_a_manifest_whose_shards_are_not_whole(folder, change, words):
    edit(folder, lambda manifest: manifest["shards"][1].update(change))
    for name in SHARDS:
        (folder / name).unlink()
    for use in (CanonicalSet.load, write):
        with pytest.raises(UserError, match=rf"cannot read .*manifest.json .*{words}.*delete it"):
            use(folder)


@pytest.mark.parametrize("change", [{"shards": ["x"]}, {"shards": {}}, {"config": []}])
def test_a_manifest_of_other_types(folder, change):
    edit(folder, lambda manifest: manifest.update(change))
    for name in SHARDS:
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"cannot read .*manifest.json"):
        CanonicalSet.load(folder)


def test_a_damaged_or_lost_manifest_is_made_again_from_the_shards(folder, damage_of_a_manifest):
    whole, before = shard_bytes(folder), json.loads((folder / MANIFEST).read_text())
    damage_of_a_manifest(folder / MANIFEST)
    read = CanonicalSet.load(folder)  # as it is
    assert read.tensors["index"].tolist() == CHOSEN
    assert write(folder) == []
    after = json.loads((folder / MANIFEST).read_text())
    for key in ("format", "complete", "config", "images"):
        assert after[key] == before[key]
    kept = ("file", "sha256", "images", "ranges")
    for old, new in zip(before["shards"], after["shards"], strict=True):
        assert {key: old[key] for key in kept} == {key: new[key] for key in kept}
    assert after["cost"]["images"] == 0  # what it cost is lost, and no cost is made up
    assert shard_bytes(folder) == whole
    assert CanonicalSet.load(folder).sha256 == read.sha256


def test_a_set_that_was_not_finished_goes_on_without_its_manifest(folder, tmp_path):
    other = tmp_path / "other"
    write(other, shards=2)
    (other / MANIFEST).unlink()
    flip(other / SHARDS[0])  # with its hash lost, it is told by its own
    with pytest.raises(UserError, match=r"another configuration .*seed: 0 there, 1 now"):
        write(other, config=CONFIG | {"seed": 1})
    with pytest.raises(UserError, match=r"incomplete \(3 of 7 images\)"):
        CanonicalSet.load(other)
    assert write(other) == [SHARDS[0], SHARDS[2]]
    assert shard_bytes(other) == shard_bytes(folder)


def test_a_pipe_is_no_shard(folder):
    (folder / SHARDS[1]).unlink()
    os.mkfifo(folder / SHARDS[1])
    with pytest.raises(UserError, match=r"shard .* cannot be read .*no regular file.*delete it"):
        CanonicalSet.load(folder)


@pytest.mark.parametrize("copied", [(0, 1), (1, 0)])
def test_a_copy_of_another_shard_is_none_without_its_manifest(folder, copied):
    whole, (one, over) = shard_bytes(folder), copied
    (folder / SHARDS[over]).write_bytes((folder / SHARDS[one]).read_bytes())
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"incomplete \(4 of 7 images\)"):
        CanonicalSet.load(folder)
    assert write(folder) == [SHARDS[over]]
    assert shard_bytes(folder) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["config"].update(sigma_te=3.0),
        lambda manifest: manifest["shards"][0].update(images=[3, 5, 9]),
    ],
)
def test_a_manifest_that_tells_something_else_than_its_shards(folder, change):
    edit(folder, change)
    with pytest.raises(UserError, match="does not tell what its shards hold"):
        CanonicalSet.load(folder)
    (folder / MANIFEST).unlink()
    assert write(folder) == []
    assert CanonicalSet.load(folder).manifest["config"] == CONFIG


def test_a_manifest_that_lost_an_entry_is_not_whole(folder):
    edit(folder, lambda manifest: manifest["shards"].pop())
    with pytest.raises(UserError, match=r"incomplete \(6 of 7 images\)"):
        CanonicalSet.load(folder)
    assert write(folder) == SHARDS[2:]


def test_a_set_of_the_same_content_is_known_by_its_hash(folder, tmp_path):
    write(tmp_path / "a", shards=1)
    write(tmp_path / "a")
    assert CanonicalSet.load(tmp_path / "a").sha256 == CanonicalSet.load(folder).sha256
    write(tmp_path / "b", config=CONFIG | {"seed": 1})
    assert CanonicalSet.load(tmp_path / "b").sha256 != CanonicalSet.load(folder).sha256


def test_a_folder_without_a_set(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"holds no canonical set \(no {MANIFEST}\)"):
            CanonicalSet.load(folder)


def test_a_file_is_whole_or_as_it_was(tmp_path):
    write_json(tmp_path / "a" / "x.json", [1])

    def fail():
        with atomic_path(tmp_path / "a" / "x.json") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "a" / "x.json")
    assert os.listdir(tmp_path / "a") == ["x.json"]
    assert json.loads((tmp_path / "a" / "x.json").read_text()) == [1]


FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from dataclasses import dataclass
from clarep.cli import main as cli
import set_of_seven as t

@dataclass(frozen=True)
class Command:
    def run(self):
        t.write(Path({folder!r}))

cli._parse = lambda arguments: Command()
limit = {limit}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.exit(cli.main(["anything"]))
"""


def run_with_a_limit(programs, folder, limit):
    tests = str(Path(__file__).parents[1])
    return programs.run(FULL.format(tests=tests, folder=str(folder), limit=limit))


@dataclass(frozen=True)
class _Write:
    folder: Path

    def run(self):
        write(self.folder)


def test_a_full_disk(tiny_disk, folder, monkeypatch, capsys):
    whole = shard_bytes(folder)
    canon = tiny_disk("28k") / "canon"  # the manifest and one shard, not two
    monkeypatch.setattr(cli, "_parse", lambda arguments: _Write(canon))
    assert cli.main(["anything"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"clarep: cannot write {canon}/")
    assert "(No space left on device): free some space and run the same command" in printed
    assert printed.count("\n") == 1
    stored = shard_bytes(canon)
    assert 1 <= len(stored) < 3
    assert stored == {name: whole[name] for name in stored}
    assert not list(canon.glob(".*"))
    tiny_disk("1m")
    assert cli.main(["anything"]) == 0
    assert shard_bytes(canon) == whole
    assert len(CanonicalSet.load(canon)) == 7


def test_a_limit_on_the_size_of_files(tmp_path, folder, programs):
    """EFBIG, from the kernel: the manifest fits below it, a shard does not."""
    whole = shard_bytes(folder)
    target = tmp_path / "limited"
    write(target, shards=1)
    stopped = run_with_a_limit(programs, target, 8192)
    assert stopped.returncode == 2, stopped.stderr
    assert stopped.stderr == (
        f"clarep: cannot write {target}/{SHARDS[1]} (File too large): free some space and run "
        "the same command again; what is stored stays valid\n"
    )
    assert sorted(os.listdir(target)) == [MANIFEST, *entries(SHARDS[:1]), SHARDS[0]]
    done = run_with_a_limit(programs, target, 0)
    assert (done.returncode, done.stderr) == (0, "")
    assert shard_bytes(target) == whole


@pytest.mark.parametrize("stored", [0, 1, 2])
def test_what_is_stored_stays_valid_where_no_more_fits(
    tmp_path, stored, no_file_above, monkeypatch, capsys
):
    """As `test_a_full_disk`, where no file system may be mounted."""
    target = tmp_path / "full"
    write(tmp_path / "whole")
    whole = shard_bytes(tmp_path / "whole")
    write(target, shards=stored)
    monkeypatch.setattr(cli, "_parse", lambda arguments: _Write(target))
    with no_file_above(2000):  # also below what a manifest of shards takes
        assert cli.main(["anything"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"clarep: cannot write {target}/{SHARDS[stored]} (File too large): ")
    assert printed.endswith("run the same command again; what is stored stays valid\n")
    kept = SHARDS[:stored]
    assert sorted(os.listdir(target)) == sorted([MANIFEST, *entries(kept), *kept])
    assert cli.main(["anything"]) == 0
    assert shard_bytes(target) == whole
    assert len(CanonicalSet.load(target)) == 7


def test_a_manifest_that_does_not_fit_leaves_the_old_one(tmp_path, folder, no_file_above):
    target = tmp_path / "full"
    write(target, shards=1)
    before = (target / MANIFEST).read_bytes()
    writer = CanonicalSetWriter(target, CONFIG, CHOSEN, shard_size=3)
    with no_file_above(100), pytest.raises(OSError, match="File too large") as caught:
        writer._write_manifest()
    assert caught.value.filename == str(target / MANIFEST)
    assert (target / MANIFEST).read_bytes() == before
    write(target)
    assert shard_bytes(target) == shard_bytes(folder)


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_other_ways_of_not_being_able_to_write(code, monkeypatch, capsys):
    @dataclass(frozen=True)
    class Command:
        def run(self):
            raise OSError(code, os.strerror(code), "/there/x")

    monkeypatch.setattr(cli, "_parse", lambda arguments: Command())
    assert cli.main(["anything"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"clarep: cannot write /there/x ({os.strerror(code)}): ")
    assert printed.count("\n") == 1


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    @dataclass(frozen=True)
    class Command:
        def run(self):
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(cli, "_parse", lambda arguments: Command())
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["anything"])


@pytest.mark.parametrize("name", ["file", "file/under"])
def test_a_file_where_the_folder_should_be(tmp_path, name, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli, "_parse", lambda arguments: _Write(tmp_path / name))
    assert cli.main(["anything"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"clarep: cannot write {tmp_path}/file")
    assert "give another --out" in printed
