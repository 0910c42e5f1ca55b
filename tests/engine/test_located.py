import os

import pytest

from clarep.engine.identity import located


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "w?.pt").write_text("")
    (tmp_path / "link").symlink_to("a b")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("a b", "{}/a b"),
        ("./a b/../a b/", "{}/a b"),
        ("link/w?.pt", "{}/a b/w?.pt"),
        ("~/a b", "{}/a b"),
        ("dit:a b", "dit:{}/a b"),
        ("dit:~/a b?heads=3&x=y", "dit:{}/a b?heads=3&x=y"),
        ("dit:link/w?.pt", "dit:{}/a b/w?.pt"),
        ("backdrops", "backdrops"),
        ("sd:owner/name", "sd:owner/name"),
        ("dit:", "dit:"),
        ("", ""),
        ("~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("x" * 5_000, "x" * 5_000),
    ],
)
def test_what_is_there_is_stored_by_its_absolute_path(place, found):
    assert located(place) == found.replace("{}", os.getcwd())
