"""A canonical set under an address, against a real S3 server on loopback; and in parts."""

import gc
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet, CanonicalSetWriter
from clarep.clarid.canonical_shards import entry_name
from clarep.clarid.close_set import close_set
from clarep.engine.places import Folder, Remote, place_of
from clarep.errors import UserError
from set_of_seven import CHOSEN, CONFIG, COST, SHARDS, rep_of, shard_bytes, write

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket on a server of this process."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in told.items():
            environment.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("sets")
        yield "s3://sets"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def where(request, tmp_path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"
    places = {"folder": f"{tmp_path}/canon", "file": f"file://{tmp_path}/canon"}
    return places.get(request.param) or f"memory://{uuid.uuid4().hex}/canon"


def contents(where):
    place = place_of(where)
    found = {}
    for name in place.names():
        with place.open(name) as stream:
            found[name] = stream.read()
    return found


@pytest.fixture
def finished(tmp_path) -> dict[str, bytes]:
    """What lies in a folder in which a set was made at one go."""
    write(tmp_path / "finished")
    return contents(tmp_path / "finished")


def write_part(where, number, parts, shards=99):
    writer = CanonicalSetWriter(where, CONFIG, CHOSEN, 3, (number, parts))
    return add_missing(writer, shards), writer.finish()


def add_missing(writer, shards=99):
    missing = list(writer.missing())
    for name, group in missing[:shards]:
        writer.add(name, [rep_of(i) for i in group], COST)
    return [name for name, _ in missing]


def test_the_same_files_wherever_it_is_written(where, finished):
    assert write(where, shards=1) == SHARDS
    found = contents(where)
    assert set(found) == {MANIFEST, SHARDS[0], entry_name(SHARDS[0])}
    assert json.loads(found[MANIFEST])["complete"] is False
    with pytest.raises(UserError, match=r"incomplete \(3 of 7 images\)"):
        CanonicalSet.load(where)
    assert write(Path(where)) == SHARDS[1:]  # as an option of the command line holds an address
    assert contents(where) == finished
    canonical = CanonicalSet.load(where)
    assert canonical.index.tolist() == CHOSEN
    assert torch.equal(canonical[3].sample, rep_of(CHOSEN[3]).sample)


def test_parts_make_the_same_files(where, finished):
    assert write_part(where, 2, 2) == ([SHARDS[1]], False)
    assert write_part(where, 1, 2, shards=1) == ([SHARDS[0], SHARDS[2]], False)
    assert write_part(where, 1, 2) == ([SHARDS[2]], True)
    assert contents(where) == finished
    assert write_part(where, 2, 2) == ([], True)
    assert contents(where) == finished


def test_a_part_that_read_before_another_closed_opens_nothing(where, finished):
    beyond = CanonicalSetWriter(where, CONFIG, CHOSEN, 3, (4, 4))
    assert not beyond.images and contents(where) == {".lock-4-of-4": ANY}
    early = CanonicalSetWriter(where, CONFIG, CHOSEN, 3, (1, 4))
    early.record({"seen": 1})
    for number in (2, 3):
        late = CanonicalSetWriter(where, CONFIG, CHOSEN, 3, (number, 4))
        assert late.findings == {"seen": 1}
        add_missing(late)
    add_missing(early)
    assert late.finish() and late.closed_here
    early.record({"seen": 2})
    assert json.loads(contents(where)[MANIFEST])["complete"] is True
    assert early.finish() and beyond.finish() and not early.closed_here
    found = CanonicalSet.load(where)
    assert found.index.tolist() == CHOSEN and found.manifest["findings"] == {"seen": 2}
    assert {n: c for n, c in contents(where).items() if n in SHARDS} == {
        n: c for n, c in finished.items() if n in SHARDS
    }


def test_a_shard_without_its_entry_is_none(where, finished):
    """Killed between the object and its entry."""
    write(where)
    place = place_of(where)
    place.remove(MANIFEST)
    place.remove(SHARDS[2])
    write(where, shards=0)
    other = place_of(where)
    other.write(SHARDS[2], finished[SHARDS[2]][:-7])  # half an object
    with pytest.raises(UserError, match=r"incomplete \(6 of 7 images\)"):
        CanonicalSet.load(where)
    assert write(where) == [SHARDS[2]]
    assert {n: c for n, c in contents(where).items() if n != MANIFEST} == {
        n: c for n, c in finished.items() if n != MANIFEST
    }


def test_an_entry_that_is_cut_in_half_is_none(where, finished):
    write(where, shards=2)
    entry = entry_name(SHARDS[1])
    content = contents(where)[entry]
    place_of(where).write(entry, content[: len(content) // 2])
    assert write(where) == SHARDS[1:]
    assert contents(where) == finished


def test_a_bit_flipped_under_an_address(where, finished):
    write(where)
    changed = bytearray(finished[SHARDS[1]])
    changed[len(changed) // 2] ^= 1
    place_of(where).write(SHARDS[1], bytes(changed))
    with pytest.raises(UserError, match=rf"{SHARDS[1]} is truncated or changed .*delete it"):
        CanonicalSet.load(where)
    assert write_part(where, 1, 2) == ([], True)  # not its own, so it is not read


def test_killed_between_the_last_entry_and_the_manifest(where, finished, monkeypatch):
    monkeypatch.setattr(CanonicalSetWriter, "finish", lambda self: False)
    write(where)
    gc.collect()  # the lock goes with the writer
    assert len(contents(where)) == 7
    assert len(CanonicalSet.load(where)) == 7  # all that it needs is there
    assert close_set(place_of(where))
    assert contents(where) == finished
    assert close_set(place_of(where))


_PUT_AND_DIE = """
import os, sys
sys.path.insert(0, {tests!r})
from clarep.engine import places
import set_of_seven as t

kind, put, count = type(places.place_of({where!r})), None, 0
put = kind.write

def write(self, name, content):
    global count
    count += 1
    if count > {after}:
        os.kill(os.getpid(), 9)
    put(self, name, content)

kind.write = write
t.write({where!r})
"""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_killed_after_any_object(bucket, finished, after, programs):
    where = f"{bucket}/{uuid.uuid4().hex}"
    code = _PUT_AND_DIE.format(tests=str(Path(__file__).parents[1]), where=where, after=after)
    run = programs.run(code)
    assert run.returncode == -9, run.stderr
    left = contents(where)
    assert {name for name in left if not name.startswith(".lock")} == set(
        [MANIFEST, SHARDS[0], entry_name(SHARDS[0])][:after]
    )
    write(where)  # its lock is of a process that is no more
    assert contents(where) == finished


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ({"pid": os.getppid(), "host": os.uname().nodename}, "is writing in"),
        ({"pid": 7, "host": "elsewhere"}, r"process 7 on elsewhere .*delete .*/\.lock"),
        ({"pid": 4194305, "host": os.uname().nodename}, ""),
    ],
)
def test_the_lock_under_an_address(bucket, words, refused):
    where = f"{bucket}/{uuid.uuid4().hex}"
    place = place_of(where)
    place.write(".lock", json.dumps(words).encode())
    if refused:
        with pytest.raises(UserError, match=refused):
            write(where)
        with pytest.raises(UserError, match=refused):  # nor beside the whole
            write_part(where, 1, 2)
        place.remove(".lock")
        place.write(".lock-1-of-2", json.dumps(words).encode())
        for part in (None, (1, 4)):
            with pytest.raises(UserError, match=refused):
                CanonicalSetWriter(where, CONFIG, CHOSEN, 3, part)
        write_part(where, 2, 2)
        place.remove(".lock-1-of-2")
    write(where)
    assert ".lock" not in place.names()


def test_a_store_that_cannot_be_reached_is_said(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"nowhere://x cannot be opened .*give a folder"):
        place_of("nowhere://x")
    with pytest.raises(UserError, match=r"s3://no-such-bucket-of-ours/x cannot be reached"):
        place = Remote("s3://no-such-bucket-of-ours/x")
        monkeypatch.setattr(place._files, "pipe_file", lambda *_, **__: 1 / 0)
        place.write("x", b"")


def test_a_path_of_this_machine_imports_no_fsspec():
    code = (
        "import sys; from clarep.engine.places import place_of; from pathlib import Path;"
        "place_of('a/b').names(); place_of(Path('file:/a')).names();"
        "sys.exit('fsspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert isinstance(place_of("C:/x"), Folder) and isinstance(place_of("memory:/x"), Remote)


def test_a_manifest_is_not_rewritten_for_a_shard(tmp_path):
    write(tmp_path, shards=0)
    before = (tmp_path / MANIFEST).stat().st_mtime_ns
    write(tmp_path, shards=2)
    assert (tmp_path / MANIFEST).stat().st_mtime_ns == before
    assert len(shard_bytes(tmp_path)) == 2
