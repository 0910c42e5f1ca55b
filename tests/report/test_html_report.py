"""The page: what it says of whole and of incomplete runs, and that its numbers are those."""

import base64
import csv
import html
import json
import re
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.main import _parse
from clarep.engine.artefacts import read_json
from clarep.engine.statistics import t_interval
from clarep.engine.tensors import read_tensors, save_tensors
from clarep.errors import UserError
from clarep.report.html import build_report
from clarep.report.measures_table import write_classifier, write_measures
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import heading_of
from clarep.select.clarep_measures import Measures
from clarep.study.comparison import compare
from clarep.study.runs import read_run

SECTIONS = (
    "canonical", "results", "attacks", "corruptions", "backgrounds", "beyond", "calibration",
    "focus", "features", "setup", "cost", "data",
)  # fmt: skip


class Tree(HTMLParser):
    """Checks that tags nest, and gathers ids, links, sources and text by section."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.hrefs: list[str] = []
        self.sources: list[str] = []
        self.sections: dict[str, str] = {}
        self.section = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.hrefs += [given["href"]] if "href" in given else []
        self.sources += [given["src"]] if "src" in given else []
        if tag in ("section", "h1"):
            self.section = given.get("id", tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("section", "h1"):
            self.section = ""

    def handle_data(self, data):
        self.sections[self.section] = self.sections.get(self.section, "") + data


@pytest.fixture(scope="session")
def tree(report: Path) -> Tree:
    return Tree(report.read_text())


def build(runs, tmp_path, canon=None) -> Tree:
    return Tree(build_report(runs, canon, tmp_path / "out").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_page_has_all_sections_and_needs_nothing_else(tree):
    assert set(SECTIONS) <= set(tree.sections)
    assert len(tree.ids) == len(set(tree.ids))
    anchors = {href[1:] for href in tree.hrefs if href.startswith("#")}
    assert anchors == {*SECTIONS, "another-seed"}
    assert anchors <= set(tree.ids)
    assert all(href.startswith(("#", "data:")) for href in tree.hrefs)
    assert tree.sources
    assert all(source.startswith("data:image/png;base64,") for source in tree.sources)


def test_the_main_table_is_the_mean_over_seeds_with_its_interval(runs, report):
    key = "attack/pgd-linf/eps_255=1"
    values = [Evaluation.load(run / "robustness")[key].value for run in runs[:2]]
    [row] = [
        row
        for row in rows(report.parent / "data" / "main_table.csv")
        if (row["method"], row["key"]) == ("vanilla", key)
    ]
    low, high = t_interval(values)
    assert float(row["value"]) == pytest.approx(sum(values) / 2)
    assert (float(row["low"]), float(row["high"])) == pytest.approx((low, high))
    assert row["seeds"] == "2"
    shown = f"{sum(values) / 2:.3f}"
    assert shown in Tree(report.read_text()).sections["results"]


def test_every_measurement_can_be_taken_away(runs, report):
    loaded = json.loads((report.parent / "data" / "measurements.json").read_text())
    expected = [
        (run.name, one.key, one.value)
        for run in runs
        for one in Evaluation.load(run / "robustness").measurements
    ]
    assert [(row["run"], row["key"], row["value"]) for row in loaded] == expected


def test_other_test_sets_have_a_section_only_where_one_was_measured(tree, fabricated, tmp_path):
    assert "cifar10.1" in tree.sections["beyond"]
    without = build([fabricated.make_run(tmp_path / "run", without=("beyond",))], tmp_path)
    assert "beyond" not in without.sections


def test_the_links_hold_the_files_beside_the_page(report):
    found = re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]*)"', report.read_text())
    written = {path.name: path.read_bytes() for path in (report.parent / "data").iterdir()}
    assert {name: base64.b64decode(text) for name, text in found} == written
    assert len(found) == len(written)


def test_a_figure_that_is_not_trustworthy_is_marked_and_explained(report, tree):
    reason = "256 steps lower it by 9 points"
    assert f'class="untrusted" title="{reason}"' in report.read_text()
    for section, names in (("results", ["PGD"]), ("attacks", ["worst", "PGD", "APGD-CE"])):
        text = tree.sections[section]
        (note,) = (line for line in text.split("†")[1:] if reason in line)  # of all its figures
        assert note.strip().startswith("random, ")
        assert all(f"{name} 4/255" in note for name in names)
    assert "hollow" in report.read_text()


def test_differences_from_vanilla_are_marked(tree, runs, tmp_path):
    assert "▲ better" in tree.sections["results"].split("Shares as fractions")[0]
    without = build(runs[2:], tmp_path)
    assert "no evaluated run of method vanilla" in without.sections["results"]


def test_originals_reconstructions_and_both_features_are_shown_where_the_teacher_is(tree):
    assert "reconstruction" in tree.sections["canonical"].split("The first stored")[0]
    assert "k = 4" in tree.sections["features"]
    assert "before, inverted latents" in tree.sections["features"]
    assert "after, CLAReps" in tree.sections["features"]


def test_whether_the_teacher_knows_the_classes_is_told(tree, canon):
    """The report's teacher has learnt nothing."""
    found = CanonicalSet.load(canon).manifest["findings"]["recognition"]
    assert found["verdict"] == "near chance"
    section = tree.sections["canonical"]
    assert found["said"] in section and "say nothing of the classes" in section


def test_a_set_without_its_pictures_or_with_those_of_another_says_what_gives_them(
    runs, canon, tmp_path
):
    shutil.copytree(canon, tmp_path / "canon")
    pictures = tmp_path / "canon" / "pictures.safetensors"
    tensors, about = read_tensors(pictures, "pictures")
    save_tensors(pictures, tensors, about | {"canonical_sha256": "0" * 64})
    other = build(runs[:1], tmp_path, tmp_path / "canon")
    pictures.unlink()
    for page, reason in (
        (other, "is of another canonical set"),
        (build(runs[:1], tmp_path, tmp_path / "canon"), "is missing"),
    ):
        for section in ("canonical", "features"):
            assert f"{reason}: the same clarep identify command" in page.sections[section]
        assert "canonical sample" in page.sections["canonical"]
        assert "guidance alone" not in page.sections["canonical"]
        assert "after, CLAReps" in page.sections["features"]
        assert "before, inverted latents" not in page.sections["features"]


def test_a_damaged_canonical_set_that_was_given_is_refused(runs, canon, tmp_path):
    shutil.copytree(canon, tmp_path / "canon")
    (tmp_path / "canon" / "shard-00000.safetensors").write_bytes(b"cut")
    for given in (tmp_path / "canon", tmp_path):
        with pytest.raises(UserError, match="truncated or changed"):
            build_report(runs[:1], given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_canonical_set_in_a_runs_folder_is_found(runs, canon, tmp_path):
    shutil.copytree(runs[0], tmp_path / "run")
    shutil.copytree(canon, tmp_path / "run" / "canon")
    found = build([runs[1], tmp_path / "run"], tmp_path).sections["canonical"]
    assert found == build([runs[1], tmp_path / "run"], tmp_path, canon).sections["canonical"]
    (tmp_path / "run" / "canon" / "shard-00000.safetensors").write_bytes(b"cut")
    page = build([tmp_path / "run"], tmp_path)  # it was not asked for: the rest is shown
    assert "truncated or changed" in page.sections["canonical"]
    assert "clean" in page.sections["results"]


def test_what_cannot_be_measured_is_not_advised_and_what_speaks_against_figures_is_said(
    fabricated, tmp_path
):
    run = fabricated.make_run(tmp_path / "x", without=("background", "focus", "examples"))
    evaluation = Evaluation.load(run / "robustness")
    evaluation.config["suite"] = {"groups": ["clean", "attacks", "backgrounds", "focus"]}
    evaluation.config["caveat"] = "figures are a little too good"
    evaluation.save(run / "robustness")
    told = []
    page = Tree(build_report([run], None, tmp_path / "out", tell=told.append).read_text())
    assert not [text for text in told if "clarep evaluate" in text]
    few = fabricated.make_run(tmp_path / "few", without=("background", "focus", "attack"))
    build_report([run, few], None, tmp_path / "both", tell=told.append)
    assert [text[:7] for text in told if "clarep evaluate" in text] == ["Attacks"]
    assert "masks or boxes" in page.sections["backgrounds"]
    assert "x: figures are a little too good" in page.sections["results"]


def test_a_group_that_was_not_measured_is_said_and_the_rest_shown(fabricated, tmp_path):
    sections = {
        "attack": "attacks",
        "corruption": "corruptions",
        "background": "backgrounds",
        "calibration": "calibration",
        "focus": "focus",
    }
    runs = [
        fabricated.make_run(tmp_path / group, seed=seed, without=(group,))
        for seed, group in enumerate(sections)
    ]
    page = build(runs, tmp_path)
    assert "This report is incomplete" in page.sections[""]
    for run in runs:
        told = f"not measured on {run.name}: clarep evaluate {run}"
        for section in sections.values():
            assert (told in page.sections[section]) == (section == sections[run.name])


def test_a_run_without_evaluation_and_a_page_without_canonical_set(fabricated, tmp_path):
    runs = [
        fabricated.make_run(tmp_path / "measured"),
        fabricated.make_run(tmp_path / "trained", "cadistill", evaluated=False),
    ]
    page = build(runs, tmp_path)
    assert f"clarep evaluate {runs[1]}" in page.sections["setup"]
    assert "--canon" in page.sections["canonical"]
    assert "One seed only" in page.sections["setup"]
    alone = build(runs[1:], tmp_path)
    assert "No run is evaluated" in alone.sections["results"]


def test_a_run_without_weights_is_to_be_trained_first(fabricated, tmp_path):
    runs = [
        fabricated.make_run(tmp_path / "measured"),
        fabricated.make_run(tmp_path / "begun", "cadistill", evaluated=False),
    ]
    (runs[1] / "student" / "student.safetensors").unlink()
    said = build(runs, tmp_path).sections["setup"]
    assert "begun has no weights (no student/student.safetensors)" in said
    assert f"clarep distill --out {runs[1]} with the options" in said
    assert "is not evaluated" not in said


def test_a_damaged_evaluation_is_not_called_missing(fabricated, tmp_path):
    run = fabricated.make_run(tmp_path / "run")
    (run / "robustness" / "evaluation.json").write_text("{")
    said = build([run], tmp_path).sections["setup"]
    assert "the evaluation of run cannot be used: cannot read" in said


def test_one_seed_is_no_incomplete_report(fabricated, canon, tmp_path):
    run = fabricated.make_run(tmp_path / "run")
    page = build([run], tmp_path, canon)
    assert "One seed only: the intervals" in page.sections[""]
    assert "incomplete" not in page.sections[""]
    two = [run, *(fabricated.make_run(tmp_path / f"kd-{i}", "kd", i) for i in range(2))]
    assert "One seed only of vanilla: the" in build(two, tmp_path, canon).sections[""]
    both = build(two[1:], tmp_path, canon)
    assert "One seed only" not in both.sections[""]
    assert "another-seed" not in both.ids


def test_the_command_of_another_seed_can_be_copied(fabricated, canon, tmp_path):
    settings = {"epochs": 8, "cutout": 4, "seed": 0, "rivals": {"kd_weight": 0.5}}
    config = {
        "train": settings,
        "student": "vit-tiny",
        "canon": {"sha256": CanonicalSet.load(canon).sha256},
    }
    run = fabricated.make_run(tmp_path / "a run", "cadistill", config=config)
    text = build_report([run], canon, tmp_path / "out").read_text()
    [shown] = re.findall(r'<pre class="commands".*?>(.*?)</pre>', text, re.DOTALL)
    distill, evaluate = html.unescape(re.sub("<.*?>", "", shown)).splitlines()
    called = _parse(shlex.split(distill)[1:])
    assert (called.method, called.student, called.canon) == ("cadistill", "vit-tiny", canon)
    assert called.data.correlation == 0.9
    assert (called.train.epochs, called.train.cutout, called.train.seed) == (8, 4, 1)
    assert called.train.rivals.kd_weight == 0.5
    assert called.out == tmp_path / "cadistill-seed1"
    assert _parse(shlex.split(evaluate)[1:]).student == str(called.out)


def test_headings_of_the_main_table_are_explained(tree, report):
    said = tree.sections["results"]
    assert "mixed_same minus mixed_rand" in said
    assert "expected calibration error" in said
    assert '<a href="#backgrounds">mixed_rand</a>' in report.read_text()


def test_images_behind_the_figures_are_said(fabricated, tmp_path):
    run = fabricated.make_run(tmp_path / "run")
    path = run / "robustness" / "evaluation.json"
    stored = read_json(path)  # without its hash
    for one in stored["measurements"]:
        if one["key"] == "background/flipped":
            one |= {"images": 42, "value": 1.0, "interval": [1.0, 1.0]}
    path.write_text(json.dumps(stored))
    page = build([run], tmp_path)
    assert "n = 120" in page.sections["results"]
    table, caption = page.sections["backgrounds"].split("Share of images")
    assert table.count("n = 42") == 1
    assert "n = 120 images, unless a row says otherwise" in caption
    assert "n = 120, vanilla" in page.sections["calibration"]


def test_curves_begin_with_the_attacked_images_where_these_were_measured(fabricated, tmp_path):
    run = fabricated.make_run(tmp_path / "run")
    path = run / "robustness" / "evaluation.json"
    stored = read_json(path)  # without its hash
    for one in stored["measurements"]:
        one["images"] = 50 if one["key"].startswith("attack/") else 120
    path.write_text(json.dumps(stored))
    assert "over other images (n = 120)" in build([run], tmp_path).sections["attacks"]
    clean = {"key": "attack/clean", "value": 0.915, "interval": [0.9, 0.93], "images": 50}
    stored["measurements"].insert(0, clean | {"untrustworthy": ""})
    path.write_text(json.dumps(stored))
    said = build([run], tmp_path).sections["attacks"]
    assert "ε = 0 is the accuracy of the same images" in said
    assert "vanilla: 0.915 [0.900, 0.930] at ε, in 1/255 0" in said
    assert "clean, attacked" in said


def test_one_strength_and_one_severity_make_no_chart(fabricated, tmp_path):
    run = fabricated.make_run(tmp_path / "run")
    path = run / "robustness" / "evaluation.json"
    stored = read_json(path)  # without its hash
    stored["measurements"] = [
        one
        for one in stored["measurements"]
        if not re.search(r"(eps_255=(?!1$)|eps_l2=(?!0.1$)|severity=(?!3$))", one["key"])
    ]
    path.write_text(json.dumps(stored))
    page = build([run], tmp_path)
    assert "attack-pgd-linf-t" not in page.ids
    assert "PGD 1/255" in page.sections["attacks"]
    assert "CSV JSON" in page.sections["attacks"]
    assert "corruption-severity-t" not in page.ids
    assert "corruption-bars-t" in page.ids
    assert "All at severity 3" in page.sections["corruptions"]


def test_an_evaluation_without_its_training(fabricated, tmp_path):
    """As of another library's model: no command that takes a run's folder could mend it."""
    run = fabricated.make_run(tmp_path / "run")
    whole = fabricated.make_run(tmp_path / "whole")
    shutil.rmtree(run / "student")
    path = run / "robustness" / "evaluation.json"
    stored = read_json(path)  # without its hash
    stored["measurements"] = [m for m in stored["measurements"] if "attack/" not in m["key"]]
    stored["config"]["suite"]["groups"].remove("attacks")
    path.write_text(json.dumps(stored))
    page = build([run, whole], tmp_path)
    assert "config.json is missing" in page.sections["setup"]
    text = "".join(page.sections.values())
    assert "not measured on run: the command that measured the rest" in text
    assert "train it again" not in text and f"clarep evaluate {run}" not in text
    assert "clean" in page.sections["results"]


def test_nothing_readable_is_a_mistake(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of the 2 runs can be read"):
        build([tmp_path / "empty", tmp_path], tmp_path)
    with pytest.raises(UserError, match="gone does not exist"):
        build([tmp_path / "empty", tmp_path / "gone"], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is no folder"):
        build([tmp_path / "file"], tmp_path)
    with pytest.raises(UserError, match="no run is given"):
        build([], tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_run_given_twice_and_a_canon_that_is_none(runs, tmp_path):
    with pytest.raises(UserError, match="is given twice"):
        build([runs[0], runs[0]], tmp_path)
    with pytest.raises(UserError, match="holds no canonical set"):
        build(runs[:1], tmp_path, tmp_path)


def test_classes_are_named_as_they_were_measured_or_numbered(fabricated, tmp_path):
    run = fabricated.make_run(tmp_path / "run")
    assert "ankle boot" in build([run], tmp_path).sections["backgrounds"]
    evaluation = Evaluation.load(run / "robustness")
    del evaluation.config["classes"]
    evaluation.save(run / "robustness")
    assert "class 9" in build([run], tmp_path).sections["backgrounds"]


def test_the_page_begins_with_title_day_verdict_picture_and_table(tree, runs, tmp_path):
    title, day = tree.sections["h1"].rsplit(", ", 1)
    assert title == "vanilla, cadistill and random"
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", day)
    compared = compare([replace(read_run(run), name=run.name[:-2]) for run in runs], None)
    [row] = [row for row in compared.rows if row.name == "cadistill"]
    better = [cell for cell in row.cells if cell.verdict == "better"]
    most = max(better, key=lambda cell: abs(cell.difference.value))
    said = tree.sections[""]
    assert f"cadistill is better than vanilla on {len(better)} of" in said
    assert f"{most.difference.value:+.3f}" in said and heading_of(most.measure) in said
    without = build(runs[2:], tmp_path).sections[""]
    assert "Nothing can be said to be better or worse" in without
    one = build_report(runs[:1], None, tmp_path / "titled", "Study x").read_text()
    assert f"<h1>Study x, {day}</h1>" in one


def test_strings_of_a_run_are_escaped(fabricated, tmp_path):
    attack = '<script>alert("x")</script>'
    run = fabricated.make_run(tmp_path / "run", config={"method": attack, "student": "a&b'\""})
    text = build_report([run], None, tmp_path / "out", title=attack).read_text()
    Tree(text)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_settings_of_one_method_are_told_apart_and_seeds_are_not(fabricated, tmp_path):
    unbiased = {"data_options": {"correlation": 0.0, "data_seed": 0}}
    runs = [
        fabricated.make_run(tmp_path / "a", seed=0),
        fabricated.make_run(tmp_path / "b", seed=1),
        fabricated.make_run(tmp_path / "c", seed=0, config=unbiased),
    ]
    build(runs, tmp_path)
    table = rows(tmp_path / "out" / "data" / "main_table.csv")
    assert {(row["method"], row["seeds"]) for row in table} == {
        ("vanilla (correlation 0.9)", "2"),
        ("vanilla (correlation 0.0)", "1"),
    }


def test_settings_that_are_hashes_are_told_apart_by_their_first_digits(fabricated, tmp_path):
    runs = [
        fabricated.make_run(tmp_path / name, config={"teacher_sha256": name * 64})
        for name in ("a", "b")
    ]
    build(runs, tmp_path)
    table = rows(tmp_path / "out" / "data" / "main_table.csv")
    assert {row["method"] for row in table} == {
        "vanilla (teacher aaaaaaaa)",
        "vanilla (teacher bbbbbbbb)",
    }


def test_the_same_runs_give_the_same_bytes(runs, report, canon, tmp_path):
    again = build_report(runs, canon, tmp_path)
    assert again.read_bytes() == report.read_bytes()


def test_what_was_measured_of_the_set_stands_below_it(runs, canon, tmp_path):
    """A table a question, what the network is told in a footnote, and numbers to take away."""
    shutil.copytree(canon, tmp_path / "set" / "canon")
    beside = tmp_path / "set" / "canon"
    shards = [shard["sha256"] for shard in CanonicalSet.load(beside).manifest["shards"]]
    row = Measures(
        kind="top", images=12, labels_tried=10, evidence=-0.25, evidence_interval=(-0.5, 0.125),
        null_share=0.75, null_interval=(0.5, 0.9), judge_accuracy=0.5, sample_within=0.5,
        feature_within=0.5, nmi_conditional=0.987,
    )  # fmt: skip
    rows = [row, replace(row, kind="none", evidence=1.25, nmi_conditional=0.876)]
    write_measures(rows, tmp_path / "set" / "report", {"canonical_sha256": shards})
    page = build(runs[:1], tmp_path, beside)
    section = page.sections["canonical"]
    for said in ("\N{MINUS SIGN}0.25", "[\N{MINUS SIGN}0.50, 0.12]", "1.25", "0.75", "top 0.99"):
        assert said in section
    assert "told the class" in section
    assert "independent classifier" in section
    assert "removed off object" not in section
    with open(tmp_path / "out" / "data" / "canonical-measures.csv", newline="") as stream:
        stored = list(csv.DictReader(stream))
    assert [float(line["evidence"]) for line in stored] == [-0.25, 1.25]
    assert float(stored[0]["evidence_low"]) == -0.5
    given = {"student": "resnet8", "originals": {"judge_accuracy": 0.5, "judge_interval": [0, 1]}}
    write_classifier(given, tmp_path / "set" / "report")
    section = build(runs[:1], tmp_path, beside).sections["canonical"]
    assert "resnet8" in section and "independent classifier" not in section
    # Rows of another set are not this one's.
    write_measures(rows, tmp_path / "set" / "report", {"canonical_sha256": [*shards, "ab"]})
    assert "told the class" not in build(runs[:1], tmp_path, beside).sections["canonical"]
