"""`clarep bench subspace` on a tiny teacher: what it writes, and mistakes."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.fx import GraphModule

from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.geometry.compiled import CompiledProducts
from clarep.teachers.unet import UNet, UNetConfig
from clarep.teachers.unet_teacher import save_unet


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    net = UNet(UNetConfig(patch=4, widths=(8, 16), embed_dim=16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():  # some layers start at zero
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    path = tmp_path / "teacher.safetensors"
    save_unet(net, path, CLASS_NAMES, 0.01, 80.0)
    return path


def bench(teacher: Path, *more: str) -> int:
    out = ["--out", str(teacher.parent / "bench")]
    return main(["bench", "subspace", "--teacher", str(teacher), *out, *more])


def small(teacher: Path, *more: str) -> int:
    sizes = ["--ks", "4", "--batches", "1", "2", "--images", "1", "--max-iterations", "12"]
    return bench(teacher, *sizes, *more)


def test_it_writes_and_prints_what_it_measured(teacher: Path, capsys: pytest.CaptureFixture[str]):
    assert small(teacher) == 0
    printed = capsys.readouterr().out
    path = teacher.parent / "bench" / "bench_subspace.json"
    assert printed.endswith(f"wrote {path}\n")
    assert "Times our cost" in printed
    assert "told by the exact SVD" in printed and "by itself" in printed
    result = json.loads(path.read_text())
    assert {"config", "problem", "cases", "ratios", "machine", "versions"} <= set(result)
    assert (result["problem"]["n"], result["problem"]["m"]) == (3072, 16 * 4 * 4)
    ours = [case for case in result["cases"] if case["method"] == "clarep"]
    assert {(case["k"], case["batch"], case["measure"]) for case in ours} == {
        (4, batch, measure) for batch in (1, 2) for measure in ("energy", "angle")
    }
    assert all(case["captured"] >= 0.985 for case in ours)
    assert all(case["captured"] <= 1 + 1e-4 for case in result["cases"])
    # Two references, two batches; stopped by the truth and by itself, each beside ours to the
    # energy and to the angle.
    assert len(result["ratios"]) == 2 * 2 * 4
    stops = [(ratio["reference_stop"], ratio["measure"]) for ratio in result["ratios"]]
    assert set(stops) == {(s, m) for s in ("truth", "own") for m in ("energy", "angle")}
    own = [ratio for ratio in result["ratios"] if ratio["reference_stop"] == "own"]
    assert not any(ratio["at_least"] for ratio in own)  # giving up is what the field does
    assert all(case["iterations"] for case in result["cases"] if case["method"] != "clarep")


@pytest.mark.slow
def test_compiled_products_stand_beside_eager_ones(
    teacher: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """By graphs that are run as they are traced, which takes no compile."""
    graphs: list[object] = []

    def as_traced(graph: GraphModule) -> GraphModule:
        graphs.append(graph)
        return graph

    made = functools.partial(CompiledProducts, compiler=as_traced)
    monkeypatch.setattr("clarep.geometry.benchmark.CompiledProducts", made)
    assert small(teacher, "--compiled", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert len(graphs) == 2  # J V of two sizes of batch
    eager, compiled = (
        [case for case in result["cases"] if case["method"] == name]
        for name in ("clarep", "clarep_compiled")
    )
    assert [(c["batch"], c["measure"]) for c in compiled] == [
        (c["batch"], c["measure"]) for c in eager
    ]
    for ours, theirs in zip(compiled, eager, strict=True):
        assert ours["products"] == theirs["products"]
        assert ours["captured"] == pytest.approx(theirs["captured"], abs=1e-4)
        flop = ours["products"] * result["problem"]["flop_a_pass"]
        assert 1e8 < flop / ours["arithmetic"] < 1e14  # a processor's FLOP a second
    assert {ratio["ours"] for ratio in result["ratios"]} == {"clarep", "clarep_compiled"}
    assert not any(ratio["against"].startswith("clarep") for ratio in result["ratios"])


def test_what_cannot_be_compiled_is_a_mistake(
    teacher: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def none(graph: GraphModule) -> GraphModule:
        raise RuntimeError("no such compiler")

    made = functools.partial(CompiledProducts, compiler=none)
    monkeypatch.setattr("clarep.geometry.benchmark.CompiledProducts", made)
    assert small(teacher, "--compiled") == 2
    assert "no such compiler" in capsys.readouterr().err


def test_json_goes_to_stdout_alone(teacher: Path, capsys: pytest.CaptureFixture[str]):
    sizes = ["--ks", "1", "--batches", "1", "--images", "1", "--max-iterations", "2"]
    assert bench(teacher, *sizes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["config"]["ks"] == [1]


def test_without_out_it_lands_in_runs(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    sizes = ["--ks", "1", "--batches", "1", "--images", "1", "--max-iterations", "2"]
    assert main(["bench", "subspace", "--teacher", str(teacher), *sizes]) == 0
    assert (tmp_path / "runs/bench/bench_subspace.json").exists()


def npz(folder: Path, size: int, label: int) -> str:
    images = np.random.default_rng(0).integers(0, 256, (12, size, size, 3), np.uint8)
    labels = np.arange(12) % 2 * label
    np.savez(folder / "images.npz", x=images, y=labels)
    return str(folder / "images.npz")


def test_other_data(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sizes = ["--ks", "1", "--batches", "1", "--images", "1", "--max-iterations", "2"]
    assert bench(teacher, *sizes, "--json", "--data", npz(tmp_path, 32, 1)) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["data"]["data"].endswith("images.npz")


@pytest.mark.parametrize(
    ("images", "says"),
    [((16, 1), "16"), ((32, 12), "label"), ((32, 1), "holds 12 images, fewer than the 16")],
)
def test_data_that_do_not_fit(
    teacher: Path, capsys: pytest.CaptureFixture[str], images: tuple[int, int], says: str
):
    batches = ["--batches", "16" if "fewer" in says else "1"]
    assert bench(teacher, *batches, "--data", npz(teacher.parent, *images)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--seed", "-1"], "-1 is below 0"),
        (["--tap", "middle"], "unknown tap 'middle': did you mean mid"),
        (["--ks", "257"], "k = 257 is outside 1 to 256"),
        (["--ks", "0"], "--ks 0 is below 1"),
        (["--images", "0"], "--images 0 is below 1"),
        (["--batches", "0"], "--batches 0 is below 1"),
        (["--device", "cuda"], "--device cuda cannot be timed"),
        (["--t", "1.5"], "t 1.5 is outside (0, 1)"),
        (["--teacher", "backdrop"], "unknown teacher 'backdrop': did you mean backdrops"),
    ],
)
def test_mistakes(teacher: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str):
    assert bench(teacher, *more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
