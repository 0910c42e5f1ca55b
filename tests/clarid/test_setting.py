"""t and k that nobody names: stored ones, fixed ones, and what is refused."""

import json
from dataclasses import replace

import pytest

from clarep.clarid import clarid_config
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.clarid_config import stored_in_full, stored_in_short
from clarep.engine.identity import plain
from clarep.errors import ClarepWarning, UserError
from clarep.teachers import stored_setting as stored_module
from clarep.teachers.stored_setting import FoundSetting, stored_setting

FOUND = FoundSetting(0.6, "block2", 5, "conditional", True, "it stands", "clarep select")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clarid_config, "stored_setting", lambda teacher: FOUND)


def test_it_is_found_by_the_weights_alone(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_module, "assets", lambda: tmp_path)
    card = {"weights": {"sha256": "linear"}, "setting": vars(FOUND)}
    (tmp_path / "any.json").write_text(json.dumps(card))
    assert stored_setting(teacher) == FOUND
    teacher.fingerprint = "another"
    assert stored_setting(teacher) is None


NAMED = {
    "nothing": ({}, (0.6, 5)),
    "both auto": ({"t": "auto", "k": "auto"}, (0.6, 5)),
    "k auto": ({"k": "auto"}, (0.6, 5)),
    "t auto": ({"t": "auto"}, (0.6, 5)),
    "k auto at its t": ({"t": 0.6, "k": "auto"}, (0.6, 5)),
    "t auto, another k": ({"t": "auto", "k": 3}, (0.6, 3)),
    "t": ({"t": 0.7}, (0.7, 0.04)),
    "k": ({"k": 3}, (None, 3)),
    "sigma": ({"sigma": 2.0}, (None, 0.04)),
    "another tap": ({"tap": "block1"}, (None, 0.04)),
    "another branch": ({"branch": "null"}, (None, 0.04)),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_not_named_is_settled(case: str, teacher, stored):
    named, (t, k) = NAMED[case]
    clarid = Clarid(teacher, **named)
    assert (clarid.config.t, clarid.config.k) == (t, k)
    if "sigma" not in named:
        assert clarid.sigma_te == teacher.sigma_from_t(t or 0.85)


@pytest.mark.parametrize("other", [{"guidance": 1.5}, {"steps": 2, "solver": "euler"}])
def test_a_stored_one_that_was_measured_otherwise_is_told(other, teacher, stored):
    with pytest.warns(ClarepWarning) as told:
        clarid = Clarid(teacher, **other)
    assert (clarid.config.t, clarid.config.k) == (0.6, 5)
    assert all(name in str(told[0].message) for name in other)
    Clarid(teacher, t=0.6, k=5, **other)  # named: nothing to tell, and warnings are errors


def test_a_stored_one_that_does_not_keep_the_class_warns(teacher, monkeypatch):
    least = replace(FOUND, stands=False)
    monkeypatch.setattr(clarid_config, "stored_setting", lambda teacher: least)
    with pytest.warns(ClarepWarning, match="k = 5 .* keeps the class"):
        assert Clarid(teacher).config.k == 5


def test_without_a_stored_one_it_is_fixed(teacher):
    clarid = Clarid(teacher)
    assert clarid.sigma_te == teacher.sigma_from_t(0.85)
    assert clarid.num_dirs == round(0.04 * teacher.latent_dim)


@pytest.mark.parametrize(
    "named", [{"t": "auto"}, {"k": "auto", "t": 0.5}, {"k": "auto", "sigma": 2.0}]
)
def test_auto_needs_images_where_nothing_is_stored(named, teacher):
    with pytest.raises(UserError, match="auto"):
        Clarid(teacher, **named)


def test_auto_elsewhere_than_at_the_stored_t_needs_images(teacher, stored):
    with pytest.raises(UserError, match="auto_setting"):
        Clarid(teacher, t=0.7, k="auto")


def test_sets_made_before_are_told_as_they_were(teacher):
    """A k of 0.04 was the default, and is left out to this day; read back it is named."""
    fixed = plain(Clarid(teacher, k=0.04).config)
    assert stored_in_short(fixed) == {}
    assert stored_in_short({}) == {}
    assert ClaridConfig(**stored_in_full({})) == Clarid(teacher, k=0.04).config
    other = plain(Clarid(teacher, t=0.6, k=5).config)
    assert stored_in_short(other) == {"t": 0.6, "k": 5}
