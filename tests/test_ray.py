"""A real Ray cluster of two nodes on this machine, whose workers and nodes are killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli import main as cli
from clarep.engine import ray_engine
from clarep.engine.fan_out import EngineConfig, fan_out
from clarep.engine.lock import is_half_written
from clarep.engine.places import place_of
from clarep.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own processes

ON_RAY = EngineConfig(engine="ray", workers=2)


class TwoNodes:
    """A head without a CPU and two nodes of one, the first of which stays."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        quickly = {"health_check_period_ms": 1500, "health_check_failure_threshold": 2}
        quickly |= {"health_check_initial_delay_ms": 0}
        memory = {"object_store_memory": 100 << 20, "include_dashboard": False}
        head = {"num_cpus": 0, "_system_config": quickly, **memory}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=1, **memory) for _ in range(2)]

    def two(self):
        """Replace the node that a test before removed."""
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20))

    def lose_a_node(self, node=None):
        node = node or self.nodes[-1]
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def cluster():
    import ray

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_MODE", "disabled")  # it would write a token into the home
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("OMP_NUM_THREADS", "1")
        nodes = TwoNodes()
        patched.setenv("RAY_ADDRESS", nodes.cluster.address)
        yield nodes
        ray.shutdown()
        nodes.cluster.shutdown()


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def workers(cluster):
    """The ids of the processes that are a worker of ours, on a node that was started here."""
    nodes = {info.process.pid for node in cluster.nodes for info in node.all_processes["raylet"]}
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rsplit(")", 1)[1].split()[1])
            is_worker = (place / "cmdline").read_bytes().startswith(b"ray::_Worker")
            if is_worker and parent in nodes:
                found.append(int(place.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def test_tasks_wait_for_each_other_and_their_mistakes_are_told(cluster, tmp_path, monkeypatch):
    cluster.two()

    def make():
        from clarep.data.labelled import UnreadableImage

        def work(task):
            if task == 4:
                raise UnreadableImage("a.png", "it is no image")  # which no pickle makes again
            if task == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            seen = sorted(path.name for path in tmp_path.iterdir())
            (tmp_path / str(task)).touch()
            assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # as it was given none
            return task, seen, os.getpid()

        return work

    after = [(), (0,), (), (1, 2)]
    results = fan_out([0, 1, 2, 3], make, ON_RAY, after=after, written=place_of(tmp_path))
    found = {task: (seen, pid) for task, seen, pid in results}
    assert sorted(found) == [0, 1, 2, 3]
    signs = [name for name in found[0][0] if name not in "0123"]
    assert signs and all(is_half_written(name) for name in signs)  # should the driver be killed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3"]
    assert "0" in found[1][0] and {"1", "2"} <= set(found[3][0])
    assert os.getpid() not in {pid for _, pid in found.values()}
    alone = EngineConfig(engine="ray", workers=1)  # what another waits for comes first
    assert list(fan_out("abc", lambda: str, alone, after=[(), (), (1,)])) == ["b", "a", "c"]
    with pytest.raises(UserError, match=r"cannot read a\.png"):
        list(fan_out([4], make, ON_RAY))
    monkeypatch.setattr(ray_engine, "_RETRIES", 0)
    with pytest.raises(UserError, match="1 workers died at 5"):  # else it would go on for ever
        list(fan_out([5], make, ON_RAY))


def test_the_worker_of_a_machine_that_vanishes_is_asked_once(cluster, tmp_path, monkeypatch):
    """For a while Ray cannot reach it and does not know that it is gone: all retries were lost."""
    cluster.two()
    monkeypatch.setattr(ray_engine, "_RETRIES", 1)
    gone = tmp_path / "gone"

    def make():
        def work(task):
            if task == 1 and not gone.exists():
                gone.write_text(str(os.getppid()))
                for pid in (os.getppid(), os.getpid()):  # the node and its worker at once
                    os.kill(pid, signal.SIGKILL)
            return task

        return work

    assert sorted(fan_out([0, 1, 2], make, ON_RAY)) == [0, 1, 2]
    (node,) = (
        node
        for node in cluster.nodes
        if str(node.all_processes["raylet"][0].process.pid) == gone.read_text()
    )
    cluster.lose_a_node(node)


@contextmanager
def driven(*arguments: object) -> Iterator[Iterator[str]]:
    """Run a command on the cluster, yielding its lines on stderr; it must end well.

    In a process of its own: what the tests' hook makes of the functions of a set of images cannot
    be sent to workers.
    """
    command = [sys.executable, "-m", "clarep.cli.main", *map(str, arguments)]
    on_ray = ["--engine", "ray", "--workers", "2"]
    piped = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, *on_ray], text=True, **piped) as process:
        yield process.stderr
        said = process.stderr.read()
    assert process.returncode == 0, said


def bytes_of(folder: Path, pattern: str = "*.safetensors") -> dict[str, bytes]:
    """Of the files below a folder; by their names, which tell apart what studies hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def test_a_set_is_the_same_when_a_worker_and_then_a_node_are_killed(
    cluster, tmp_path, tiny_teacher_path, garments_path
):
    cluster.two()
    asked = [
        "identify",
        "--teacher",
        tiny_teacher_path,
        "--data",
        garments_path,
        "--control-images",
        0,
    ]
    asked += ["--fraction", 0.5, "--t", 0.6, "--k", 4, "--steps", 2, "--tolerance", 0.9]
    asked += ["--batch-size", 2, "--shard-size", 3, "--seed", 3, "--out"]
    killed = []
    with driven(*asked, tmp_path / "killed") as lines:
        for line in lines:
            if "identify: 3/20" in line:
                victim = workers(cluster)[0]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
            if "identify: 9/20" in line:
                cluster.lose_a_node()
                killed.append("node")
    assert len(killed) == 2 and killed[1] == "node" and killed[0] not in workers(cluster)
    assert len(cluster.nodes) == 1
    assert cli.main([*map(str, asked), str(tmp_path / "here")]) == 0
    there, here = tmp_path / "killed/canon", tmp_path / "here/canon"
    assert bytes_of(there) == bytes_of(here) and len(bytes_of(here)) == 8
    found, expected = CanonicalSet.load(there), CanonicalSet.load(here)
    assert found.sha256 == expected.sha256
    counts = ("images", "denoiser_evaluations", "jacobian_products")
    assert all(found.manifest["cost"][key] == expected.manifest["cost"][key] for key in counts)


def test_a_study_is_the_same(cluster, tmp_path, write_recipe):
    """Its sets, students and evaluations, whose parts are measured in other processes."""
    cluster.two()
    lines = {"methods": '["vanilla", "cadistill"]', "epochs": "1", "images": "10"}
    recipe = write_recipe(groups='["clean", "attacks"]\nattack_images = 4', **lines)
    with driven("run", recipe, "--out", tmp_path / "apart") as lines:
        assert any("run: 5/5 parts" in line for line in lines)
    assert cli.main(["run", str(recipe), "--out", str(tmp_path / "here")]) == 0
    assert bytes_of(tmp_path / "apart") == bytes_of(tmp_path / "here") != {}
    for table in ("table.csv", "table.md"):
        found, expected = (tmp_path / name / "report" / table for name in ("apart", "here"))
        assert found.read_bytes() == expected.read_bytes()

    run = next((tmp_path / "here/runs").glob("cadistill-*"))
    asked = ["evaluate", run, "--groups", "clean", "attacks", "--attack-images", 4, "--images", 10]
    with driven(*asked, "--device", "cpu", "--out", tmp_path / "evaluated"):
        pass
    assert bytes_of(tmp_path / "evaluated") == bytes_of(run / "robustness")
