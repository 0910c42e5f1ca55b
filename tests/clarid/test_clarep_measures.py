"""Each measure against a plain loop or a closed form."""

import csv
import json
import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from clarep.clarid.clarid import Clarid
from clarep.data.backdrops import load_backdrops
from clarep.data.garments import CLASS_NAMES, load_garments
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.errors import UserError
from clarep.report.measures_table import (
    measures_table,
    read_measures,
    write_classifier,
    write_measures,
)
from clarep.report.quality import classify_all, frechet_distance
from clarep.select.clarep_columns import BACKGROUND, BLOCKS, COLUMNS, FOOTNOTE, SPREAD
from clarep.select.clarep_measures import (
    Measures,
    Scene,
    background_colours,
    cluster_nmi,
    colour_spread,
    distance_from_grey,
    judge_knows,
    measure,
    probe_r2,
    removed_on_background,
    scene_of,
    within_over_total,
)
from clarep.select.controls import CONTROLS, control_of, measure_set, project_control
from clarep.select.judging import judged
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def masks_of(batch=3, side=5, seed=1):
    return draw(batch, side, side, seed=seed) > 0.3


def test_every_measure_has_a_column_and_every_column_a_field():
    known = {field.name for field in fields(Measures)}
    of_intervals = {column.interval for column in COLUMNS.values() if column.interval}
    assert known == {"kind", "images", "labels_tried", "background_area", *COLUMNS, *of_intervals}
    assert {column.block for column in COLUMNS.values()} == {*BLOCKS, FOOTNOTE}


def test_removed_on_background_by_a_loop():
    removed, masks = draw(3, 2, 5, 5), masks_of()
    for b, share in enumerate(removed_on_background(removed, masks)):
        off = total = 0.0
        for c in range(2):
            for i in range(5):
                for j in range(5):
                    energy = float(removed[b, c, i, j]) ** 2
                    total += energy
                    off += 0 if masks[b, i, j] else energy
        assert 0 < off < total
        assert float(share) == pytest.approx(off / total, rel=1e-5)


def test_removed_on_background_at_its_ends():
    masks = masks_of()
    on_garment = masks[:, None].float().expand(-1, 3, -1, -1)
    assert removed_on_background(on_garment, masks).tolist() == [0, 0, 0]
    assert removed_on_background(1 - on_garment, masks).tolist() == [1, 1, 1]
    assert removed_on_background(torch.zeros(3, 3, 5, 5), masks).tolist() == [0, 0, 0]


def test_background_colours_by_a_loop():
    samples, masks = draw(3, 3, 5, 5), masks_of()
    colours = background_colours(samples, masks)
    for b in range(3):
        for c in range(3):
            seen = [
                float(samples[b, c, i, j]) for i in range(5) for j in range(5) if not masks[b, i, j]
            ]
            assert float(colours[b, c]) == pytest.approx(sum(seen) / len(seen), abs=1e-6)
    covered = torch.ones(1, 5, 5, dtype=torch.bool)
    assert background_colours(samples[:1], covered).tolist() == [[0, 0, 0]]


def test_colour_spread():
    assert colour_spread(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]])) == pytest.approx(1)
    assert colour_spread(torch.full((4, 3), 0.7)) == pytest.approx(0, abs=1e-6)
    colours = draw(6, 3).double()
    centre = colours.mean(0)
    squares = [float((colour - centre).norm()) ** 2 for colour in colours]
    assert colour_spread(colours) == pytest.approx(math.sqrt(sum(squares) / 6))


def test_within_over_total_by_a_loop():
    vectors, labels = draw(12, 2, 3), torch.arange(12) % 3
    flat = vectors.flatten(1).double().numpy()
    within = 0.0
    for label in range(3):
        members = [flat[i] for i in range(12) if labels[i] == label]
        centre = sum(members) / len(members)
        within += sum(((member - centre) ** 2).sum() for member in members)
    total = sum(((row - flat.mean(0)) ** 2).sum() for row in flat)
    assert within_over_total(vectors, labels) == pytest.approx(within / total)


def test_within_over_total_at_its_ends():
    labels = torch.arange(12) % 3
    assert within_over_total(labels[:, None].double(), labels) == 0
    assert within_over_total(draw(12, 4), torch.zeros(12, dtype=torch.int64)) == pytest.approx(1)


def test_points_that_are_all_the_same_have_no_variance():
    assert within_over_total(torch.ones(6, 4), torch.arange(6) % 2) == 0


def test_a_probe_reads_what_is_linear_and_no_noise():
    features = draw(120, 4, 2, 2)
    targets = features.flatten(1) @ draw(16, 3, seed=1) + 5
    assert probe_r2(features, targets) > 0.98
    noisy = targets + targets.std() * draw(120, 3, seed=2)
    assert 0.2 < probe_r2(features, noisy) < 0.7
    assert probe_r2(features, draw(120, 3, seed=3)) < 0.05


def test_a_probe_does_not_learn_by_heart():
    """More features than images: any target can be fitted, none of it holds for a new image."""
    assert probe_r2(draw(40, 200), draw(40, 3, seed=1)) < 0.1


def test_nmi_of_blobs_and_of_noise():
    labels = torch.arange(40) % 4
    blobs = 20 * nn.functional.one_hot(labels).float() + draw(40, 4)
    assert cluster_nmi(blobs[:, :, None, None], labels, 0) == pytest.approx(1)
    assert cluster_nmi(draw(200, 4), torch.arange(200) % 4, 0) < 0.1
    assert cluster_nmi(torch.ones(40, 4), labels, 0) == 0


def test_the_scene_is_that_of_the_data():
    data = load_backdrops("test")
    indices = np.array([4, 700, 31])
    scene = scene_of(data, indices)
    for row, i in enumerate(indices):
        made = data.composition(int(i))
        assert int(scene.labels[row]) == data.labels[i]
        assert np.array_equal(scene.masks[row].numpy(), made.mask)
        colour = made.backdrop.reshape(-1, 3).mean(0) / 127.5 - 1
        assert scene.colours[row].tolist() == pytest.approx(colour.tolist(), abs=1e-5)


def plain_images(count=12):
    """Images of the linear teacher's classes, 4x4, without masks."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    sources = [f"plain/{i}" for i in range(count)]
    names = ("cat", "dog", "owl")
    return LabelledImages("plain", np.arange(count) % 3, names, sources, lambda i: pixels[i])


def test_other_data_have_labels_alone():
    data = plain_images()
    scene = scene_of(data, np.array([4, 2]))
    assert scene.labels.tolist() == [1, 2]
    assert scene.masks is scene.colours is None


class BrightnessJudge(nn.Module):
    """Sees only the mean: above 0 it is sure of class 1, else of class 0."""

    def forward(self, x):
        assert float(x.abs().max()) <= 1
        sure = (x.mean(dim=(1, 2, 3)) > 0).long()
        return 4.0 * nn.functional.one_hot(sure, 3).float()


@pytest.fixture
def judge():
    return BrightnessJudge()


@pytest.fixture
def measured(teacher, judge, monkeypatch):
    """20 images of two classes whose background, the upper rows, is what was removed."""
    features = teacher.features
    teacher.latent_shape = teacher.image_shape = (3, 32, 32)
    monkeypatch.setattr(teacher, "features", lambda x, *rest: features(avg_pool2d(x, 8), *rest))
    labels = torch.arange(20) % 2
    masks = torch.zeros(20, 32, 32, dtype=torch.bool)
    masks[:, 16:] = True
    x_te = draw(20, 3, 32, 32).double()
    latents = x_te.clone()
    latents[:, :, :16] = 0
    brightness = (2.0 * labels - 1)[:, None, None, None]
    brightness[0] = 3.0  # one that the judge gets wrong, and outside [-1, 1]
    samples = brightness * torch.ones(20, 3, 32, 32)
    clarid = Clarid(teacher, sigma=2.0, k=4)
    scene = Scene(labels, masks, draw(20, 3, seed=2))

    def run(scene=scene, judge=judge, x_te=x_te, **changed):
        given = {"latents": latents, "samples": samples} | changed
        return measure(clarid, judge, scene, x_te, kind="top", **given)

    return run


def test_distance_from_grey_by_a_loop():
    samples, masks = draw(3, 3, 5, 5), masks_of()
    for b, found in enumerate(distance_from_grey(samples, masks)):
        squares = []
        for i in range(5):
            for j in range(5):
                if not masks[b, i, j]:
                    pixel = [float(samples[b, c, i, j]) for c in range(3)]
                    grey = sum(pixel) / 3
                    squares.append(sum((value - grey) ** 2 for value in pixel))
        assert float(found) == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-5)
    grey = draw(3, 1, 5, 5).expand(3, 3, 5, 5)
    assert distance_from_grey(grey, masks).max() < 1e-6


def test_a_row_of_the_table(measured):
    row = measured()
    assert (row.kind, row.images) == ("top", 20)
    assert row.removed_on_background == pytest.approx(1)
    assert row.removed_interval == pytest.approx((1, 1))
    assert row.background_area == 0.5
    assert row.judge_accuracy == pytest.approx(19 / 20)
    assert row.judge_interval[0] < 0.95 <= row.judge_interval[1] <= 1
    sure, unsure = (math.exp(4) / (math.exp(4) + 2), 1 / (math.exp(4) + 2))
    assert row.judge_confidence == pytest.approx((19 * sure + unsure) / 20)
    # Classes -1 and 1 but for one -1 that is 3, and so 1: a spread of colours over three channels.
    values = np.array([1.0] + [1.0 if i % 2 else -1.0 for i in range(1, 20)])
    assert row.background_spread == pytest.approx(math.sqrt(3 * values.var()))
    assert row.background_colour == 0  # all grey
    assert 0 < row.sample_within < 1
    assert 0 < row.feature_within <= 1
    json.dumps(asdict(row), allow_nan=False)


MASKED = (
    "removed_on_background",
    "removed_interval",
    "background_area",
    "background_colour",
    "background_interval",
    "background_spread",
    "background_r2",
)
JUDGED = ("judge_accuracy", "judge_interval", "judge_confidence")


def test_without_masks_and_judge_the_rest_is_the_same(measured):
    whole = measured()
    plain = Scene(torch.arange(20) % 2)
    assert measured(scene=plain) == replace(whole, **dict.fromkeys(MASKED))
    assert measured(judge=None) == replace(whole, **dict.fromkeys(JUDGED))
    assert measured(scene=plain, judge=None) == replace(whole, **dict.fromkeys(MASKED + JUDGED))
    assert all(getattr(whole, name) is not None for name in MASKED + JUDGED)


def test_a_mask_of_pixels_does_not_know_a_latent(measured, monkeypatch):
    """Of a latent teacher the samples' background is known, but not where the energy lies."""
    monkeypatch.setattr(Clarid, "features", lambda self, x, *rest: x)
    x_te = draw(20, 3, 4, 4).double()
    row, whole = measured(x_te=x_te, latents=x_te / 2), measured()
    assert row.removed_on_background is row.removed_interval is None
    for name in ("background_area", "background_colour", "background_spread"):
        assert getattr(row, name) == getattr(whole, name)


def test_judged_by_a_loop():
    logits, labels = draw(12, 3), torch.arange(12) % 3
    images = draw(12, 3, 4, 4, seed=1).clamp(-1, 1)
    said = judged(lambda given: logits if torch.equal(given, images) else None, images, labels)
    right, sure = [], []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right.append(row.index(max(row)) == label)
        sure.append(math.exp(row[label]) / sum(map(math.exp, row)))
    assert 0 < sum(right) < 12
    assert said["judge_accuracy"] == pytest.approx(sum(right) / 12)
    assert said["judge_confidence"] == pytest.approx(sum(sure) / 12)
    low, high = said["judge_interval"]
    assert 0 <= low < said["judge_accuracy"] < high <= 1


def test_controls_on_any_labelled_data_by_a_loop(teacher, tmp_path):
    """Each row's accuracy is that of its own samples, decoded and judged one by one."""
    data = plain_images()
    clarid = Clarid(teacher, sigma=2.0, k=20, steps=3)
    chosen = np.array([0, 1, 2, 4, 5, 9])
    labels = torch.from_numpy(data.labels[chosen])
    reps = clarid(data.images(chosen), labels, indices=chosen.tolist())
    canonical, stacked = reps.save(tmp_path), reps.tensors
    weights = draw(48, 3, seed=5).double()

    def judge(images):
        assert float(images.abs().max()) <= 1
        return images.flatten(1).double() @ weights

    kinds = ("none", "reconstruction")
    rows = [measure_set(clarid, judge, data, canonical, kind) for kind in (None, *kinds)]
    assert [row.kind for row in rows] == ["top", *kinds]
    alone = {kind: control_of(clarid, kind) for kind in kinds}
    for row in rows:
        right = 0
        for i in range(6):
            x, label = stacked["x_te"][i : i + 1], labels[i : i + 1]
            decoded = stacked["sample"][i : i + 1]
            if row.kind in alone:
                decoded = alone[row.kind].sample(x, label)
            right += int(judge(decoded.clamp(-1, 1)).argmax()) == int(label)
        assert row.images == 6
        assert row.judge_accuracy == pytest.approx(right / 6)
        assert row.background_colour is None
    assert len({row.judge_confidence for row in rows}) == 3


def test_a_teacher_without_a_null_class_is_measured_without_it(teacher):
    """And its null label is never asked for."""
    teacher.has_null = False
    teacher.embedding = teacher.embedding[:3]
    clarid = Clarid(teacher, sigma=2.0, k=4, guidance=1.0, batch_size=5)
    x_te, labels = draw(12, 3, 4, 4).double(), torch.arange(12) % 3
    row = measure(clarid, None, Scene(labels), x_te, latents=x_te, samples=x_te, kind="top")
    assert row.nmi_null is None
    assert 0 <= row.nmi_conditional <= 1
    for settings in ({"guidance": 3.0}, {"guidance": 1.0, "branch": "null"}):
        with pytest.raises(UserError, match="no null class"):
            Clarid(teacher, sigma=2.0, k=4, **settings)
    for ask in (
        lambda: clarid.features(x_te, labels, "null"),
        lambda: teacher.denoiser(labels, 3.0),
    ):
        with pytest.raises(UserError, match="no null class"):
            ask()


def test_samples_are_clamped_once_for_all_measures(measured):
    samples = 2 * draw(20, 3, 32, 32)
    assert measured(samples=samples) == measured(samples=samples.clamp(-1, 1))


def test_the_judge_knows_the_garments_alone(teacher, monkeypatch):
    backdrops = load_backdrops("test")
    assert not judge_knows(teacher, backdrops)
    monkeypatch.setattr(type(teacher), "class_names", CLASS_NAMES)
    assert judge_knows(teacher, backdrops)
    assert not judge_knows(teacher, load_garments("test"))
    monkeypatch.setattr(type(teacher), "class_names", CLASS_NAMES[::-1])
    assert not judge_knows(teacher, backdrops)


def test_the_masks_are_really_used(measured):
    x_te = draw(20, 3, 32, 32).double()
    lower, quarter = x_te.clone(), x_te.clone()
    lower[:, :, 16:] = 0
    assert measured(latents=lower).removed_on_background == pytest.approx(0)
    quarter[:, :, 8:24] = 0
    assert measured(latents=quarter).removed_on_background == pytest.approx(0.5, abs=0.03)
    painted = torch.zeros(20, 3, 32, 32)
    painted[:, :, 16:] = draw(20, 3, 1, 1)
    assert measured(samples=painted).background_spread == 0
    assert measured(samples=painted).background_colour == 0
    assert measured(samples=painted.flip(2)).background_colour > 0.3
    assert measured(samples=painted.flip(2)).background_spread > 1


def table_of(text, question):
    """Return the lines of one table, its headings first; what stands below it for want of room is
    put beside it again."""
    lines = text.splitlines()
    parts = [[]]
    for line in lines[lines.index(question) + 1 :]:
        if line.startswith("(") or line in BLOCKS:
            break
        parts = [*parts[:-1], [*parts[-1], line]] if line else [*parts, []]
    whole, *below = [part for part in parts if part and part[0].startswith("directions")]
    for part in below:
        first = len(part[0]) - len(part[0].removeprefix("directions").lstrip())
        whole = [f"{row}  {more[first:]}" for row, more in zip(whole, part, strict=True)]
    return whole


def test_nothing_removed_has_no_share(measured):
    row = measured(latents=draw(20, 3, 32, 32).double())
    assert row.removed_on_background is None
    assert row.removed_interval is None
    assert table_of(measures_table([row, measured()]), BACKGROUND)[1].split()[-1] == "-"
    assert "removed off object" not in measures_table([row])  # a column of dashes says nothing


def test_the_table_and_its_files(measured, tmp_path):
    asked = {"labels_tried": 3} | {
        name: value
        for name in COLUMNS
        if name.endswith("_share") or name.startswith("evidence")
        for name, value in ((name, -12.345), (COLUMNS[name].interval, (-23.456, 9.876)))
    }
    asked = {name: value for name, value in asked.items() if name}
    rows = [replace(measured(), **asked)]
    rows.append(replace(rows[0], kind="random", judge_accuracy=0.25, evidence=0.5))
    text = measures_table(rows)
    assert max(map(len, text.splitlines())) <= 80
    for block in BLOCKS:
        lines = table_of(text, block)
        assert lines[0].startswith("directions")
        assert [line.split()[0] for line in lines[1:3]] == ["top", "random"]
    latent, judged_by = table_of(text, BLOCKS[0]), table_of(text, BLOCKS[1])
    assert latent[1].split()[1:4] == ["-12.3", "[-23.5,", "9.88]"]
    assert latent[2].split()[1] == "0.50"
    assert "0.95 [" in judged_by[1] and "0.25 [" in judged_by[2]
    assert "pixels off the object: 0.50" in " ".join(text.split())
    assert "3 labels" in " ".join(text.split())
    write_measures(rows, tmp_path, {"seed": 0})
    assert list(read_measures(tmp_path, {"seed": 0}).values()) == rows
    assert read_measures(tmp_path, {"seed": 1}) == read_measures(tmp_path / "none", {}) == {}
    stored = json.loads((tmp_path / "measures.json").read_text())["rows"]
    assert [row["judge_accuracy"] for row in stored] == [0.95, 0.25]
    with open(tmp_path / "measures.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["judge_accuracy"]) for row in table] == [0.95, 0.25]
    low, high = stored[0]["judge_interval"]
    assert (float(table[0]["judge_low"]), float(table[0]["judge_high"])) == (low, high)
    intervals = {name for name in stored[0] if name.endswith("_interval")}
    assert intervals == {column.interval for column in COLUMNS.values() if column.interval}
    both = {name.replace("interval", end) for name in intervals for end in ("low", "high")}
    assert set(table[0]) == set(stored[0]) - intervals | both
    numbers = [value for name, value in table[0].items() if name != "kind"]
    assert all(math.isfinite(float(value)) for value in numbers)


def test_a_row_without_an_interval_has_empty_cells(measured, tmp_path):
    write_measures([measured(latents=draw(20, 3, 32, 32).double())], tmp_path, {})
    with open(tmp_path / "measures.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["removed_low"] == row["removed_high"] == ""
    assert row["judge_low"] != ""


def test_a_row_that_a_table_knows_nothing_of_is_left_out(measured):
    """Of scrambled images nothing is said of a background; what they are is said once."""
    row = measured()
    nothing = replace(row, kind="scrambled", **dict.fromkeys(MASKED))
    text = measures_table([row, nothing])
    background, spread = table_of(text, BACKGROUND), table_of(text, SPREAD)
    assert not any(line.startswith("scrambled") for line in background)
    assert [line.split()[0] for line in spread[1:3]] == ["top", "scrambled"]
    assert "shuffled" in text
    assert "shuffled" not in measures_table([row])


def test_the_table_has_a_legend(measured):
    legend = " ".join(measures_table([measured()]).splitlines()[3:])
    assert "docs/method.md#measures" in legend
    for word in ("judge", "NMI", "within", "spread", "R2"):
        assert word in legend


def test_the_table_speaks_only_of_what_is_known(measured):
    rows = [measured(scene=Scene(torch.arange(20) % 2))] * 2
    text = measures_table(rows)
    for word in ("garment", "background", "backdrop", "R2"):
        assert word not in text
    for word in ("judge accuracy", "confidence", "within samples", "NMI no class"):
        assert word in text
    assert "NMI given class" not in text
    assert "told the class" in " ".join(text.split())  # but the footnote has it, and why
    assert "evidence" not in text
    assert "-" not in text.split()
    assert "judge" not in measures_table([measured(judge=None)])


CLASSIFIER = {
    "student": "resnet8",
    "sha256": "ab" * 32,
    "originals": {
        "images": 20,
        "judge_accuracy": 0.83,
        "judge_interval": (0.75, 0.9),
        "judge_confidence": 0.7,
    },
}


def test_a_given_classifier_is_named_and_kept(measured, tmp_path):
    rows = [measured()]
    legend = " ".join(measures_table(rows, CLASSIFIER).splitlines()[2:])
    assert "the given classifier, resnet8" in legend
    assert "right on 0.83 [0.75, 0.90] of them" in legend
    assert "independent" not in legend
    write_classifier(CLASSIFIER, tmp_path)
    stored = json.loads((tmp_path / "classifier.json").read_text())
    assert stored["originals"]["judge_interval"] == [0.75, 0.9]
    write_classifier(None, tmp_path)  # by the bundled judge: the file would name another
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_in_what_its_name_says(teacher, name):
    clarid = Clarid(teacher, sigma=2.0, k="energy:0.5", guidance=3.0, tap="block1")
    clarid.num_dirs, clarid.engine = 6, "double_backward"
    control = control_of(clarid, name)
    changed = {"reconstruction": {"kind": "none", "guidance": 1.0}, "scrambled": {}}
    same = changed.get(name, {"kind": name})
    assert control.config == replace(clarid.config, **same)
    assert (control.num_dirs, control.sigma_te, control.tap) == (6, 2.0, "block1")
    assert control.engine == "double_backward"  # else each control would probe anew
    assert control.ledger is not clarid.ledger


def test_a_control_is_decoded_from_the_same_latents(teacher):
    x_te = draw(30, 3, 4, 4).double()
    labels = torch.arange(30) % 3
    clarid = Clarid(teacher, sigma=2.0, k=6, kind="random", steps=3)
    latents = project_control(clarid, x_te, labels, np.arange(100, 130), seed=7)
    # In batches of 25, each with the seed of its first image.
    for part in (slice(0, 25), slice(25, 30)):
        V = clarid.directions(x_te[part], labels[part], 7 + 100 + part.start).V
        kept = x_te[part].flatten(1) - (V @ (V.mT @ x_te[part].flatten(1)[:, :, None])).squeeze(2)
        assert torch.allclose(latents[part].flatten(1), kept, atol=1e-12)
    unchanged = project_control(control_of(clarid, "none"), x_te, labels, np.arange(30), 0)
    assert torch.equal(unchanged, x_te)


def test_images_of_the_scene_are_in_the_range_of_the_colours():
    data = load_backdrops("test", variant="only_bg")
    indices = np.arange(5)
    images = to_unit_range(data.images(indices))
    assert torch.allclose(images.mean(dim=(2, 3)), scene_of(data, indices).colours, atol=1e-6)


def student_that_answers(features):
    student = build_student(StudentInfo("resnet8", ("a", "b"), (3, 4, 4)), seed=0)
    student.both = lambda _: (features, features)
    return student


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "figure",
    [
        lambda f: within_over_total(f, torch.arange(20) % 4),
        lambda f: cluster_nmi(f, torch.arange(20) % 4, seed=0),
        lambda f: probe_r2(f, draw(20, 3)),
        lambda f: judged(lambda _: f, torch.zeros(20, 3, 4, 4), torch.arange(20) % 4),
        lambda f: frechet_distance(f, draw(20, 5)),
        lambda f: frechet_distance(draw(20, 5), f),
        lambda f: classify_all(student_that_answers(f), torch.zeros(20, 3, 4, 4)),
    ],
    ids=["variance", "nmi", "probe", "judge", "frechet", "frechet-other", "classifier"],
)
def test_no_figure_is_made_of_what_is_not_finite(figure, bad):
    features = draw(20, 5)
    figure(features)
    features[3, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        figure(features)
