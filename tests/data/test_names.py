"""Names in a block are a list's; a folder of images is listed once."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clarep.data.held_out import training_splits
from clarep.data.load import DataConfig, load_data
from clarep.data.names import Names

TEXTS = st.lists(st.text(st.characters(exclude_categories=())))


@given(texts=TEXTS, more=TEXTS)
def test_they_are_those_of_a_list(texts: list[str], more: list[str]):
    names = Names(texts)
    names.extend(more)
    wanted = texts + more
    assert list(names) == wanted and len(names) == len(wanted)
    assert names[1:-1] == wanted[1:-1] and names[::-2] == wanted[::-2]
    for i in range(-len(wanted), len(wanted)):
        assert names[i] == names[np.int64(i)] == wanted[i]
    for i in (len(wanted), -len(wanted) - 1):
        with pytest.raises(IndexError):
            names[i]


@pytest.mark.parametrize("places", [["{split}/a", "{split}/b"], ["land", "sea"]])
def test_every_class_folder_is_listed_once(tmp_path: Path, monkeypatch, places: list[str]):
    splits = ("train", "test") if "{" in places[0] else ("",)
    folders = [tmp_path / place.format(split=split) for place in places for split in splits]
    for folder in folders:
        for i in range(12):
            inner = folder / ("deep" if i % 2 else "")
            inner.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (i, 0, 0)).save(inner / f"{i}.png")
    listed: Counter[Path] = Counter()
    scandir = os.scandir

    def counted(path):
        listed[Path(path)] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    training_splits(DataConfig(data=str(tmp_path)), False, print, print)
    assert {listed[inner] for folder in folders for inner in (folder, folder / "deep")} == {1}
    assert len(load_data(tmp_path)) == 12 * len(folders) // len(splits)
