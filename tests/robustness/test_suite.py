"""The suite on a small untrained student: parts that survive, settings that count, bad settings."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.data.backdrops import load_backdrops
from clarep.data.cues import OTHER_CUES
from clarep.data.foregrounds import MaskedImages
from clarep.data.garments import CLASS_NAMES, load_garments
from clarep.data.labelled import LabelledImages
from clarep.data.sets.backgrounds_challenge import CHALLENGE_VARIANTS
from clarep.data.sets.natural import BEYOND
from clarep.errors import UserError
from clarep.robustness.attacks.attack_config import ATTACK_NAMES, AttackConfig
from clarep.robustness.corruptions.by_name import corrupt
from clarep.robustness.evaluation import Evaluation
from clarep.robustness.measures import MEASURE_GROUPS, MEASURES, heading_of, measure_of
from clarep.robustness.suite import suite, suite_checks
from clarep.robustness.suite.suite import PARTS_NAME, SuiteRun, robustness_suite
from clarep.robustness.suite.suite_config import GROUPS, QUICK_ATTACKS, SuiteConfig, check_suite
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student

CONFIG = SuiteConfig(
    groups=("clean", "calibration", "backgrounds", "focus", "corruptions", "ood"),
    images=20,
    corruption_images=10,
    focus_images=10,
    corruptions=("brightness", "contrast"),
    severities=(1, 5),
    flip_backdrops=3,
)


@pytest.fixture(scope="module")
def student():
    return build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32))).eval()


@pytest.fixture(scope="module")
def data():
    return load_backdrops("test", correlation=0.9)


@pytest.fixture(scope="module")
def whole(student, data, tmp_path_factory) -> Path:
    """The folder of a finished evaluation."""
    folder = tmp_path_factory.mktemp("whole")
    robustness_suite(student, data, CONFIG, folder=folder)
    return folder


def times(folder: Path) -> dict[str, int]:
    return {
        str(path.parent.relative_to(folder)): path.stat().st_mtime_ns
        for path in (folder / PARTS_NAME).rglob("evaluation.json")
    }


def without_cost(folder: Path) -> Evaluation:
    found = Evaluation.load(folder)
    config = {key: value for key, value in found.config.items() if key != "cost"}
    return dataclasses.replace(found, config=config)


def test_what_qualifies_any_set_that_is_measured_stands_in_the_record(student) -> None:
    data = dataclasses.replace(load_garments("test"), notes=("3 files are passed over",))
    ood = {"links": dataclasses.replace(load_garments("test"), notes=("7 images are linked",))}
    config = dataclasses.replace(CONFIG, groups=("clean", "ood"), images=10)
    said = robustness_suite(student, data, config, ood=ood).config["said"]
    assert said[:2] == ["3 files are passed over", "7 images are linked"]


def test_a_part_that_a_worker_measured_and_nobody_can_read_is_named(
    student, data, tmp_path, monkeypatch
) -> None:
    def of_blind_workers(tasks, *given, **more):
        return ((task, 0) for task in tasks)

    monkeypatch.setattr(suite, "fan_out", of_blind_workers)
    monkeypatch.setattr(suite_checks, "_LATE", 0.0)
    config = dataclasses.replace(CONFIG, groups=("calibration",))
    with pytest.raises(UserError, match=f"{tmp_path}/parts/.* cannot be read"):
        robustness_suite(student, data, config, folder=tmp_path)


def test_every_group_gives_its_keys(whole: Path, student, data) -> None:
    keys = {one.key for one in Evaluation.load(whole).measurements}
    wanted = {"clean/accuracy", "background/gap", "background/mixed_rand", "corruption/mean"}
    wanted |= {"calibration/ece", "calibration/nll", "ood/only_bg/auroc", "focus/area"}
    wanted |= {"corruption/brightness/severity=5", "corruption/contrast/mean"}
    assert wanted <= keys
    planned = {key for part in SuiteRun(student, data, CONFIG).parts for key in part.keys}
    assert len(planned) > 20 and planned <= keys
    arrays = Evaluation.load(whole).arrays
    assert arrays["probabilities"].shape == (20, 10)
    assert arrays["features"].shape[0] == 20
    torch.testing.assert_close(arrays["probabilities"].sum(dim=1), torch.ones(20))
    assert arrays["examples/saliency"].shape == arrays["examples/mask"].shape == (10, 32, 32)


def test_every_measure_is_in_the_catalogue_and_every_entry_is_measured(
    whole, student, data
) -> None:
    """Every key that an evaluation with everything on can hold is of one entry, none idle."""
    attack = dataclasses.replace(
        QUICK_ATTACKS, eps_255=(1.0,), eps_l2=(0.1,), cw=True, pgd_steps=1, apgd_steps=1,
        cw_steps=1, cw_searches=1, check_images=0,
    )  # fmt: skip
    config = dataclasses.replace(CONFIG, groups=("attacks", "corruptions"), attack_images=10)
    config = dataclasses.replace(config, attack=attack)
    run = SuiteRun(student, data, config, baseline=Evaluation.load(whole))
    attacked = run.evaluation()
    assert {key for part in run.parts for key in part.keys} <= {
        m.key for m in attacked.measurements
    }
    assert {"attacks", *CONFIG.groups} == set(GROUPS)
    measured = (*Evaluation.load(whole).measurements, *attacked.measurements)
    keys = {one.key for one in measured} | {"attack/autoattack-linf/eps_255=1"}
    keys |= {"clean/worst_group"}  # of more images: tests/robustness/test_cue_groups.py
    keys |= {f"clean/cue_{name}" for name in (*OTHER_CUES, "gap")}  # of an added cue, there too
    radii = {"linf": "eps_255=2", "l2": "eps_l2=0.5"}
    keys |= {f"attack/{name}-{n}/{eps}" for name in ATTACK_NAMES for n, eps in radii.items()}
    keys |= {f"background/{name}" for name in CHALLENGE_VARIANTS}
    keys |= {f"beyond/{name}/accuracy" for name in BEYOND}
    assert {"corruption/mce", "attack/cw-l2/median_l2", "background/flipped"} <= keys
    assert "in the mean" in attacked["corruption/mce"].note  # it is relative to a baseline
    for key in keys:
        assert sum(entry.settings(key) is not None for entry in MEASURES) == 1, key
        assert "{" not in heading_of(key)
    assert {measure_of(key) for key in keys} == set(MEASURES)
    assert {measure_of(key).group for key in keys} == {*GROUPS, "beyond"} == set(MEASURE_GROUPS)
    settings = [name for group in MEASURE_GROUPS.values() for name in group.settings]
    assert {*settings, "groups", "images"} == {one.name for one in dataclasses.fields(SuiteConfig)}
    with pytest.raises(UserError, match="new/figure"):
        measure_of("new/figure")


def test_figures_against_loops(whole: Path, student, data) -> None:
    found = Evaluation.load(whole)
    index = found.arrays["index"].numpy()
    right = 0
    with torch.no_grad():
        for i in index:
            answer = student(torch.from_numpy(data.read(int(i))).permute(2, 0, 1)[None] / 255)
            right += int(answer.argmax()) == data.labels[i]
    assert found["clean/accuracy"].value == pytest.approx(right / 20)
    shares = []
    chosen = SuiteRun(student, data, CONFIG)._inputs.choose(10)
    images = data.images(chosen)
    with torch.no_grad():
        for name in ("brightness", "contrast"):
            for severity in (1, 5):
                answer = student(corrupt(images, name, severity, 0) / 255).argmax(dim=1)
                shares.append(float((answer.numpy() == data.labels[chosen]).mean()))
    assert found["corruption/mean"].value == pytest.approx(np.mean(shares))
    assert found["corruption/contrast/severity=5"].value == pytest.approx(shares[-1])


def test_stopped_it_goes_on_and_ends_with_the_same_bytes(
    student, data, whole: Path, tmp_path: Path
) -> None:
    steps = SuiteRun(student, data, CONFIG, folder=tmp_path).steps()
    assert next(steps).done == 0
    for _ in range(3):
        last = next(steps)
    steps.close()  # as far as a kill goes: what is stored is stored
    before = times(tmp_path)
    assert len(before) == 3
    again = SuiteRun(student, data, CONFIG, folder=tmp_path)
    start = next(again.steps())
    assert start.done == last.done
    assert start.total == last.total
    again.evaluation()
    assert before.items() <= times(tmp_path).items()
    assert without_cost(tmp_path).config == without_cost(whole).config
    assert without_cost(tmp_path).measurements == without_cost(whole).measurements
    names = ["arrays.safetensors", *(f"{part}/arrays.safetensors" for part in times(whole))]
    for name in names:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_only_what_other_settings_touch_is_measured_again(student, data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, groups=("clean", "corruptions"))
    robustness_suite(student, data, config, folder=tmp_path)
    before = times(tmp_path)
    reports = []
    config = dataclasses.replace(config, severities=(5,))
    found = robustness_suite(student, data, config, folder=tmp_path, report=reports.append)
    after = times(tmp_path)
    kept = {name for name in after if after[name] == before[name]}
    assert kept == {"parts/clean", "parts/clean/groups"}
    assert len(reports) == 3
    assert "corruption/brightness/severity=1" not in found
    robustness_suite(student, data, config, folder=tmp_path)
    assert times(tmp_path) == after


def test_another_student_or_other_data_are_measured_anew(student, data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, groups=("clean",))
    robustness_suite(student, data, config, folder=tmp_path)
    first = times(tmp_path)
    other = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)), seed=1)
    robustness_suite(other, data, config, folder=tmp_path)
    second = times(tmp_path)
    assert second != first
    robustness_suite(other, dataclasses.replace(data, seed=1), config, folder=tmp_path)
    assert times(tmp_path) != second


def test_a_damaged_part_is_measured_again(student, data, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, groups=("clean",))
    robustness_suite(student, data, config, folder=tmp_path)
    path = tmp_path / PARTS_NAME / "clean" / "arrays.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    robustness_suite(student, data, config, folder=tmp_path)
    assert path.read_bytes() == whole


def test_a_part_from_before_one_of_its_measures_is_measured_again(
    student, data, whole: Path, tmp_path: Path
) -> None:
    """As an earlier version stored it; else the evaluation lacked the figure for good."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    part = Evaluation.load(tmp_path / PARTS_NAME / "calibration")
    dataclasses.replace(part, measurements=part.measurements[1:]).save(
        tmp_path / PARTS_NAME / "calibration"
    )
    before = times(tmp_path)
    again = robustness_suite(student, data, CONFIG, folder=tmp_path)
    assert again.measurements == Evaluation.load(whole).measurements
    changed = [name for name, at in times(tmp_path).items() if at != before[name]]
    assert changed == [f"{PARTS_NAME}/calibration"]


def test_without_a_folder_the_figures_are_the_same(student, data, whole: Path) -> None:
    found = robustness_suite(student, data, CONFIG)
    assert found.measurements == Evaluation.load(whole).measurements


def test_the_cost_is_counted(whole: Path) -> None:
    cost = Evaluation.load(whole).config["cost"]
    assert cost["forward_passes"]["clean"] == 20
    assert cost["forward_passes"]["corruptions"] == 2 * 2 * 10
    assert set(cost["seconds"]) == set(CONFIG.groups)
    assert cost["peak_memory_mb"] > 10


def test_a_student_is_its_own_baseline_at_one(student, data, whole: Path) -> None:
    config = dataclasses.replace(CONFIG, groups=("corruptions",))
    found = robustness_suite(student, data, config, baseline=Evaluation.load(whole))
    assert found["corruption/mce"].value == pytest.approx(1)


def test_a_baseline_of_other_severities_is_refused_at_once(student, data, whole: Path) -> None:
    config = dataclasses.replace(CONFIG, groups=("corruptions",), severities=(2,))
    with pytest.raises(UserError, match=r"severities: \[1, 5\] there, \[2\] now.* `severities`"):
        SuiteRun(student, data, config, baseline=Evaluation.load(whole))
    config = dataclasses.replace(CONFIG, groups=("corruptions",), corruptions=("fog",))
    with pytest.raises(UserError, match="not measured on fog"):
        SuiteRun(student, data, config, baseline=Evaluation.load(whole))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (("backgrounds", "focus"), "`groups=backgrounds focus` cannot .* and focus need masks"),
        (("clean", "focus"), r"`groups=focus` cannot be measured on .* \(focus needs masks"),
        (("ood",), "ood needs images of none of the classes"),
        (("attacks",), "attacks needs a radius"),
    ],
)
def test_groups_that_were_named_and_do_not_apply_are_refused(student, groups, words) -> None:
    attack = AttackConfig(eps_255=(), eps_l2=(), cw=False)
    config = dataclasses.replace(CONFIG, groups=groups, attack=attack)
    with pytest.raises(UserError, match=words) as raised:
        SuiteRun(student, load_garments("test"), config)
    assert len(str(raised.value).splitlines()) == 1


def test_groups_of_the_default_list_that_do_not_apply_are_left_out(student, data) -> None:
    attack = dataclasses.replace(QUICK_ATTACKS, eps_255=(0.5,), eps_l2=(), check_images=0)
    config = dataclasses.replace(
        CONFIG, groups=GROUPS, attack=attack, attack_images=10, corruptions=("fog",)
    )
    run = SuiteRun(student, load_garments("test"), config)
    assert run.left_out.startswith("backgrounds, focus, ood cannot be measured on garments")
    assert run.left_out.endswith("and are left out")
    groups = {key.split("/")[0] for key in (one.key for one in run.evaluation().measurements)}
    assert groups == {"clean", "calibration", "attack", "corruption"}
    assert SuiteRun(student, data, config).left_out == ""


def test_a_folder_that_is_a_file_is_refused_before_anything_is_measured(
    student, data, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "deep" / "er"):
        with pytest.raises(UserError, match="file is no folder: give `out` a folder"):
            SuiteRun(student, data, CONFIG, folder=folder)
    assert (tmp_path / "file").read_text() == "mine"
    SuiteRun(student, data, CONFIG, folder=tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()


def test_a_reference_of_other_classes_or_size_is_refused_by_its_name(student, data) -> None:
    few = build_student(StudentInfo("resnet8", CLASS_NAMES[:9], (3, 32, 32)))
    with pytest.raises(UserError, match=r"`reference` .*9 classes .* leave `reference` out"):
        SuiteRun(student, data, CONFIG, reference=few)
    large = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 64, 64)))
    with pytest.raises(UserError, match=r"`reference` .*64x64 .* leave `reference` out"):
        SuiteRun(student, data, CONFIG, reference=large)


def test_sets_that_no_group_measures_are_refused(student, data) -> None:
    config = dataclasses.replace(CONFIG, groups=("clean",))
    with pytest.raises(UserError, match=r"`ood` gives grey, which `groups=clean` leaves"):
        robustness_suite(student, data, config, ood={"grey": load_garments("test")})


def test_what_a_finished_evaluation_was_measured_with_is_told_apart(
    student, data, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, groups=("clean",))
    assert SuiteRun(student, data, config).replaced() == ""
    run = SuiteRun(student, data, config, folder=tmp_path, described={"run": "x"})
    assert run.replaced() == ""
    run.evaluation()
    again = SuiteRun(student, data, config, folder=tmp_path, described={"run": "moved"})
    assert again.replaced() == ""
    other = dataclasses.replace(config, images=10)
    found = SuiteRun(student, data, other, folder=tmp_path).replaced()
    assert found == "images: 20 there, 10 now"
    config = dataclasses.replace(config, groups=("clean", "ood"))
    robustness_suite(student, data, config, folder=tmp_path)
    ood = {"grey": load_garments("test")}
    found = SuiteRun(student, data, config, folder=tmp_path, ood=ood).replaced()
    assert found.startswith('grey: null there, {"place": "garments/test"')
    fewer = dataclasses.replace(config, groups=("clean",))
    found = SuiteRun(student, data, fewer, folder=tmp_path).replaced()
    assert 'groups: ["clean", "ood"] there, ["clean"] now' in found
    other = dataclasses.replace(data, seed=1)
    found = SuiteRun(student, other, config, folder=tmp_path).replaced()
    assert "images or labels themselves" in found


def test_a_student_of_other_classes_or_another_size_is_refused(data) -> None:
    few = build_student(StudentInfo("resnet8", CLASS_NAMES[:9], (3, 32, 32)))
    with pytest.raises(UserError, match="9 classes"):
        SuiteRun(few, data, CONFIG)
    large = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 64, 64)))
    with pytest.raises(UserError, match=r"64x64 .*32x32"):
        SuiteRun(large, data, CONFIG)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": ("clean", "atacks")}, "unknown group 'atacks': did you mean attacks"),
        ({"groups": ()}, "no group is given"),
        ({"groups": ("clean", "clean")}, "given twice"),
        ({"corruptions": ("frog",)}, "unknown corruption 'frog'"),
        ({"severities": (0,)}, "unknown severity '0'"),
        ({"severities": ()}, "no severity is given"),
        ({"severities": (1, 1)}, "given twice"),
        ({"attack_images": 0}, "`attack_images=0` is below 1"),
        ({"attack": AttackConfig(seed=-1)}, "seed=-1"),
        ({"attack": AttackConfig(eps_255=(-1.0,))}, "eps_255=-1"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_sentence(change, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_suite(dataclasses.replace(CONFIG, **change))


SMALL = dataclasses.replace(
    CONFIG,
    groups=("clean", "calibration", "attacks", "corruptions", "ood"),
    attack_images=5,
    corruptions=("brightness",),
    severities=(1,),
    attack=AttackConfig(eps_255=(1.0,), eps_l2=(), attacks=("pgd",), cw=False, check_images=0),
)


def plain(pixels: np.ndarray, labels: np.ndarray, place: str = "x") -> LabelledImages:
    return LabelledImages(
        name=place,
        labels=labels,
        class_names=CLASS_NAMES,
        sources=[f"{place}/{i}" for i in range(len(labels))],
        read=lambda i: pixels[i],
    )


def parts_measured(student, data, folder, **given) -> set[str]:
    before = times(folder)
    robustness_suite(student, data, SMALL, folder=folder, **given)
    after = times(folder)
    return {name.split("/")[1] for name in after if after[name] != before.get(name)}


def test_every_image_that_a_part_reads_counts_and_no_name(student, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 10
    groups = set(SMALL.groups)
    ood = {"grey": plain(pixels[:20], labels[:20])}
    assert parts_measured(student, plain(pixels, labels), tmp_path, ood=ood) == groups
    elsewhere = plain(pixels.copy(), labels.copy(), "/another/spelling")
    moved = {"grey": plain(pixels[:20].copy(), labels[:20], "/too")}
    assert parts_measured(student, elsewhere, tmp_path, ood=moved) == set()
    run = SuiteRun(student, elsewhere, SMALL, folder=tmp_path, ood=moved)
    assert run.replaced() == ""
    read = {
        "clean": set(run._inputs.indices.tolist()),
        "attacks": set(run._inputs.choose(SMALL.attack_images).tolist()),
        "corruptions": set(run._inputs.choose(SMALL.corruption_images).tolist()),
    }
    read |= {"calibration": read["clean"], "ood": read["clean"]}
    for i in (0, 17, 39):  # not the first alone
        changed = pixels.copy()
        changed[i, -1, -1, -1] ^= 1
        again = parts_measured(student, plain(changed, labels), tmp_path, ood=ood)
        assert again == {group for group in groups if i in read[group]}
        parts_measured(student, plain(pixels, labels), tmp_path, ood=ood)
    other = pixels[:20].copy()
    other[19, 0, 0, 0] ^= 1
    other_ood = {"grey": plain(other, labels[:20])}
    assert parts_measured(student, plain(pixels, labels), tmp_path, ood=other_ood) == {"ood"}
    turned = plain(pixels[::-1], labels)
    replaced = SuiteRun(student, turned, SMALL, folder=tmp_path, ood=other_ood).replaced()
    assert "images or labels themselves" in replaced


def test_masks_and_variants_count_for_what_shows_them(student, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    boxes = np.tile(np.array([8, 8, 23, 23]), (40, 1))
    config = dataclasses.replace(
        CONFIG, groups=("clean", "backgrounds", "focus"), images=40, focus_images=40
    )

    def measured(boxes) -> set[str]:
        given = {
            f.name: getattr(plain(pixels, np.arange(40) % 10), f.name)
            for f in dataclasses.fields(LabelledImages)
        }
        before = times(tmp_path)

        def mask(i):
            x0, y0, x1, y1 = boxes[i]
            inside = np.zeros((32, 32), bool)
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
            return inside

        robustness_suite(student, MaskedImages(**given, mask=mask), config, folder=tmp_path)
        after = times(tmp_path)
        return {name.split("/")[1] for name in after if after[name] != before.get(name)}

    assert measured(boxes) == {"clean", "backgrounds", "focus"}
    assert measured(boxes.copy()) == set()
    boxes[33] = [4, 4, 20, 20]
    assert measured(boxes) == {"backgrounds", "focus"}


@pytest.mark.parametrize("change", ["pixels", "labels", "count"])
def test_a_baseline_of_other_images_is_refused(student, change: str) -> None:
    config = dataclasses.replace(SMALL, groups=("clean", "corruptions"))
    pixels = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    data = plain(pixels, np.arange(10))
    baseline = robustness_suite(student, data, config)
    same = plain(pixels.copy(), np.arange(10), "/elsewhere")
    found = robustness_suite(student, same, config, baseline=baseline)
    assert found["corruption/mce"].value == pytest.approx(1)
    if change == "pixels":
        pixels[-1, -1, -1] ^= 1
    labels = np.arange(10)[::-1] if change == "labels" else np.arange(10)
    if change == "count":
        pixels, labels = np.concatenate([pixels, pixels]), np.concatenate([labels, labels])
    with pytest.raises(
        UserError, match=r"baseline was measured on other images .*give both the sa"
    ):
        SuiteRun(student, plain(pixels, labels), config, baseline=baseline)
    old = dataclasses.replace(baseline, config={**baseline.config, "data_sha256": {}})
    with pytest.raises(UserError, match="does not say which images it corrupted"):
        SuiteRun(student, data, config, baseline=old)
