"""A set whose images do not fit in memory: each is read when its shard is made, and only then."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet, CanonicalSetWriter
from clarep.clarid.canonical_shards import find_manifest
from clarep.clarid.clarid import Clarid
from clarep.clarid.close_set import close_set
from clarep.clarid.identify import identify, identify_steps
from clarep.clarid.told_images import TOLD, is_told
from clarep.data import labelled
from clarep.data.labelled import LabelledImages, UnreadableImage
from clarep.engine.places import place_of
from clarep.errors import ClarepWarning, UserError
from clarep.report.verify.set_faults import mend_set, set_faults

COUNT, SIZE = 48, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8)
CHOSEN = np.arange(0, COUNT, 4)[::-1].copy()  # twelve, of two classes, in no order of theirs


def test_classes_that_the_teacher_has_never_heard_of_are_told(teacher, tmp_path, recwarn):
    clarid = Clarid(teacher, sigma=1.0, k=1, steps=1, kind="random")
    labels, sources = np.arange(COUNT) // 24, [str(i) for i in range(COUNT)]
    for names, said in ((("cat", "dog"), 0), (("cross", "disc"), 1), (("0", "1"), 0)):
        data = LabelledImages("x", labels, names, sources, PIXELS.__getitem__)
        identify(clarid, data, tmp_path / names[0], [0])
        found = [str(one.message) for one in recwarn.list if one.category is ClarepWarning]
        assert len(found) == said and all("'cross' with 'cat'" in text for text in found)
        recwarn.clear()


class Images:
    """Images of which each reading is noted, and some cannot be read."""

    def __init__(self, pixels=PIXELS, bad=(), labels=None):
        self.pixels, self.bad, self.reads = pixels, set(bad), []
        labels = np.arange(COUNT) // 24 if labels is None else labels
        sources = [f"{i}.png" for i in range(COUNT)]
        self.data = LabelledImages("x", labels, ("cat", "dog"), sources, self.read)

    def read(self, i):
        self.reads.append(i)
        if i in self.bad:
            raise UnreadableImage(f"{i}.png", "it is truncated")
        return self.pixels[i]


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    monkeypatch.setattr(labelled, "_MEMORY", 48 * 11)  # of twelve images that take 48 bytes


@pytest.fixture(autouse=True)
def few_for_findings(monkeypatch):
    """What the findings are of is read beforehand, here one image as of 128,000 are 1,000."""
    monkeypatch.setattr("clarep.clarid.identify.recognise", lambda *_, **__: None)


def steps_of(teacher, images, folder, **given):
    clarid = Clarid(teacher, sigma=2.0, steps=2, k=3, batch_size=2)
    return identify_steps(clarid, images.data, folder, CHOSEN, shard_size=SIZE, **given)


def walk(teacher, images, folder, **given):
    return [step.done for step in steps_of(teacher, images, folder, **given)]


@pytest.fixture
def whole(teacher, tmp_path):
    assert walk(teacher, Images(), tmp_path / "whole") == [0, 4, 8, 12]
    return tmp_path / "whole"


def shards_of(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.safetensors"))}


def test_each_image_is_read_when_its_shard_is_made(teacher, tmp_path):
    images = Images()
    steps = steps_of(teacher, images, tmp_path)
    next(steps)
    assert set(images.reads) == set(CHOSEN[:2].tolist())  # which the findings are of
    for start in (0, SIZE, 2 * SIZE):
        images.reads.clear()
        next(steps)
        assert images.reads == CHOSEN[start : start + SIZE].tolist()


def test_it_is_the_set_of_the_same_images_in_memory(teacher, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(labelled, "_MEMORY", 1e9)
    walk(teacher, Images(), tmp_path / "other")
    ours, theirs = CanonicalSet.load(whole), CanonicalSet.load(tmp_path / "other")
    assert ours.manifest["config"] == theirs.manifest["config"] == ours.config
    assert ours.config["data_sha256"] == Images().data.sha256(CHOSEN)
    assert torch.equal(ours.sample, theirs.sample) and torch.equal(ours.latent, theirs.latent)
    assert not list(set_faults(place_of(whole), Images().data))
    assert list(set_faults(place_of(whole), Images(PIXELS[::-1]).data))


def test_a_bad_image_ends_the_run_and_keeps_what_is_done(teacher, whole, tmp_path):
    images = Images(bad=CHOSEN[5:6].tolist())
    with pytest.raises(
        UserError, match=rf"{CHOSEN[5]}\.png: it is truncated; what is done is kept"
    ):
        walk(teacher, images, tmp_path / "canon")
    assert not list(set_faults(place_of(tmp_path / "canon"), Images().data))[1:]  # incomplete
    images.bad.clear()
    assert walk(teacher, images, tmp_path / "canon") == [4, 8, 12]
    assert shards_of(tmp_path / "canon") == shards_of(whole)
    ours, theirs = (CanonicalSet.load(place) for place in (tmp_path / "canon", whole))
    assert ours.sha256 == theirs.sha256


def test_a_stored_shards_image_that_changed_is_refused(teacher, tmp_path):
    steps = steps_of(teacher, Images(), tmp_path)
    assert [next(steps).done for _ in range(2)] == [0, 4]
    steps.close()
    for chosen, refused in ((CHOSEN[3], True), (CHOSEN[4], False)):
        other = PIXELS.copy()
        other[chosen, -1, -1, -1] ^= 1
        steps = steps_of(teacher, Images(other), tmp_path)
        if refused:
            with pytest.raises(UserError, match=rf"{chosen}\.png has changed since shard-00000"):
                next(steps)
        else:  # it is not in the set yet
            assert next(steps).done == 4
            steps.close()
    with pytest.raises(UserError, match="images or labels themselves"):
        next(steps_of(teacher, Images(labels=np.arange(COUNT) % 2), tmp_path))


def begun_as(folder, **other):
    """Change what the manifest and the shards' entries of a set that is begun say of it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["config"] |= other
    del manifest["content_sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_set_whose_images_were_told_at_its_beginning_is_refused(teacher, tmp_path):
    steps = steps_of(teacher, Images(), tmp_path)
    assert [next(steps).done for _ in range(2)] == [0, 4]
    steps.close()
    begun_as(tmp_path, data_sha256=Images().data.sha256(CHOSEN))
    with pytest.raises(UserError, match=r"begun by an earlier clarep.*give another `out`"):
        next(steps_of(teacher, Images(), tmp_path))


def test_a_set_of_no_directions_that_was_begun_in_tf32_is_refused(teacher, tmp_path):
    def steps():
        clarid = Clarid(teacher, sigma=2.0, steps=2, k=3, batch_size=2, kind="random")
        return identify_steps(clarid, Images().data, tmp_path, CHOSEN, shard_size=SIZE)

    begun = steps()
    assert [next(begun).done for _ in range(2)] == [0, 4]
    begun.close()
    setting = json.loads((tmp_path / MANIFEST).read_text())["config"]["clarid"]
    begun_as(tmp_path, clarid=setting | {"precision": "tf32"})
    said = 'precision: "tf32" there, "fp32" now.*give another `out`'
    with pytest.raises(UserError, match=said):
        next(steps())


def test_what_is_lost_is_made_again(teacher, whole):
    told, shards = CanonicalSet.load(whole).config, shards_of(whole)
    (whole / MANIFEST).unlink()
    assert CanonicalSet.load(whole).config == told
    (whole / "shard-00001.safetensors").write_bytes(b"")
    assert mend_set(place_of(whole))
    assert walk(teacher, Images(), whole) == [8, 12]
    assert shards_of(whole) == shards and CanonicalSet.load(whole).config == told
    assert walk(teacher, Images(), whole) == [12]


def test_parts_read_their_own_images_alone(teacher, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(CanonicalSetWriter, "finish", lambda self: False)
    for number in (1, 2):
        images = Images()
        steps = steps_of(teacher, images, tmp_path / "canon", part=(number, 2))
        next(steps)
        images.reads.clear()
        list(steps)
        ours = CHOSEN.reshape(-1, SIZE)[number - 1 :: 2]
        assert images.reads == ours.flatten().tolist()
    assert close_set(place_of(tmp_path / "canon"))
    assert shards_of(tmp_path / "canon") == shards_of(whole)
    assert CanonicalSet.load(tmp_path / "canon").config == CanonicalSet.load(whole).config


def test_data_that_are_read_otherwise_are_no_part_of_it(teacher, tmp_path):
    """Their labels are the same, and no image of theirs is stored."""
    plain, tinted = ({"data_options": {"cue": cue}} for cue in (None, "tint"))
    walk(teacher, Images(), tmp_path, part=(1, 2), described=plain)
    with pytest.raises(UserError, match='cue: null there, "tint" now'):
        walk(teacher, Images(), tmp_path, part=(2, 2), described=tinted)


def test_an_incomplete_set_is_held_beside_data_too(teacher, tmp_path):
    steps = steps_of(teacher, Images(), tmp_path)
    assert [next(steps).done for _ in range(2)] == [0, 4]
    steps.close()
    said = [fault.what for fault in set_faults(place_of(tmp_path), Images(PIXELS[::-1]).data)]
    assert any("has changed since shard-00000" in what for what in said)
    said = [fault.what for fault in set_faults(place_of(tmp_path), Images().data)]
    assert not any("has changed" in what for what in said)


@pytest.mark.parametrize(
    "forged", [1, [], [[0]], [[0, "x"]] * SIZE, [["0", "0" * 64]] * SIZE, [{}] * SIZE]
)
def test_what_is_forged_is_no_entry(whole, forged):
    manifest = find_manifest(place_of(whole))
    assert all(is_told(shard) and shard[TOLD] for shard in manifest["shards"])
    assert not is_told(manifest["shards"][0] | {TOLD: forged})
    (whole / MANIFEST).write_text(json.dumps(manifest | {"shards": [{TOLD: forged}]}))
    assert CanonicalSet.load(whole).config["data_sha256"]  # the shards tell it
