import numpy as np
import pytest

from clarep.cli.main import main
from clarep.data import garment_arrays


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--train.steps 0", "--train.steps 0 is below 1"),
        ("--train.batch-size 0", "--train.batch-size 0 is below 2"),
        ("--train.learning-rate 0", "--train.learning-rate 0.0 is not a finite number above 0"),
        ("--train.seed -1", "seed -1 is outside"),
    ],
)
def test_settings_that_cannot_be_trained_with(tmp_path, capsys, option, message):
    garments, labels = garment_arrays("train")
    x, y = garments[:8] ^ 1, labels[:8]
    path, out = tmp_path / "garments.npz", tmp_path / "run"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    options = ["--garments", str(path), "--out", str(out), *option.split()]
    assert main(["train-judge", *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
