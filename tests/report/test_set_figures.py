"""What stands above a set's pictures."""

from clarep.report.set_figures import _without_folders


def test_a_title_has_no_long_path(tmp_path):
    deep = tmp_path / "far" / "away" / "photos" / "train"
    deep.mkdir(parents=True)
    (deep / "classes.txt").write_text("")
    assert _without_folders(str(deep / "classes.txt")) == "photos/train"
    assert _without_folders(str(deep)) == "photos/train"
    assert _without_folders("backdrops/train/seed=0/original") == "backdrops/train/seed=0/original"
