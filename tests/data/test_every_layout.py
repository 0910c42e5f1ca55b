"""Every law over every layout: the same images are the same set, wherever they lie."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import image_layouts as layouts
from clarep.data.files import NoSplitError
from clarep.data.held_out import training_splits
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig, load_data, load_test, stored_options
from clarep.distill.trainer.train_images import TrainImages
from clarep.errors import UserError


@pytest.fixture(scope="module", params=layouts.DIVIDED)
def place(request, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `--data` takes of one layout, of which tests change nothing."""
    root = tmp_path_factory.mktemp("layout")
    cache = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    import datasets

    patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    request.addfinalizer(patch.undo)
    return layouts.DIVIDED[request.param](root)


def of(place: str, split: str = "train", **options) -> LabelledImages:
    return load_data(DataConfig(data=place, split=split, **options))


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_labels_and_classes_are_those_written(place: str, split: str):
    x, y = layouts.pixels(split)
    data = of(place, split)
    assert data.class_names == layouts.CLASSES and data.notes == ()
    assert_array_equal(data.labels, y)
    assert_array_equal(data.images(range(len(x))).permute(0, 2, 3, 1), x)
    assert_array_equal(data.read(5), data.read(5))
    assert len(set(data.sources)) == len(data) == len(x)


def test_the_hash_is_of_the_content_alone(place: str):
    x, y = layouts.pixels("train")
    names = [str(i) for i in range(len(x))]
    wanted = LabelledImages("mine", y, layouts.CLASSES, names, lambda i: x[i])
    assert of(place).sha256() == wanted.sha256()
    assert of(place).sha256([7, 2]) == wanted.sha256([7, 2]) != wanted.sha256([2, 7])
    assert of(place, "test").sha256() != wanted.sha256()
    assert of(place).marks([3]) == wanted.marks([3])


def test_any_share_and_size_can_be_had(place: str):
    part = of(place, share=0.5, data_seed=3)
    assert np.bincount(part.labels).tolist() == [2, 2, 2]
    assert part.sha256() == of(place, share=0.5, data_seed=3).sha256()
    assert of(place, image_size=4).images([0, 11]).shape == (2, 3, 4, 4)
    tinted = of(place, cue="tint", correlation=1.0)
    assert len(tinted) == 12 and (tinted.read(0) != of(place).read(0)).any()


def test_a_split_that_is_not_there_is_refused(place: str):
    with pytest.raises(NoSplitError):
        of(place, "val")
    config, found = load_test(DataConfig(data=place))
    assert (config.split, len(found)) == ("test", 6)


def test_a_stored_place_is_found_from_elsewhere(place: str, tmp_path: Path, monkeypatch):
    root = Path(place.rpartition(":")[2]).parent
    while "{" in str(root):
        root = root.parent
    monkeypatch.chdir(root)
    relative = place.replace(f"{root}/", "")
    assert relative != place
    stored = stored_options(DataConfig(data=relative))
    monkeypatch.chdir(tmp_path)
    assert stored["data"] == place
    assert of(stored["data"]).sha256() == of(place).sha256()


def test_other_processes_decode_it(place: str):
    images = TrainImages.of(of(place), np.arange(12), memory_mb=0.0, workers=1)
    (batch,) = images.batches([np.array([3, 1])])
    assert_array_equal(batch, of(place).images([3, 1]))


def test_a_teacher_is_trained_on_one_split_and_measured_on_the_other(place: str):
    splits = training_splits(DataConfig(data=place), False, print, print)
    assert (len(splits.trained), len(splits.held_out), splits.bad) == (12, 6, [])


def test_an_option_of_other_sets_is_refused(place: str):
    for option in ({"correlation": 0.5}, {"variant": "only_fg"}, {"data_seed": 1}):
        with pytest.raises(UserError, match="does not apply to"):
            of(place, **option)


def test_a_place_that_is_none_is_refused(place: str, tmp_path: Path):
    family, _, path = place.rpartition(":")
    gone = f"{family}:{tmp_path}/none{Path(path).suffix}".lstrip(":")
    with pytest.raises(UserError, match="none"):
        of(gone)
    if family == "wds":
        shutil.copy(__file__, tmp_path / "none.tar")
        with pytest.raises(UserError, match=r"none\.tar as a tar file"):
            of(f"wds:{tmp_path}/none.tar")
