"""Compiled Jacobian products in CLARID: the same directions, told by the set, kept on the way."""

import functools
import json

import numpy as np
import pytest
import torch

from clarep.clarid import clarid as module
from clarep.clarid.canonical_set import MANIFEST
from clarep.clarid.clarid import Clarid
from clarep.clarid.identify import identify, identify_steps
from clarep.clarid.product_choice import flop_ahead
from clarep.data.labelled import LabelledImages
from clarep.errors import UserError
from clarep.geometry.compiled import CompiledProducts
from clarep.teachers.zoo import load_teacher

SETTING = {"sigma": 1.0, "k": 5, "steps": 1, "tolerance": 0.05, "guidance": 2.0}


@pytest.fixture
def small(tiny_teacher_path):
    return load_teacher(tiny_teacher_path)


@pytest.fixture
def compiled(monkeypatch):
    """Have graphs run as they are traced, at no compile; tell how many."""
    graphs = []

    def as_traced(graph):
        graphs.append(graph)
        return graph

    made = functools.partial(CompiledProducts, compiler=as_traced)
    monkeypatch.setattr(module, "CompiledProducts", made)
    return graphs


def data_of(teacher, count=7):
    pixels = np.random.default_rng(0).integers(
        0, 256, (count, *teacher.image_shape[1:], 3), dtype=np.uint8
    )
    return LabelledImages(
        name="noise",
        labels=np.arange(count) % 3,
        class_names=teacher.class_names,
        sources=[f"noise/{i}" for i in range(count)],
        read=lambda i: pixels[i],
    )


def walk(teacher, folder, stop=99, **settings):
    clarid = Clarid(teacher, **(SETTING | {"batch_size": 2} | settings))
    steps = identify_steps(clarid, data_of(teacher), folder, shard_size=4)
    return [step.done for _, step in zip(range(stop), steps, strict=False)]


def manifest(folder):
    return json.loads((folder / MANIFEST).read_text())


def engines(folder):
    return [shard["cost"]["engine"] for shard in manifest(folder)["shards"]]


def test_the_same_directions_for_every_batch(small, compiled):
    plain = Clarid(small, **SETTING)
    ours = Clarid(small, **SETTING, engine_jvp="compiled")
    generator = torch.Generator().manual_seed(0)
    for labels in ([0, 4, 2], [7, 7, 1]):
        x = torch.randn(3, 3, 32, 32, generator=generator)
        found, wanted = (clarid.directions(x, torch.tensor(labels)) for clarid in (ours, plain))
        cosines = torch.linalg.svdvals(found.V.mT @ wanted.V)
        assert float(cosines.min()) > 1 - 1e-4
    assert (ours.product_engine, plain.product_engine) == ("compiled", "forward")
    assert len(compiled) == 1  # J V; on a processor J^T U is as quick as it is


def test_a_set_tells_its_engine_and_goes_on_with_it(teacher, compiled, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert walk(teacher, whole, engine_jvp="compiled") == [0, 4, 7]
    assert walk(teacher, killed, stop=2, engine_jvp="compiled") == [0, 4]
    assert walk(teacher, killed) == [4, 7]  # auto would be eager for so few
    for folder in (whole, killed):
        assert manifest(folder)["findings"]["engine_jvp"] == "compiled"
        assert engines(folder) == ["compiled"] * 2
    shards = [(f / "shard-00001.safetensors").read_bytes() for f in (whole, killed)]
    assert shards[0] == shards[1]
    with pytest.raises(UserError, match=r"begun with compiled .* `engine_jvp` is eager"):
        walk(teacher, killed, engine_jvp="eager")


def test_fewer_images_than_a_batch_are_compiled_where_that_is_asked_for(
    teacher, compiled, tmp_path
):
    clarid = Clarid(teacher, **SETTING, engine_jvp="compiled")
    identify(clarid, data_of(teacher, 2), tmp_path)
    assert compiled
    assert engines(tmp_path) == ["compiled"]


def test_what_stayed_eager_is_not_told_as_compiled(small, compiled):
    clarid = Clarid(small, **SETTING)
    clarid.compile_for(3)
    clarid.directions(torch.randn(2, 3, 32, 32), torch.tensor([0, 4]))
    assert not compiled
    assert clarid.product_engine == "forward"


def test_few_images_are_not_worth_a_compile(teacher, compiled, tmp_path):
    walk(teacher, tmp_path)
    assert manifest(tmp_path)["findings"]["engine_jvp"] == "eager"
    assert engines(tmp_path) == ["forward"] * 2
    assert not compiled
    with pytest.raises(UserError, match=r"begun with eager .* `engine_jvp` is compiled"):
        walk(teacher, tmp_path, engine_jvp="compiled")


@pytest.mark.parametrize("worth", [True, False])
def test_many_images_are(teacher, compiled, tmp_path, monkeypatch, worth):
    """By counts alone: at what the work ahead is, and just above."""
    ahead = flop_ahead(Clarid(teacher, **SETTING), 7)
    monkeypatch.setattr(
        "clarep.clarid.product_choice._WORTH_FLOP", ahead if worth else ahead * 1.01
    )
    walk(teacher, tmp_path, stop=1)
    assert manifest(tmp_path)["findings"]["engine_jvp"] == ("compiled" if worth else "eager")


def test_the_work_ahead_rises_with_images_directions_and_depth(small):
    def work(images=10, **changed):
        return flop_ahead(Clarid(small, **(SETTING | changed)), images)

    assert work(20) == 2 * work()
    assert work(k=10) == 2 * work()
    assert work(tap="up0") > work() > work(tap="down0") > 0
    assert work(kind="bottom") > 10 * work()
    assert work(kind="none") == work(kind="random") == 0


def test_the_controls_of_a_kind_across_the_class_are_compiled_too(small, compiled):
    for kind in ("contrast", "centre"):
        setting = SETTING | {"kind": kind, "tolerance": 1e-3}
        plain, ours = Clarid(small, **setting), Clarid(small, **setting, engine_jvp="compiled")
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        found, wanted = (c.directions(x, torch.tensor([0, 4])) for c in (ours, plain))
        energy = [s.singular_values.square().sum(1) for s in (found, wanted)]
        torch.testing.assert_close(energy[0], energy[1], rtol=1e-3, atol=0)
        assert ours.product_engine == "compiled"
