"""TOML tables into dataclasses: what is taken, and what each mistake says."""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from clarep.errors import UserError
from clarep.study.schema import build, read_toml


@dataclass(frozen=True)
class Inner:
    weight: float = 1.0
    steps: int = 5


@dataclass(frozen=True)
class Settings:
    count: int
    rate: float = 0.1
    k: int | float | str = 4
    name: str | None = None
    is_on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    place: Path | None = None
    eps: tuple[float, ...] = (1.0,)
    pair: tuple[int, str] = (1, "a")
    t: float | Literal["auto"] | None = None
    inner: Inner = field(default_factory=Inner)


def made(text: str, tmp_path: Path) -> Settings:
    path = tmp_path / "x.toml"
    path.write_text(text)
    return build(Settings, read_toml(path), "x.toml: [train]")


def test_every_type(tmp_path):
    text = """
    count = 3
    rate = 2
    k = "energy:0.8"
    name = "n"
    is_on = true
    mode = "slow"
    place = "a/b"
    eps = [0.5, 1, 2]
    pair = [7, "z"]
    inner = {weight = 2, steps = 1}
    """
    expected = Settings(
        count=3,
        rate=2.0,
        k="energy:0.8",
        name="n",
        is_on=True,
        mode="slow",
        place=Path("a/b"),
        eps=(0.5, 1.0, 2.0),
        pair=(7, "z"),
        inner=Inner(2.0, 1),
    )
    built = made(text, tmp_path)
    assert built == expected
    assert isinstance(built.rate, float)
    assert isinstance(built.eps[1], float)


@pytest.mark.parametrize(("given", "kind"), [("3", int), ("0.25", float), ('"energy:0.5"', str)])
def test_a_union_keeps_the_type_that_was_given(given, kind, tmp_path):
    assert type(made(f"count = 1\nk = {given}", tmp_path).k) is kind


def test_what_is_absent_keeps_its_default(tmp_path):
    assert made("count = 1", tmp_path) == Settings(count=1)


WRONG = {
    "unknown": ("count = 1\nrte = 2", "x.toml: [train] unknown key 'rte': did you mean rate"),
    "lacking": ("", "x.toml: [train] lacks count"),
    "text for a number": ('count = "1"', "count = '1' is of the wrong type: give a whole number"),
    "fraction for a whole": ("count = 1.5", "count = 1.5 is of the wrong type"),
    "bool for a whole": ("count = true", "count = True is of the wrong type"),
    "bool for a number": ("count = 1\nrate = true", "rate = True is of the wrong type"),
    "number for bool": ("count = 1\nis_on = 1", "give true or false"),
    "literal": ('count = 1\nmode = "fsat"', "mode: unknown value 'fsat': did you mean fast"),
    "list": ("count = 1\neps = 2", "eps = 2 is of the wrong type: give a list in [brackets]"),
    "item": ('count = 1\neps = ["a"]', "eps = 'a' is of the wrong type: give a number"),
    "length": ("count = 1\npair = [1]", "give a list of 2"),
    "inner": ("count = 1\ninner = 2", "inner = 2 is of the wrong type: give a table"),
    "inner key": ("count = 1\ninner = {wieght = 2}", "[train.inner] unknown key 'wieght': did"),
    "union": ("count = 1\nk = [1]", "give a whole number or a number or a string in quotes"),
    "union with a word": (
        'count = 1\nt = "half"',
        "t = 'half' is of the wrong type: give a number or 'auto'",
    ),
    "optional": ("count = 1\nname = 2", "name = 2 is of the wrong type: give a string in quotes"),
    "NaN": ("count = 1\nrate = nan", "rate is nan, which is no finite number"),
    "infinity, deep": ("count = 1\nx = {a = [{b = inf}]}", "x.a[0].b is inf"),
    "1e13": ("count = 10_000_000_000_000", "count = 10000000000000 is out of range"),
    "a float of 1e13": ("count = 1\nrate = -1e13", "rate = -10000000000000.0 is out of range"),
    "1e13 in a list": ("count = 1\neps = [1e13]", "eps = 10000000000000.0 is out of range"),
    "1e13 in a union": ("count = 1\nk = 10_000_000_000_000", "k = 10000000000000 is out of range"),
    "5,000 digits": (f"count = {'9' * 5000}", "x.toml is not valid TOML"),
    "400 digits": (f"count = 1\nrate = {'9' * 400}", "rate is a whole number beyond 64 bits"),
    "brackets": (f"count = {'[' * 100_000}", "x.toml is not valid TOML"),
    "closed brackets": (f"count = {'[' * 100}1{']' * 100}", "brackets are nested more than"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_names_file_table_key_and_mend(case, tmp_path):
    text, words = WRONG[case]
    with pytest.raises(UserError) as raised:
        made(text, tmp_path)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_fields_that_may_not_be_given(tmp_path):
    with pytest.raises(UserError, match="unknown key 'rate'"):
        build(Settings, {"count": 1, "rate": 0.2}, "x", without=("rate",))


def test_no_such_file_and_no_toml(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*no\.toml.*No such file"):
        read_toml(tmp_path / "no.toml")
    os.mkfifo(tmp_path / "pipe.toml")  # which would be waited for
    for no_file in (tmp_path, tmp_path / "pipe.toml"):
        with pytest.raises(UserError, match=r"cannot read .*: give an existing"):
            read_toml(no_file)
    path = tmp_path / "bad.toml"
    path.write_text("a = ")
    with pytest.raises(UserError, match="is not valid TOML"):
        read_toml(path)
    path.write_text("a = 1\n" + "#" * (1 << 20))
    with pytest.raises(UserError, match="over 1 MiB"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not valid TOML"):
        read_toml(path)


def test_a_damaged_recipe_is_read_or_refused(tmp_path):
    """Bytes of a whole recipe changed, doubled and left out: never another exception."""
    whole = b'a = 1\nb = [1.5, "x", {c = true, d = 2020-01-01}]\n[t.u]\n"k k" = """l\nm"""\n'
    draw, path = random.Random(0), tmp_path / "x.toml"
    read = 0
    for _ in range(500):
        text = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(text))
            piece = text[at : at + draw.randint(0, 5)] * draw.choice([0, 2, 500])
            text[at : at + 1] = draw.choice([piece, bytes([draw.randrange(256)]), b"[" * 2000])
        path.write_bytes(text)
        try:
            read += isinstance(read_toml(path), dict)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
    assert 0 < read < 500
