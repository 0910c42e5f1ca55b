"""Tasks in this process; what is refused of an engine."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from clarep.engine.fan_out import LOCAL, EngineConfig, check_engine, fan_out
from clarep.engine.ray_engine import longest_chains
from clarep.errors import UserError


def test_here_one_worker_does_all_in_order():
    made = []

    def make():
        made.append(1)
        return lambda task: task * task

    assert list(fan_out([3, 1, 2], make)) == [9, 1, 4] and made == [1]


def test_no_tasks_make_no_worker():
    def make():
        raise AssertionError

    assert list(fan_out([], make)) == []
    assert list(fan_out([], make, EngineConfig(engine="ray"))) == []


def test_tasks_are_done_as_they_are_asked_for():
    done = []
    results = fan_out([1, 2, 3], lambda: done.append)
    next(results)
    assert done == [1]


@settings(deadline=None)
@drawn(data=st.data(), count=st.integers(0, 8))
def test_chains_are_the_longest_ways_on(data: st.DataObject, count: int):
    after = [data.draw(st.sets(st.integers(0, i - 1))) if i else set() for i in range(count)]

    def way_on(i: int) -> int:
        return max((1 + way_on(j) for j in range(count) if i in after[j]), default=0)

    assert longest_chains(after) == [way_on(i) for i in range(count)]


@pytest.mark.parametrize("given", [{"address": "auto"}, {"workers": 2}, {"gpus_per_worker": 1.0}])
def test_options_of_ray_are_refused_without_it(given):
    with pytest.raises(UserError, match=f"{next(iter(given))}=.*engine=ray"):
        check_engine(EngineConfig(**given))


def test_a_gpu_is_asked_for_by_whoever_needs_one():
    check_engine(LOCAL, "cuda")
    check_engine(EngineConfig(engine="ray", gpus_per_worker=0.5), "cuda")
    check_engine(EngineConfig(engine="ray"), "cpu")
    with pytest.raises(UserError, match="gpus_per_worker"):
        check_engine(EngineConfig(engine="ray"), "cuda:0")


def test_a_worker_of_ray_has_one_gpu_which_is_its_first():
    check_engine(LOCAL, "cuda:1")
    on_gpus = EngineConfig(engine="ray", gpus_per_worker=1.0)
    check_engine(on_gpus, "cuda:0")
    with pytest.raises(UserError, match=r"device=cuda:1.*device=cuda`"):
        check_engine(on_gpus, "cuda:1")


def test_a_worker_that_cannot_go_to_the_drivers_folder_writes_to_no_other(tmp_path, monkeypatch):
    from clarep.engine.artefacts import versions
    from clarep.engine.ray_engine import _Driver

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sign").touch()
    threads, gone = torch.get_num_threads(), str(tmp_path / "gone")
    with pytest.raises(UserError, match=f"no folder {gone}"):
        _Driver(threads, gone, True, versions(), str(tmp_path), "sign").join()
    _Driver(threads, gone, False, versions(), str(tmp_path), "sign").join()
    _Driver(threads, str(tmp_path.parent), True, versions(), str(tmp_path), "sign").join()
    assert Path.cwd() == tmp_path.parent


def test_without_ray_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"\[ray\]"):
        list(fan_out([1], lambda: abs, EngineConfig(engine="ray")))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:x", "nonsense"])
def test_an_address_without_a_cluster_is_told_at_once(address):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=f"no cluster of Ray at {address}"):
        list(fan_out([1], lambda: abs, EngineConfig(engine="ray", address=address)))


def test_an_unknown_engine_is_refused_and_not_taken_for_this_process():
    config = EngineConfig()
    object.__setattr__(config, "engine", "rey")  # which the tests' own type checks would refuse
    with pytest.raises(UserError, match="unknown engine 'rey': did you mean ray"):
        check_engine(config)
