"""What is stored of a config is what differs from its defaults; full forms are read as equal."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path

import pytest

from clarep.clarid.clarid_config import ClaridConfig
from clarep.distill.methods import METHODS
from clarep.distill.trainer.training_config import TrainingConfig
from clarep.engine import identity
from clarep.engine.identity import address, in_full, plain, recorded, shortened


@dataclass(frozen=True)
class Inner:
    size: int = 3
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=lambda: Inner(rate=0.1))
    steps: tuple[int, ...] = (1, 2)
    place: Path | None = None
    flag: bool = True


def test_what_differs_from_the_defaults_is_recorded_nested():
    assert recorded(Outer("x")) == {"name": "x"}
    given = Outer("x", Inner(4, 0.1), (1,), Path("a"), False)
    short = {"name": "x", "inner": {"size": 4}, "steps": [1], "place": "a", "flag": False}
    assert recorded(given) == short
    assert recorded(Outer("x", Inner(rate=0.5))) == {"name": "x", "inner": {"rate": 0.5}}


@pytest.mark.parametrize("given", [Outer("x"), Outer("y", Inner(4), (5,), Path("b"), False)])
def test_full_and_short_forms_are_equal(given):
    full = plain(asdict(given))
    assert in_full(Outer, recorded(given)) == in_full(Outer, full) == full
    assert shortened(Outer, full) == recorded(given)


def test_a_new_option_leaves_alone_what_was_stored_before_it():
    more = make_dataclass("More", [("new", int, 7)], bases=(Inner,), frozen=True)
    assert recorded(more(size=9)) == recorded(Inner(size=9))
    assert address(recorded(more())) == address(recorded(Inner()))
    assert in_full(more, plain(Inner(9))) == plain(more(9))
    assert recorded(more(9, new=8), Inner) == {"size": 9}  # of a base's fields alone


def test_what_this_clarep_does_not_know_is_kept():
    assert shortened(Inner, {"size": 3, "old": 1}) == {"old": 1}
    assert in_full(Inner, {"old": 1}) == {"size": 3, "rate": 0.5, "old": 1}


def test_an_address_knows_content_and_not_order(monkeypatch):
    assert address({"a": 1, "b": 2}) == address({"b": 2, "a": 1}) != address({"a": 1})
    before = address({"a": 1}), recorded(Inner())
    monkeypatch.setattr(identity, "DEFAULTS", 2)
    assert address({"a": 1}) != before[0] and recorded(Inner()) == {"defaults": 2}


def test_a_default_that_changes_is_told():
    """What equals its default is not stored, so the default's value is part of what is.

    This digest differs after a default was changed: then raise `identity.DEFAULTS` by one, write
    the new digest here and say in CHANGELOG that studies get new addresses. A new option alone
    changes it too, and leaves `DEFAULTS`.
    """
    kinds = {method.Config for method in METHODS.values()} | {TrainingConfig, ClaridConfig}
    defaults = {kind.__name__: in_full(kind, {}) for kind in kinds}
    digest = hashlib.sha256(json.dumps(defaults, sort_keys=True).encode()).hexdigest()
    assert (identity.DEFAULTS, digest[:12]) == (1, "6b7358a75b15")
