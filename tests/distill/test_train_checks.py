"""What does not belong together is refused in one sentence, before anything is written."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from clarep.distill.distill_config import DistillConfig, RivalsConfig, check_distill
from clarep.distill.trainer.sources import check_canonical
from clarep.distill.trainer.student_run import StudentRun
from clarep.errors import UserError
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student

NAN, INF = float("nan"), float("inf")


def refused(data, out, words, **parts):
    with pytest.raises(UserError, match=words) as caught:
        StudentRun(data, out, **parts)
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "student"


@pytest.fixture
def made(canonical_of, data_options):
    return canonical_of(), data_options


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("cadistill", "`canonical`"),
        ("random", "`canonical`"),
        ("generated", "`teacher`"),
        ("diffusion-features", "`teacher`"),
        ("diffaug", "`teacher`"),
        ("evidence", "`audit`"),
        ("kd", "`classifier`"),
        ("rkd", "`classifier`"),
    ],
)
def test_what_a_method_needs(data, out, method, option):
    refused(data, out, f"^method {method} needs {option}: give a", method=method)


def test_no_such_method(data, out):
    refused(data, out, "unknown method 'cadistil': did you mean cadistill", method="cadistil")


@pytest.mark.parametrize(
    "case",
    [
        ("cadistill", "none", 3.0, "takes a canonical set of kind top and .* is of kind none"),
        ("class-mean", "random", 3.0, "of kind top and .* is of kind random"),
        ("random", "top", 3.0, "of kind random and .* is of kind top: .* --kind random"),
        ("reconstruction", "none", 3.0, "of guidance 1 and .* is of guidance 3: .* --guidance 1"),
        ("guidance-only", "none", 1.0, "of a guidance above 1 and .* is of guidance 1"),
    ],
)
def test_a_set_of_another_kind(data, out, canonical_of, case):
    method, kind, guidance, words = case
    refused(data, out, words, method=method, canonical=canonical_of(kind, guidance))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data", "backdrops"),
        ("correlation", 0.9),
        ("data_seed", 3),
        ("split", "test"),
        ("image_size", 32),
        ("variant", "only_fg"),
    ],
)
def test_a_set_of_other_data(data, out, made, option, value):
    canonical, data_options = made
    shown = json.dumps(value)
    words = rf"of other data than .* \({option}: .* there, {shown} now; data_sha256"
    other = data_options | {option: value}
    parts = {"method": "cadistill", "canonical": canonical, "data_options": other}
    refused(replace(data, labels=(data.labels + 1) % 3), out, words, **parts)
    check_canonical(canonical, data, other, None)  # found elsewhere, the same images
    check_canonical(canonical, data, None, None)
    config = canonical.manifest["config"]  # Python's identify need not tell how data were read
    untold = {key: config[key] for key in config if key != "data_options"}
    check_canonical(replace(canonical, manifest={"config": untold}), data, data_options, None)


def test_the_sets_own_data_pass(data, canonical_of, data_options, teacher):
    check_canonical(canonical_of(), data, data_options, teacher)


def test_a_set_of_other_classes(data, out, canonical_of):
    parts = {"method": "cadistill", "canonical": canonical_of()}
    other = replace(data, class_names=("ant", *data.class_names[1:]))
    refused(other, out, r"classes are not those of .* \('.*' there, 'ant' here\)", **parts)
    more = replace(data, class_names=(*data.class_names, "ant"))
    refused(more, out, r"classes are not those of .* \(3 classes there, 4 here\)", **parts)


def test_a_set_of_another_teacher(data, out, canonical_of, teacher):
    class Other(type(teacher)):
        fingerprint = "0123456789abcdef"

    other = object.__new__(Other)
    parts = {"method": "cadistill", "canonical": canonical_of(), "teacher": other}
    refused(
        data, out, r"was made with another teacher than `teacher` .*0123456789ab given", **parts
    )


def test_a_set_whose_images_are_others(data, out, canonical_of):
    parts = {"method": "cadistill", "canonical": canonical_of()}
    turned = replace(data, labels=(data.labels + 1) % 3)
    refused(turned, out, "of other data than .*images or labels themselves", **parts)
    fewer = replace(data, labels=data.labels[:60], sources=data.sources[:60])
    refused(fewer, out, "of other data than .*images or labels themselves", **parts)
    last = int(canonical_of().tensors["index"][-1])
    other = replace(data, read=lambda i: data.read(i) ^ np.uint8(i == last))
    refused(other, out, "of other data than .*images or labels themselves", **parts)
    smaller = replace(data, read=lambda i: data.read(i)[:8, :8])
    refused(smaller, out, "3x16x16 .* 3x8x8: give `image_size=16`", **parts)


def test_a_set_that_names_no_data_and_a_folder_of_a_set(data, out, canonical_of, quick):
    whole = canonical_of()
    config = whole.manifest["config"] | {"data_sha256": None}
    nameless = replace(whole, manifest=whole.manifest | {"config": config})
    parts = {"method": "cadistill", "canonical": nameless}
    refused(data, out, "does not tell of which images it was made.*identify stored", **parts)
    run = StudentRun(data, out, method="cadistill", canonical=str(whole.folder), config=quick)
    assert run.described["canon"]["sha256"] == whole.sha256


@pytest.mark.parametrize("method", ["generated", "diffusion-features"])
def test_a_teacher_of_other_classes_or_size(data, out, teacher, method):
    other = replace(data, class_names=("a", "b", "c"))
    refused(other, out, "the teacher's classes are not those", method=method, teacher=teacher)
    smaller = replace(data, read=lambda i: data.read(i)[:8, :8])
    words = "the teacher's images are 3x16x16 .* 3x8x8: give `image_size=16`"
    refused(smaller, out, words, method=method, teacher=teacher)


def test_a_classifier_of_other_classes_or_size(data, out):
    other = build_student(StudentInfo("resnet8", ("a", "b", "c"), (3, 16, 16)))
    words = "the classifier's classes are not those"
    refused(data, out, words, method="kd", classifier=other)
    larger = build_student(StudentInfo("resnet8", data.class_names, (3, 32, 32)))
    words = "the classifier's images are 3x32x32 .* 3x16x16: give `image_size=32`"
    refused(data, out, words, method="kd", classifier=larger)


def test_what_a_method_does_not_use_is_not_looked_at(data, out, canonical_of, teacher):
    other = replace(data, class_names=("a", "b", "c"))
    run = StudentRun(
        other, out, config=DistillConfig(epochs=1), canonical=canonical_of("none"), teacher=teacher
    )
    assert run.described["canon"] is None and run.described["teacher_sha256"] is None


def test_a_validation_share_too_large(data, out):
    config = DistillConfig(validation_share=0.99)
    refused(data, out, "has 40 of the images .* leaves none to train on", config=config)


def test_images_too_small_for_the_crop(data, out):
    refused(data, out, "`crop_padding=16`", config=DistillConfig(crop_padding=16))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_needs_a_gpu(data, out):
    refused(
        data,
        out,
        "`mixed_precision=fp16` needs a GPU",
        config=DistillConfig(mixed_precision="fp16"),
    )


def test_one_process_on_a_cpu_needs_neither_accelerate_nor_tensorboard(
    data, out, monkeypatch, quick
):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    run = StudentRun(data, out, config=quick)
    assert len(list(run.records())) == 2 and run.finish()["picked_epoch"] >= 1
    assert not (out / "tensorboard").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"accelerate is not installed: .*\.\[train\]"):
        StudentRun(data, out, config=quick)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [0, -1]),
        ("batch_size", [1]),
        ("canonical_batch_size", [1, 0]),
        ("learning_rate", [0.0, -1.0, NAN, INF]),
        ("momentum", [-0.1, 1.0, NAN]),
        ("weight_decay", [-1.0, NAN, INF]),
        ("warmup_share", [-0.1, 1.0]),
        ("clip_norm", [0.0, NAN]),
        ("label_smoothing", [1.0, -0.1]),
        ("crop_padding", [-1]),
        ("cutout", [-1]),
        ("ema", [1.0, -0.5]),
        ("validation_share", [1.0, -0.1, NAN]),
        ("memory_mb", [-1.0, NAN]),
        ("workers", [-1]),
        ("lambda_align", [-1.0, NAN]),
        ("lambda_cano", [-1.0, INF]),
        ("lambda_dist", [-1.0]),
        ("warmup_align", [-1.0]),
        ("temperature_align", [0.0, NAN]),
        ("temperature_cano", [0.0]),
        ("queue_size", [-1]),
    ],
)
def test_settings_that_cannot_be_trained_with(name, values):
    for value in values:
        with pytest.raises(UserError, match=f"^`{name}={value}` is "):
            check_distill(replace(DistillConfig(), **{name: value}))


def test_nothing_to_pick_on():
    with pytest.raises(UserError, match=r"leaves nothing to pick .* or `pick=last`"):
        check_distill(DistillConfig(validation_share=0.0))
    check_distill(DistillConfig(validation_share=0.0, pick="last"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("supcon_weight", [-1.0]),
        ("supcon_temperature", [0.0]),
        ("kd_weight", [-0.1, 1.1, NAN]),
        ("kd_temperature", [0.0]),
        ("rkd_distance_weight", [-1.0]),
        ("adv_eps_255", [0.0, -1.0, 256.0, NAN]),
        ("adv_steps", [0]),
        ("augmix_severity", [0.0, 11.0]),
        ("augmix_weight", [-1.0]),
        ("diffusion_weight", [NAN]),
        ("diffusion_share", [0.0, 1.5]),
        ("generated_share", [0.0]),
        ("generated_guidance", [-1.0]),
        ("generated_steps", [0]),
    ],
)
def test_rivals_settings(name, values):
    for value in values:
        with pytest.raises(UserError, match=f"^`rivals.{name}={value}` is "):
            check_distill(DistillConfig(rivals=replace(RivalsConfig(), **{name: value})))
