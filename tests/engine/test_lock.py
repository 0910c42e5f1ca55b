"""One writer a folder, with real processes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from clarep.engine.lock import LOCK_NAME, WORKER, hold, hold_place
from clarep.engine.places import Folder
from clarep.errors import UserError

_HOLD = """
import sys
from pathlib import Path
from clarep.engine.lock import hold_place
from clarep.engine.places import Folder
part = tuple(map(int, sys.argv[2:])) or None
lock = hold_place(Folder(Path(sys.argv[1])), part)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/out."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_by_pid_and_host(holder, tmp_path):
    with pytest.raises(UserError, match=rf"process {holder.pid} on {os.uname().nodename} "):
        hold(tmp_path / "out")
    hold(tmp_path / "out" / "inner")  # another folder
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(UserError, match=str(holder.pid)):
        hold(tmp_path / "link")


@pytest.fixture(params=[None, (1, 2)])
def dividing(request, tmp_path):
    """A process that holds tmp_path/out or a part of it, and what others may hold beside it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "out"), *map(str, request.param or ())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process, {(2, 2)} if request.param else set()
    process.kill()
    process.communicate()


def test_parts_keep_out_the_whole_and_other_divisions(dividing, tmp_path):
    process, allowed = dividing
    place, asked = Folder(tmp_path / "out"), [None, (1, 2), (2, 2), (1, 4), (2, 4)]
    for part in asked:
        if part in allowed:
            hold_place(place, part)
            continue
        with pytest.raises(UserError, match=f"process {process.pid} "):
            hold_place(place, part)
    assert len(place.names()) == 1
    process.kill()
    process.communicate()
    for part in asked:  # one after the other: what a process that is no more left stops none
        hold_place(place, part)


@pytest.mark.parametrize("end", ["finish", "kill"])
def test_a_lock_ends_with_its_process(holder, tmp_path, end):
    if end == "kill":
        holder.send_signal(signal.SIGKILL)
    holder.communicate("")
    assert (tmp_path / "out" / LOCK_NAME).exists() == (end == "kill")
    assert (tmp_path / "out").exists() == (end == "kill")  # made, and nothing written
    hold(tmp_path / "out")


def test_a_lock_whose_process_id_is_somebody_elses_by_now_is_stale(tmp_path):
    words = {"pid": os.getppid(), "host": os.uname().nodename}
    (tmp_path / LOCK_NAME).write_text(json.dumps(words))
    lock = hold(tmp_path)
    assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    del lock
    assert not list(tmp_path.iterdir())


def test_a_process_may_hold_a_folder_twice(tmp_path):
    first = hold(tmp_path)
    second = hold(tmp_path / ".." / tmp_path.name)
    del first
    assert (tmp_path / LOCK_NAME).exists()
    del second
    assert not (tmp_path / LOCK_NAME).exists()


def test_the_lock_of_another_machine_is_told_with_the_mend(tmp_path):
    (tmp_path / LOCK_NAME).write_text('{"pid": 7, "host": "elsewhere", "boot": "x"}')
    with pytest.raises(UserError, match=r"process 7 on elsewhere .*delete .*\.lock"):
        hold(tmp_path)
    (tmp_path / LOCK_NAME).unlink()
    hold(tmp_path)


def test_a_part_of_a_lost_machine_is_begun_again_on_another(dividing, monkeypatch, tmp_path):
    """As Slurm does; where the kernel gives the lock. None but the same part takes it over."""
    place, (process, _) = Folder(tmp_path / "parts"), dividing
    place.folder.mkdir()
    words, left = '{"pid": 7, "host": "elsewhere", "boot": "x"}', place.folder / ".lock-1-of-2"
    for part in (None, (1, 4)):
        left.write_text(words)
        with pytest.raises(UserError, match=r"process 7 on elsewhere .*delete .*-1-of-2"):
            hold_place(place, part)
    hold_place(place, (2, 2))
    hold_place(place, (1, 2))
    assert not left.exists()
    (held,) = (tmp_path / "out").iterdir()  # by a process that lives, whatever its words say
    held.write_text(words)
    with pytest.raises(UserError, match="process 7 on elsewhere is writing"):
        hold_place(Folder(tmp_path / "out"), (1, 2))
    process.kill()
    left.write_text(words)
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(95, "no locks")))
    with pytest.raises(UserError, match="delete"):
        hold_place(place, (1, 2))


@pytest.mark.parametrize("words", [b"", b"{", b'{"pid": []}', b"[]", b"\xff", b"9" * 5_000])
def test_a_damaged_lock_is_no_lock(tmp_path, words):
    (tmp_path / LOCK_NAME).write_bytes(words)
    hold(tmp_path)


def test_where_the_kernel_knows_no_locks_the_words_count(monkeypatch, tmp_path):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps({"pid": os.getppid(), "host": os.uname().nodename}))
    with pytest.raises(UserError, match=f"process {os.getppid()} "):
        hold(tmp_path)
    path.write_text(json.dumps({"pid": 4194305, "host": os.uname().nodename}))  # beyond all ids
    hold(tmp_path)


def test_a_forked_child_lets_go_of_nothing(tmp_path):
    lock = hold(tmp_path)
    child = os.fork()
    if not child:
        del lock
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / LOCK_NAME).exists()
    del lock


def test_what_the_dead_left_half_written_goes(tmp_path):
    inner = tmp_path / "parts" / "clean"
    inner.mkdir(parents=True)
    dead, mine = inner / ".evaluation.json.4194305.tmp", tmp_path / f".a.json.{os.getpid()}.tmp"
    living, foreign = tmp_path / f".b.{os.getppid()}.tmp", tmp_path / ".notes.txt.tmp"
    for path in (dead, mine, living, foreign):
        path.write_text("half")
    hold(tmp_path)
    assert sorted(tmp_path.rglob(".*.tmp")) == sorted([living, foreign])


def test_the_locks_of_the_dead_within_go_too(holder, tmp_path):
    """Killed between the last file of a folder within and the end, and never taken again."""
    inner = tmp_path / "out" / "inner"
    locks = {}
    for name, pid in (("dead", 4194305), ("mine", os.getppid())):
        (inner / name).mkdir(parents=True)
        locks[name] = inner / name / LOCK_NAME
        words = {"pid": pid, "host": os.uname().nodename}
        locks[name].write_text(json.dumps(words))
    (inner / "elsewhere").mkdir()
    elsewhere = inner / "elsewhere" / LOCK_NAME
    elsewhere.write_text('{"pid": 4194305, "host": "elsewhere"}')
    hold(tmp_path)  # a folder above, as a study's
    assert not locks["dead"].exists() and locks["mine"].exists() and elsewhere.exists()
    assert (tmp_path / "out" / LOCK_NAME).exists()  # of a process that lives


def test_of_many_that_race_one_wins(tmp_path):
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(tmp_path / "out")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    racing = [start() for _ in range(3)]
    said = [process.stdout.readline() for process in racing]  # "" of those that were refused
    assert sorted(said) == ["", "", "held\n"]
    for process in racing:
        process.communicate("")
    assert sorted(process.returncode for process in racing) == [0, 1, 1]
    assert not list((tmp_path / "out").glob("*"))


def test_a_pipe_is_no_lock(tmp_path):
    os.mkfifo(tmp_path / LOCK_NAME)
    with pytest.raises(UserError, match=r"\.lock is no regular file.*delete it"):
        hold(tmp_path)


def test_a_worker_takes_up_what_a_lost_machine_left(tmp_path, monkeypatch):
    """The process that it works for holds the folders, and knows that the machine is gone."""
    (tmp_path / LOCK_NAME).write_text('{"pid": 1, "host": "gone", "boot": "another"}')
    with pytest.raises(UserError, match="on gone"):
        hold(tmp_path)
    monkeypatch.setenv(WORKER, "1")
    assert hold(tmp_path) and hold(tmp_path / "new") and (tmp_path / "new").is_dir()
