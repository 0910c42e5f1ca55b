"""Whatever bytes a file of a user's holds: a result or one sentence, and nothing else is done."""

import random
import resource
from pathlib import Path

import pytest

import hostile
from clarep.data.decode_image import decode_image
from clarep.data.listing import image_suffixes
from clarep.engine.tensors import read_tensors
from clarep.errors import UserError

INPUTS = 10_000
MEMORY_MIB = 1_000  # that all of them together may take at most at one time
NAMES = (
    *("manifest", "shard", "safetensors", "student", "student's bytes", "student's config"),
    *("teacher", "evaluation", "recipe", "npz", "npz's array", "npz's labels", "npy", "image"),
    *("tar", "cifar", "torch", "pickle", "history", "classes"),
)


def edits(drawn: random.Random) -> list[hostile.Edit]:
    """At most four; one place in four is near the front, where headers and counts lie."""
    return [
        (
            drawn.randrange(drawn.choice((16, 2**16, 2**16, 2**16))),
            drawn.randrange(8),
            drawn.randbytes(drawn.randrange(7)),
        )
        for _ in range(drawn.randrange(5))
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hostile.Target]:
    return hostile.targets(tmp_path_factory.mktemp("hostile"))


def test_every_target_is_fed(made: dict[str, hostile.Target]):
    assert set(NAMES) == set(made)


@pytest.mark.parametrize("name", NAMES)
def test_whole_inputs_are_taken(made: dict[str, hostile.Target], name: str):
    """Else what is made of them would be refused at the door, and no test of what lies behind."""
    assert hostile.feed(made[name], made[name].seeds[0])


def test_the_watch_sees_what_a_reader_may_not_do(tmp_path: Path):
    import os

    for act in (
        lambda path: os.system("true"),
        lambda path: (tmp_path / "written").write_text("x"),
        lambda path: (path.unlink(), path.touch()),
    ):
        target = hostile.Target([b""], act, tmp_path / "x")
        with pytest.raises(AssertionError):
            hostile.feed(target, b"")


@pytest.mark.parametrize("name", NAMES)
def test_a_result_or_one_sentence(made: dict[str, hostile.Target], name: str):
    target = made[name]
    count = int(INPUTS * target.share / sum(one.share for one in made.values()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = {True: 0, False: 0}
    drawn = random.Random(name)
    for _ in range(count):
        seed, changes = drawn.choice(target.seeds), edits(drawn)
        try:
            taken[hostile.feed(target, hostile.edited(seed, changes))] += 1
        except BaseException as error:
            raise AssertionError(f"wrongly read: {seed!r}, {changes}") from error
    assert taken[True] and taken[False]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEMORY_MIB, f"{grown} MiB"


@pytest.mark.parametrize(
    ("name", "found", "forged"),
    [
        ("student", rb"resnet8-half\", ", rb"vit-tiny\", \"activation\": null, "),
        ("student", b"[3, 8, 8]", b"[3, 80000, 80000]"),
        ("student", b"[3, 8, 8]", b"[4000000000, 8, 8]"),
        ("teacher", b'embed_dim\\": 8', b'embed_dim\\": 4000000000'),
        ("teacher", b'widths\\": [8]', b'widths\\": [800000]'),
        ("teacher", b'encoder_blocks\\": 1', b'encoder_blocks\\": 4000000000'),
        ("teacher", b'patch\\": 2', b'patch\\": 80000'),
        ("teacher", b'num_classes\\": 3', b'num_classes\\": 4000000000'),
        ("teacher", b'image_channels\\": 3', b'image_channels\\": 400000000'),
    ],
)
def test_a_network_that_is_told_to_be_vast_is_not_built(made, name, found, forged):
    target = made[name]
    header = target.seeds[0]
    assert found in header
    vast = header.replace(found, forged).replace(b"[3, 8, 8]", b"[3, 80000, 80000]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = hostile.feed(target, vast)
    assert not taken or b"resnet8-half" in vast  # which takes images of any size
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50


def test_a_header_or_a_count_that_declares_gigabytes_takes_none(tmp_path: Path, made):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "t.safetensors"
    with open(path, "wb") as stream:
        stream.write((90 << 20).to_bytes(8, "little"))
        stream.truncate(100 << 20)
    with pytest.raises(UserError, match="are the most"):
        read_tensors(path, "tensors")
    memo = b"\x80\x02]r\xff\xff\xff\x7f."  # a list, noted under the number 2^31 - 1
    for name in ("pickle", "cifar", "torch"):
        hostile.feed(made[name], memo)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 50


def test_a_picture_that_is_a_program_is_not_run():
    eps = hostile.images()["EPS"]
    with hostile.watched() as done, pytest.raises(UserError, match="no image of a format"):
        decode_image(eps, "x.png")
    assert not done and ".eps" not in image_suffixes() and ".png" in image_suffixes()


@pytest.mark.parametrize("side", [9_500, 30_000])
def test_a_bomb_of_pixels_is_told_by_its_header(side: int):
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bomb = hostile.with_crc(head + b"\0\0\0\0" + b"\0\0\0\0IEND\0\0\0\0")
    with pytest.raises(UserError, match="more than 89478485 pixels"):
        decode_image(bomb, "x.png")
