"""What the automatic setting draws, says beforehand and refuses at once."""

import numpy as np
import pytest

from clarep.clarid.clarid_config import ClaridConfig
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import read_json
from clarep.errors import UserError
from clarep.select.auto_setting import _drawn_from, auto_setting, expected_evaluations
from clarep.select.grid import GridConfig, draw_images
from mixture import MixtureTeacher

FEW = ClaridConfig(t=0.3, k=2, steps=2, batch_size=6)


def of(members: list[int]) -> LabelledImages:
    labels = np.repeat(np.arange(len(members)), members)
    names = tuple("abcdefghij")[: len(members)]
    return LabelledImages("few", labels, names, [""] * len(labels), lambda i: np.zeros(0, np.uint8))


def counts(data: LabelledImages, drawn: np.ndarray) -> list[int]:
    return np.bincount(data.labels[drawn], minlength=len(data.class_names)).tolist()


@pytest.mark.parametrize(
    ("members", "images", "expected"),
    [
        ([30, 30, 30], 12, [4, 4, 4]),
        ([30, 2, 30], 12, [5, 2, 5]),  # all of the rare class, more of the others
        ([30, 1, 30], 12, [6, 0, 6]),
        ([3, 2, 4], 40, [3, 2, 4]),
    ],
)
def test_it_draws_as_evenly_as_there_are_images(members, images, expected):
    data = of(members)
    drawn = _drawn_from(data, None, images, 0)
    assert counts(data, drawn) == expected
    assert np.array_equal(drawn, np.unique(drawn))
    if len(set(expected)) == 1:
        assert np.array_equal(drawn, draw_images(data, images, 0))  # as a grid draws them


def test_of_many_classes_it_takes_some_and_stays_within_the_images_it_is_given():
    data = of([9] * 10)
    assert sorted(counts(data, _drawn_from(data, None, 8, 0))) == [0] * 6 + [2] * 4
    among = np.array([0, 1, 2, 30, 31, 80, 88])
    assert set(_drawn_from(data, among, 40, 0)) == {0, 1, 2, 30, 31}
    with pytest.raises(UserError, match="two images of a class"):
        _drawn_from(data, np.array([0, 20]), 40, 0)


@pytest.mark.parametrize(("judged", "guidance"), [(False, 3.0), (True, 3.0), (True, 1.0)])
def test_it_says_beforehand_what_it_will_cost(judged, guidance, tmp_path, capsys):
    teacher = MixtureTeacher()
    data = teacher.data([0, 1, 2, 0, 1, 2])
    config = ClaridConfig(**(vars(FEW) | {"guidance": guidance}))
    judge = teacher.judge if judged else None
    auto_setting(teacher, data, config, folder=tmp_path, judge=judge, images=6)
    asked = GridConfig(t=(0.3,), k=(2,), steps=2, guidance=guidance, images=6)
    said = expected_evaluations(teacher, asked, judged)
    done = [
        sum(read_json(path)["cost"]["denoiser_evaluations"] for path in place.rglob("*.json"))
        for place in (tmp_path / "latents", tmp_path / "t-0.3")
    ]
    assert list(said) == done
    err = capsys.readouterr().err
    assert f"6 images of 3 classes, 2 each: {said[0]:,} denoiser evaluations" in err
    assert "s in all" in err and err.index("denoiser evaluations") < err.index("noise levels, ")
    auto_setting(teacher, data, config, folder=tmp_path, judge=judge, images=6)
    assert "denoiser evaluations" not in capsys.readouterr().err  # nothing is left to do


def test_one_class_is_refused_before_anything_is_computed(tmp_path):
    teacher = MixtureTeacher(classes=1)
    with pytest.raises(UserError, match="there is one class: give `t` and `k`"):
        auto_setting(teacher, teacher.data([0, 0, 0, 0]), FEW, folder=tmp_path)
    assert teacher.denoised == 0 and not list(tmp_path.iterdir())
