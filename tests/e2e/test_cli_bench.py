"""`clarep bench subspace` on a tiny teacher: what it writes, and mistakes."""

import json
from pathlib import Path

import pytest
import torch

from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.teachers import UNet, UNetConfig, save_unet


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
    sizes = ["--ks", "16", "--batches", "1", "2", "--images", "1", "--max-iterations", "12"]
    return bench(teacher, *sizes, *more)


def test_it_writes_and_prints_what_it_measured(teacher: Path, capsys: pytest.CaptureFixture[str]):
    assert small(teacher) == 0
    printed = capsys.readouterr().out
    path = teacher.parent / "bench" / "bench_subspace.json"
    assert printed.endswith(f"wrote {path}\n")
    assert "GFLOP/s" in printed
    assert "times our seconds" in printed
    result = json.loads(path.read_text())
    assert {"config", "problem", "cases", "ratios", "time_shares", "machine", "versions"} <= set(
        result
    )
    assert (result["problem"]["n"], result["problem"]["m"]) == (3072, 16 * 4 * 4)
    ours = [case for case in result["cases"] if case["method"] == "clarep"]
    assert {(case["k"], case["batch"], case["measure"]) for case in ours} == {
        (16, batch, measure) for batch in (1, 2) for measure in ("energy", "angle")
    }
    assert all(case["captured"] >= 0.985 for case in ours)
    assert all(case["captured"] <= 1 + 1e-4 for case in result["cases"])
    # Two references, each to the energy, to the angle and to its own stop, at two batches.
    assert len(result["ratios"]) == 2 * 3 * 2
    assert all(case["iterations"] for case in result["cases"] if case["method"] != "clarep")
    shares = result["time_shares"]
    total = shares["arithmetic"] + shares["factorisation"] + shares["other"]
    assert total == pytest.approx(1)


def test_json_goes_to_stdout_alone(teacher: Path, capsys: pytest.CaptureFixture[str]):
    sizes = ["--ks", "1", "--batches", "1", "--images", "1", "--max-iterations", "2"]
    assert bench(teacher, *sizes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["config"]["ks"] == [1]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--tap", "middle"], "unknown tap 'middle': did you mean mid"),
        (["--ks", "257"], "k = 257 is outside 1 to 256"),
        (["--ks", "0"], "k = 0 is outside"),
        (["--images", "0"], "--images 0 is below 1"),
        (["--batches", "0"], "--batches 0 is below 1"),
        (["--t", "1.5"], "t 1.5 is outside (0, 1)"),
        (["--teacher", "backdrop"], "unknown teacher 'backdrop': did you mean backdrops"),
    ],
)
def test_mistakes(teacher: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str):
    assert bench(teacher, *more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
