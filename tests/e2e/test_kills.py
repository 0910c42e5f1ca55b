"""Every resumable command, killed at random points or out of disk: run again, the same bytes."""

import random
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from forked import Programs
from killed import LATE, Ended, contents, differing, run_counted

QUICK = "--train.batch-size 16 --train.validation-share 0.25 --train.learning-rate 0.05"
COMMANDS = {
    "identify": "identify --data d.npz --teacher t.safetensors --fraction 0.2 --k 2 --steps 2 "
    "--shard-size 2 --control-images 0",
    "select": "select --data d.npz --teacher t.safetensors --t 0.5 0.6 --k 2 --images 6 "
    "--seeds 0 --kind top --steps 2",
    "audit": "audit --data d.npz --teacher t.safetensors --fraction 0.5 --draws 1 --mask-draws 1",
    "train-teacher": "train-teacher --data d.npz --train.steps 6 --train.batch-size 4 "
    "--train.checkpoint-every 2 --train.unet.widths 8 16 --train.unet.embed-dim 16",
    "distill": f"distill --method vanilla --data d.npz --train.epochs 3 {QUICK}",
    "evaluate": "evaluate finished/distill --data d.npz --groups clean calibration attacks "
    "--eps-255 1 --eps-l2 0.2 --apgd-steps 2 --pgd-steps 2 --check-images 4 --attack-images 8",
    "run": "run q.toml",
}
RECIPE = """
methods = ["vanilla", "cadistill"]
seeds = [0]
teacher = "t.safetensors"
[data]
data = "d.npz"
[canonical]
fraction = 0.25
[clarid]
k = 2
steps = 2
tolerance = 0.9
[train]
epochs = 2
warmup_share = 0
validation_share = 0.25
batch_size = 16
learning_rate = 0.05
[evaluate]
groups = ["clean", "calibration"]
images = 20
"""


@dataclass
class Killing:
    """A folder with data and a teacher, and what each command makes uninterrupted."""

    programs: Programs
    home: Path
    finished: dict[str, Ended]

    def run(self, name: str, out: str, **how) -> Ended:
        return run_counted(self.programs, self.home, f"{COMMANDS[name]} --out {out}/{name}", **how)

    def whole(self, name: str) -> Ended:
        if name not in self.finished:
            if name == "evaluate":
                self.whole("distill")
            ended = self.run(name, "finished")
            assert ended.code == 0, ended.said
            self.finished[name] = ended
        return self.finished[name]


@pytest.fixture(scope="module")
def killing(tmp_path_factory, programs) -> Killing:
    from tiny_teacher import save_tiny_teacher

    home, names = tmp_path_factory.mktemp("killing"), ("one", "two", "three")
    save_tiny_teacher(home / "t.safetensors", 8, names)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (54, 8, 8, 3), np.uint8), np.arange(54) % 3
    arrays = {"x_train": x[:36], "y_train": y[:36], "x_test": x[36:], "y_test": y[36:]}
    np.savez(home / "d.npz", classes=np.array(names), **arrays)
    (home / "q.toml").write_text(RECIPE)
    programs.have_imported(LATE)
    return Killing(programs, home, {})


def kill_and_finish(killing: Killing, name: str, kills: int, seed: int) -> int:
    """Kill a command so many times at random points, half by time and half at a change of files.

    Returns how often it was killed before its end.
    """
    whole, rng = killing.whole(name), random.Random(f"{name} {seed}")
    out, killed = f"killed-{seed}", 0
    for number in range(kills):
        share = rng.random()
        if (number + seed) % 2:
            ended = killing.run(name, out, after=share * whole.seconds)
        else:
            ended = killing.run(name, out, events=1 + int(share * whole.events))
        assert ended.code in (-signal.SIGKILL, 0), ended.said
        killed += ended.code != 0
    ended = killing.run(name, out)
    assert ended.code == 0, ended.said
    assert differing(killing.home / "finished" / name, killing.home / out / name) == []
    shutil.rmtree(killing.home / out)
    return killed


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_twice_it_ends_with_the_same_bytes(killing, name):
    assert kill_and_finish(killing, name, kills=2, seed=0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_twenty_times_it_ends_with_the_same_bytes(killing, name):
    killed, seed = 0, 1
    while killed < 20:
        killed += kill_and_finish(killing, name, kills=4, seed=seed)
        seed += 1
        assert seed < 20


def stop_and_finish(killing: Killing, name: str, by: int) -> None:
    whole = killing.whole(name)
    ended = killing.run(name, "stopped", events=max(2, whole.events // 2), by=by)
    assert ended.code == 128 + by, ended.said
    said = ended.said.strip().splitlines()[-1]
    assert re.fullmatch("clarep: stopped; the same command goes on where it stopped", said)
    ended = killing.run(name, "stopped")
    assert ended.code == 0, ended.said
    assert differing(killing.home / "finished" / name, killing.home / "stopped" / name) == []
    shutil.rmtree(killing.home / "stopped")


def test_stopped_by_hand_or_by_the_system_it_says_so_and_goes_on(killing):
    stop_and_finish(killing, "train-teacher", signal.SIGINT)
    stop_and_finish(killing, "distill", signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stops_and_goes_on(killing, name, by):
    stop_and_finish(killing, name, by)


MIDDLE = {"select": 0.5, "audit": 0.8, "train-teacher": 1.3, "distill": 1.3}
MIDDLE |= {"evaluate": 0.5, "run": 0.8}
"""How large a disk is full in the middle of a command, as a share of what it leaves at its end: a
checkpoint is there twice while it is written."""
_PAGE = 4096  # bytes; what a tmpfs counts by


def fill_and_finish(killing: Killing, name: str, tiny_disk, share: float) -> bool:
    """Run a command on a disk that is too small, then on one that is not; tell if it was."""
    killing.whole(name)
    finished = killing.home / "finished" / name
    pages = sum(-(-path.stat().st_size // _PAGE) for path in finished.rglob("*") if path.is_file())
    disk = tiny_disk(str(max(1, round(share * pages)) * _PAGE))
    ended, written = killing.run(name, str(disk)), disk / name
    if ended.code == 0:
        assert differing(finished, written) == []
        return False
    assert ended.code == 2 and "Traceback" not in ended.said, ended.said
    said = [line for line in ended.said.splitlines() if line.startswith("clarep: cannot write")]
    assert said == ended.said.splitlines()[-1:], ended.said
    assert str(disk) in said[0] and "free some space and run the same command again" in said[0]
    assert not list(disk.rglob(".*"))  # no half file, no lock
    whole_ones, stored = contents(finished), contents(written) if written.exists() else {}
    tensors = [path for path in stored if path.endswith(".safetensors")]
    kept = [path for path in tensors if stored[path] == whole_ones.get(path)]
    before = {path: (written / path).stat().st_ino for path in kept}
    tiny_disk("64m")
    ended = killing.run(name, str(disk))
    assert ended.code == 0, ended.said
    assert differing(finished, written) == []
    again = [path for path in kept if (written / path).stat().st_ino != before[path]]
    assert len(again) <= 1, again  # of a part in several files, of which the next did not fit
    return True


@pytest.mark.parametrize("name", MIDDLE)
def test_out_of_disk_in_the_middle_it_says_so_and_goes_on(killing, name, tiny_disk):
    assert fill_and_finish(killing, name, tiny_disk, MIDDLE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("share", [0.001, 0.01, 0.02, 0.1, 0.3, 0.6, 0.9, 1.05, 1.2, 1.4])
def test_out_of_disk_anywhere(killing, name, tiny_disk, share):
    fill_and_finish(killing, name, tiny_disk, share)


BACK = """
real = time.time
calls = 0
def jumps_back():
    global calls
    calls += 1
    return real() - 3600 * calls
time.time = jumps_back
"""


@pytest.mark.parametrize("name", ["train-teacher", "distill"])
def test_a_clock_that_jumps_back_changes_nothing(killing, name):
    killing.whole(name)
    ended = killing.run(name, "back", before=BACK)
    assert ended.code == 0, ended.said
    assert differing(killing.home / "finished" / name, killing.home / "back" / name) == []


def test_the_comparison_can_fail(killing, tmp_path):
    """A byte of a shard, a figure of a manifest: both are told."""
    killing.whole("identify")
    other = tmp_path / "identify"
    shutil.copytree(killing.home / "finished" / "identify", other)
    shard = other / "canon" / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    manifest = other / "canon" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"tap": "mid"', '"tap": "out"'))
    (other / "canon" / "more").write_text("")
    found = differing(killing.home / "finished" / "identify", other)
    assert found == ["canon/manifest.json", "canon/more", "canon/shard-00001.safetensors"]
