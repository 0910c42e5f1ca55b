"""A comparison's numbers against loops, its checks, and how it reads as a table."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from clarep.errors import UserError
from clarep.report.comparison_table import (
    comparison_markdown,
    comparison_table,
    write_comparison,
)
from clarep.report.html import build_report
from clarep.robustness.cue_groups import group_measures
from clarep.robustness.evaluation import Evaluation, Measurement, mean_of
from clarep.robustness.measures import heading_of
from clarep.study.comparison import Cell, Difference, compare
from clarep.study.runs import read_run


def load(runs):
    return [read_run(run) for run in runs]


def accuracy_of(run):
    return Evaluation.load(run / "robustness").arrays["clean/accuracy"].double().numpy()


def cell(comparison, name, key):
    row = next(row for row in comparison.rows if row.name == name)
    return row.cells[comparison.measures.index(key)]


def test_means_intervals_and_differences_are_those_of_a_loop(make_run):
    vanilla = [make_run("vanilla", seed, 0.7) for seed in (0, 1, 2)]
    other = [make_run("cadistill", seed, 0.8) for seed in (0, 1, 2)]
    compared = compare(load([*vanilla, *other]))
    assert compared.reference == "vanilla"
    assert compared.measures == ("clean/accuracy", "attack/pgd-linf/eps_255=1", "calibration/ece")

    found = cell(compared, "cadistill", "clean/accuracy")
    means = [accuracy_of(run).mean() for run in other]
    assert found.value == pytest.approx(np.mean(means))
    half = stats.t.ppf(0.975, 2) * stats.sem(means)
    assert found.interval == pytest.approx((np.mean(means) - half, np.mean(means) + half))

    differences = []
    for i in range(400):
        ours = sum(accuracy_of(run)[i] for run in other) / 3
        differences.append(ours - sum(accuracy_of(run)[i] for run in vanilla) / 3)
    assert found.difference.value == pytest.approx(np.mean(differences))
    rng, resampled = np.random.default_rng(9), []
    for _ in range(1000):
        resampled.append(np.mean([differences[i] for i in rng.integers(400, size=400)]))
    expected = np.quantile(resampled, [0.025, 0.975])
    assert found.difference.interval == pytest.approx(expected, abs=0.008)
    assert found.verdict == "better"

    back = cell(compare(load([*vanilla, *other]), reference="cadistill"), "vanilla", found.measure)
    assert back.difference.value == pytest.approx(-found.difference.value)
    assert back.verdict == "worse"


def test_a_comparison_reads_as_rows(make_run):
    found = compare(load([make_run("vanilla", 0, 0.4), make_run("cadistill", 0, 0.8)]))
    rows = found.to_rows()
    assert [row["method"] for row in rows[:: len(found.measures)]] == ["vanilla", "cadistill"]
    one, last = cell(found, "cadistill", "clean/accuracy"), rows[len(found.measures)]
    assert (last["measure"], last["value"]) == ("clean/accuracy", one.value)
    assert last["difference"] == one.difference.value
    text = repr(found).splitlines()
    assert "2 methods with vanilla" in text[0]
    assert len(text) == 2 + len(rows)
    assert found._repr_html_().count("<tr>") == 1 + len(rows)


def test_what_training_cost_is_counted_over_the_reference(make_run, tmp_path):
    """Means over seeds; of a run that counted nothing there is none, and without any no column."""
    counts = {"vanilla": (10.0, 20.0), "adv": (30.0, 45.0), "noise": (30.0, None)}
    runs = {name: [make_run(name, seed) for seed in (0, 1)] for name in counts}
    everything = [run for some in runs.values() for run in some]
    assert "training" not in comparison_table(compare(load(everything)))
    for name, each in counts.items():
        for run, count in zip(runs[name], each, strict=True):
            path = run / "student" / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"gigaops": count}))
    compared = compare(load(everything))
    assert [row.training for row in compared.rows] == [1.0, 2.5, None]
    for text in (comparison_table(compared), comparison_markdown(compared)):
        assert "training" in text and "2.50 x" in text
    assert {row.training for row in compare(load(runs["adv"])).rows} == {None}
    html = build_report(everything, None, tmp_path / "page").read_text()
    section = html.split('id="cost"')[1].split("<section")[0]
    assert [f"{ratio:.2f} x" in section for ratio in (2 / 3, 2, 3)] == [True] * 3


def test_one_seed_has_the_interval_over_images(make_run):
    run = make_run("vanilla")
    compared = compare(load([run]))
    stored = Evaluation.load(run / "robustness")["clean/accuracy"]
    assert cell(compared, "vanilla", "clean/accuracy").interval == stored.interval
    assert "ONE seed a method" in comparison_table(compared)


def test_holm_corrects_over_methods_and_measures(make_run):
    runs = [make_run(m, 0, a) for m, a in [("vanilla", 0.7), ("kd", 0.72), ("adv", 0.73)]]
    compared = compare(load(runs))
    tested = [c.difference for row in compared.rows for c in row.cells if c.difference]
    assert compared.tests == len(tested) == 4  # two methods, two measures with per-image values
    smallest = min(tested, key=lambda d: d.p_value)
    assert smallest.p_holm == pytest.approx(min(1, 4 * smallest.p_value))
    assert all(d.p_holm >= d.p_value for d in tested)


def test_the_worst_group_is_tested_over_images_within_groups(make_run):
    runs = [make_run("vanilla", 0, 0.5), make_run("kd", 0, 0.9), make_run("adv", 0, 0.9)]
    cues = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 400))
    for run, other in zip(runs, (cues, cues, cues.flip(0)), strict=True):
        found = Evaluation.load(run / "robustness")
        right, labels = found.arrays["clean/accuracy"].bool(), found.arrays["label"].numpy()
        worst, _ = group_measures(right, labels, other.numpy()).measurements
        arrays = found.arrays | {"clean/cue": other}
        replace(found, measurements=[*found.measurements, worst], arrays=arrays).save(
            run / "robustness"
        )
    compared = compare(load(runs), ["clean/worst_group"])
    found = cell(compared, "kd", "clean/worst_group")
    base = cell(compared, "vanilla", "clean/worst_group")
    assert found.difference.value == pytest.approx(found.value - base.value)
    low, high = found.difference.interval
    assert 0 < low < found.difference.value < high and found.verdict == "better"
    assert cell(compared, "adv", "clean/worst_group").verdict == "untested"  # of other cues
    assert compared.tests == 1


def test_without_values_of_images_there_is_no_test(make_run):
    runs = [make_run("vanilla"), make_run("kd", accuracy=0.9)]
    compared = compare(load(runs))
    found = cell(compared, "kd", "calibration/ece")
    assert found.difference is None
    assert found.verdict == "untested"
    assert found.interval == (0.01, 0.2)


@pytest.mark.parametrize(
    ("measure", "verdict"),
    [
        ("clean/accuracy", "better"),
        ("background/mixed_rand", "better"),
        ("attack/worst-l2/eps_l2=0.5", "better"),
        ("attack/cw-l2/median_l2", "better"),
        ("ood/noise/auroc", "better"),
        ("corruption/fog/severity=3", "better"),
        ("background/gap", "worse"),
        ("background/only_bg", "worse"),
        ("background/only_bg_t", "worse"),
        ("calibration/brier", "worse"),
        ("corruption/mce", "worse"),
        ("background/no_fg", "neither"),
        ("focus/area", "neither"),
    ],
)
def test_more_of_a_measure_is_marked_as_what_it_is(measure, verdict):
    found = Cell(measure, 0.9, (0.8, 1.0), Difference(0.4, (0.3, 0.5), 0.001, 0.01), "")
    assert found.verdict == verdict
    less = replace(found, difference=Difference(-0.4, (-0.5, -0.3), 0.001, 0.01))
    opposite = {"better": "worse", "worse": "better", "neither": "neither"}
    assert less.verdict == opposite[verdict]
    assert replace(found, difference=Difference(0.4, (0.0, 1.0), 0.1, 0.2)).verdict == "neither"


@pytest.mark.parametrize(("ours", "verdict"), [("of vanilla", "worse"), ("of kd", "untested")])
def test_errors_relative_to_other_baselines_are_not_compared(make_run, ours, verdict):
    runs = load([make_run("vanilla"), make_run("kd")])
    for run, value, note in zip(runs, (0.5, 0.9), ("of vanilla", ours), strict=True):
        values = torch.full((400,), value) + 0.01 * (torch.arange(400) % 2)
        run.evaluation.arrays["corruption/mce"] = values
        run.evaluation.measurements.append(replace(mean_of("corruption/mce", values), note=note))
    compared = compare(runs, ["corruption/mce"])
    assert cell(compared, "kd", "corruption/mce").verdict == verdict
    assert ours in comparison_table(compared)


def test_a_measure_that_a_seed_lacks_has_no_figure(make_run):
    extra = Measurement("background/gap", 0.2, (0.1, 0.3), 400)
    runs = [make_run("vanilla", more=[extra]), make_run("kd"), make_run("kd", 1, more=[extra])]
    compared = compare(load(runs))
    assert cell(compared, "vanilla", "background/gap").value == 0.2
    assert cell(compared, "kd", "background/gap") is None
    row = next(line for line in comparison_table(compared).splitlines() if line.startswith("kd"))
    assert row.split()[-1] == "\N{EN DASH}"


def test_measures_by_pattern(make_run):
    runs = load([make_run("vanilla")])
    assert compare(runs, ["attack/*"]).measures == ("attack/pgd-linf/eps_255=1",)
    with pytest.raises(UserError, match="unknown measure 'clean/acuracy': did you mean clean/acc"):
        compare(runs, ["clean/acuracy"])


def test_variants_of_one_method_are_rows_of_their_own(make_run):
    runs = [make_run("cadistill", 0, epochs=3), make_run("cadistill", 0, name="longer", epochs=9)]
    assert [row.name for row in compare(load(runs)).rows] == ["cadistill", "longer"]


def test_runs_are_compared_by_the_content_of_their_data(make_run):
    first = make_run("vanilla", content="aa", place="x")
    compare(load([first, make_run("a", content="aa", place="./x")]))  # the same, found elsewhere
    second = make_run("vanilla", 1, content="aa", place="/somewhere/x")
    compare(load([first, second]))
    with pytest.raises(UserError, match=r"trained on other data .*images or labels themselves"):
        compare(load([first, make_run("b", content="bb", place="x")]))
    other = make_run("c", content="aa", place="x")
    found = Evaluation.load(other / "robustness")
    found.config["data_sha256"]["clean"] = "bb"
    found.save(other / "robustness")
    with pytest.raises(UserError, match=r"not measured alike .*images or labels themselves"):
        compare(load([first, other]))


def test_what_cannot_be_compared_is_said(make_run, tmp_path):
    first = make_run("vanilla")
    cases = {
        "trained on other data .correlation: 0.9 in .*vanilla-0, 0.5 in .*a-0": make_run(
            "a", correlation=0.5
        ),
        "not measured alike .correlation: 0.0 in .*-0, 0.5 in .*b-0": make_run(
            "b", test_correlation=0.5
        ),
        "official_corruptions: null in .*, .CIFAR-10-C. in": make_run("d", official="CIFAR-10-C"),
        "on other test images": make_run("c", labels=torch.zeros(400, dtype=torch.long)),
        "both vanilla but differ .epochs: 3 in .*, 5 in": make_run("vanilla", 1, epochs=5),
    }
    for words, run in cases.items():
        with pytest.raises(UserError, match=words) as raised:
            compare(load([first, run]))
        assert str(run) in str(raised.value)
    with pytest.raises(UserError, match="both vanilla with seed 0"):
        compare(load([first, first]))
    with pytest.raises(UserError, match="nothing to compare"):
        compare([])


ALL = ("clean", "calibration", "attacks")


def test_runs_that_share_groups_are_compared_by_what_both_have(make_run):
    few = make_run("kd", groups=("clean", "calibration"), suite={"images": 400, "attack": {"s": 1}})
    runs = load([make_run("vanilla", groups=ALL, suite={"images": 400, "attack": {"s": 9}}), few])
    compared = compare(runs)
    assert compared.measures == ("clean/accuracy", "calibration/ece")
    assert cell(compared, "kd", "clean/accuracy").difference is not None
    for text in (comparison_table(compared), comparison_markdown(compared)):
        assert f"attacks: left out, since not measured on {few}" in text
    with pytest.raises(UserError, match=f"attack/.* is left out, since not measured on {few}"):
        compare(runs, ["clean/*", "attack/*"])
    assert compare(runs[:1]).measures[1].startswith("attack/") and not compare(runs[:1]).notes
    more = make_run("adv", groups=(*ALL, "focus"), suite={"images": 400, "attack": {"s": 9}})
    assert not compare(load([runs[0].folder, more])).notes  # nobody has figures of focus


def test_settings_of_shared_groups_alone_must_agree(make_run):
    suite = {"images": 400, "attack": {"pgd_steps": 1}, "severities": [1]}
    first = make_run("vanilla", groups=ALL, suite=suite)
    other = make_run("kd", groups=ALL, suite=suite | {"severities": [5]})
    assert compare(load([first, other])).tests == 2  # none of them asked for corruptions
    steps = make_run("adv", groups=ALL, suite=suite | {"attack": {"pgd_steps": 20}})
    with pytest.raises(UserError, match=r"not measured alike \(pgd_steps: 1 in .*, 20 in"):
        compare(load([first, steps]))
    images = make_run("rkd", groups=("clean",), suite=suite | {"images": 100})
    with pytest.raises(UserError, match=r"not measured alike \(images: 400 in .*, 100 in"):
        compare(load([first, images]))


def test_what_evaluations_say_against_themselves_is_said_once(make_run):
    runs = [make_run("vanilla", 0, caveat="too good"), make_run("vanilla", 1, caveat="too good")]
    compared = compare(load([*runs, make_run("kd")]))
    assert compared.notes == (f"{runs[0]}, {runs[1]}: too good",)
    assert comparison_table(compared).count("too good") == 1


@pytest.mark.parametrize("kind", ["ood", "beyond"])
def test_sets_of_one_name_and_other_content_are_refused(make_run, kind):
    """Also where the first run has none, and wherever they lie."""
    runs = load([make_run("vanilla"), make_run("kd"), make_run("rkd")])
    for run, content, place in zip(runs[1:], ("ab", "cd"), ("here", "there"), strict=True):
        run.evaluation.config[kind] = {"cats": {"place": place, "sha256": content}}
    with pytest.raises(UserError, match=rf'{kind} cats: "ab" in .*kd-0, "cd" in .*rkd-0'):
        compare(runs)
    runs[2].evaluation.config[kind]["cats"]["sha256"] = "ab"
    assert len(compare(runs).rows) == 3


def test_a_reference_that_was_named_must_be_there(make_run):
    runs = load([make_run("kd"), make_run("rkd")])
    with pytest.raises(UserError, match="unknown reference 'nope': valid are kd, rkd"):
        compare(runs, reference="nope")
    with pytest.raises(UserError, match="unknown reference 'vanilla'"):
        compare(runs, reference="vanilla")
    assert compare(runs).reference is None


def test_an_incomplete_run_says_what_is_missing(make_run, tmp_path):
    with pytest.raises(UserError, match=r"no student/config\.json"):
        read_run(tmp_path)
    run = make_run("vanilla")
    (run / "robustness" / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"no evaluation \(no evaluation\.json\)"):
        read_run(run)
    (run / "robustness" / "arrays.safetensors").unlink()
    (run / "robustness").rmdir()
    with pytest.raises(UserError, match="run clarep evaluate"):
        read_run(run)
    (run / "student" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        read_run(run)


def test_untrustworthy_figures_are_marked_and_explained(make_run):
    runs = [make_run("vanilla"), make_run("adv", untrustworthy="more steps help the attack")]
    compared = compare(load(runs))
    for text in (comparison_table(compared), comparison_markdown(compared)):
        row = next(line for line in text.splitlines() if "adv" in line)
        assert row.count("*not trustworthy*") == 1
        assert "adv, PGD 1/255: not trustworthy: more steps help the attack" in text


def test_the_files_hold_the_table(make_run, tmp_path):
    runs = [make_run("vanilla", accuracy=0.6), make_run("kd", accuracy=0.9)]
    compared = compare(load(runs))
    paths = write_comparison(compared, tmp_path / "report")
    found = cell(compared, "kd", "clean/accuracy")
    with open(paths["csv"], newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 6
    line = next(r for r in lines if (r["method"], r["measure"]) == ("kd", "clean/accuracy"))
    assert float(line["value"]) == found.value
    assert float(line["p_holm"]) == found.difference.p_holm
    assert line["verdict"] == "better"
    content = json.loads(paths["json"].read_text())
    assert content["rows"][1]["cells"][0]["difference"]["value"] == found.difference.value
    assert content["verdicts"]["kd"]["clean/accuracy"] == "better"
    markdown = paths["md"].read_text().splitlines()
    assert markdown[0] == "| method | clean | PGD 1/255 | ECE |"
    assert {line.count("|") for line in markdown[:4]} == {5}
    assert f"{found.value:.3f} [" in markdown[3]
    assert "▲" in markdown[3] and "▲" not in markdown[2]


def test_other_seeds_and_no_reference_are_said(make_run):
    runs = load([make_run("kd"), make_run("kd", 1), make_run("rkd")])
    text = comparison_table(compare(runs))
    assert "the methods were trained with other seeds: kd 0 1, rkd 0" in text
    assert "nothing is marked: no run is of vanilla" in text


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("attack/pgd-linf/eps_255=0.25", "PGD 0.25/255"),
        ("attack/apgd-ce-linf/eps_255=1", "APGD-CE 1/255"),
        ("attack/pgd-l2/eps_l2=0.5", "PGD L2 0.5"),
        ("attack/worst-linf/eps_255=2", "worst 2/255"),
        ("attack/cw-l2/median_l2", "CW L2, median"),
        ("background/gap", "BG-gap"),
        ("ood/garments/auroc", "AUROC against garments"),
        ("corruption/fog/severity=3", "fog, severity 3"),
    ],
)
def test_headings(key, expected):
    assert heading_of(key) == expected


def test_a_table_of_many_measures_stays_legible(make_run):
    extra = [Measurement(f"ood/set{i}/auroc", 0.5, (0.4, 0.6), 400) for i in range(12)]
    text = comparison_table(compare(load([make_run("vanilla", more=extra)]), ["*"]))
    assert all(f"AUROC against set{i}" in text for i in range(12))
    assert "0.500 [0.40, 0.60]" in text
    assert max(map(len, text.splitlines())) <= 200
