"""What a recipe builds, where, in which order, and what it never builds twice."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from clarep.audit.audit import Audit
from clarep.audit.audit_config import PARTS, AuditConfig
from clarep.clarid.canonical_set import CanonicalSet
from clarep.cli.main import main
from clarep.data.held_out import load_held_out
from clarep.data.load import DataConfig, load_data
from clarep.distill.distill_config import DistillConfig, RivalsConfig
from clarep.distill.methods import METHODS
from clarep.engine import identity
from clarep.engine.artefacts import read_json
from clarep.errors import UserError
from clarep.robustness.evaluation import Evaluation
from clarep.students.student_files import STUDENT_NAME, load_student
from clarep.study.audit_jobs import AuditJob
from clarep.study.comparison import compare
from clarep.study.plan import Study
from clarep.study.recipe import load_recipe, with_top
from clarep.study.runs import read_run
from clarep.study.student_jobs import StudentJob
from clarep.study.turns import build_jobs, missing_jobs
from clarep.teachers.zoo import load_teacher


def named(jobs):
    return [(job.kind, job.name) for job in jobs]


def build(study: Study):
    """Build all that is missing; returns what was built."""
    return list(build_jobs(study, walk))


def walk(turn):
    for _ in turn.parts:
        pass


def time_left(study: Study):
    """What is told before the first missing job, which is not built."""
    found = []
    next(build_jobs(study, found.append))
    return found[0].seconds_left


@pytest.fixture(scope="session")
def _built(tmp_path_factory):
    return {}


@pytest.fixture
def out(tmp_path: Path, write_recipe, _built, tmp_path_factory) -> Path:
    """A copy of the folder in which the quick recipe was run, once for all tests."""
    import shutil

    if "out" not in _built:
        _built["out"] = tmp_path_factory.mktemp("study") / "out"
        _built["jobs"] = named(build(Study(load_recipe(write_recipe()), _built["out"])))
    shutil.copytree(_built["out"], tmp_path / "out")
    return tmp_path / "out"


def test_a_study_from_nothing(out, write_recipe, _built):
    assert _built["jobs"] == [
        ("canonical set", "top"),
        ("canonical set", "none"),
        ("student", "vanilla seed 0"),
        ("evaluation", "vanilla seed 0"),
        ("student", "cadistill seed 0"),
        ("evaluation", "cadistill seed 0"),
        ("student", "guidance-only seed 0"),
        ("evaluation", "guidance-only seed 0"),
    ]
    study = Study(load_recipe(write_recipe()), out)
    assert missing_jobs(study) == []
    for job in study.jobs:
        prefix = job.name.replace(" ", "-").replace("seed-", "seed")
        assert job.folder.parent.name == ("store" if job.kind == "canonical set" else "runs")
        assert job.folder.name.startswith(f"{prefix}-")
        assert len(job.folder.name.rsplit("-", 1)[1]) == 12
    top, none = (CanonicalSet.load(job.folder) for job in study.jobs[:2])
    assert study.canonical == top.folder
    assert top.tensors["index"].tolist() == none.tensors["index"].tolist()
    assert none.manifest["config"]["clarid"]["kind"] == "none"
    compared = compare([read_run(run) for run in study.runs])
    assert [row.name for row in compared.rows] == ["vanilla", "cadistill", "guidance-only"]
    assert compared.tests == 2  # accuracy; ECE has no per-image values


def test_nothing_is_built_twice(out, write_recipe, monkeypatch):
    for name in ("canonical_jobs.identify_steps", "student_jobs.StudentRun"):
        monkeypatch.setattr(f"clarep.study.{name}", lambda *_, **__: pytest.fail("built again"))
    assert build(Study(load_recipe(write_recipe()), out)) == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"seeds": "[0, 1]"}, ["student", "evaluation"] * 3),
        ({"epochs": "3"}, ["student", "evaluation"] * 3),
        ({"images": "10"}, ["evaluation"] * 3),
        ({"fraction": "0.5"}, ["canonical set"] * 2 + ["student", "evaluation"] * 2),
        ({"k": "5"}, ["canonical set"] * 2 + ["student", "evaluation"] * 2),
        ({"methods": '["vanilla", "class-mean"]'}, ["student", "evaluation"]),
        ({"methods": '["vanilla", "random"]'}, ["canonical set", "student", "evaluation"]),
        ({"methods": '["cadistill"]'}, ["evaluation"]),  # there is no vanilla beside it
    ],
)
def test_another_recipe_builds_what_it_does_not_share(out, write_recipe, lines, expected):
    study = Study(load_recipe(write_recipe("other", **lines)), out)
    assert [job.kind for job in missing_jobs(study)] == expected


def test_what_is_added_stands_beside_what_was_there(out, write_recipe):
    first = Study(load_recipe(write_recipe()), out)
    more = Study(load_recipe(write_recipe("other", seeds="[0, 1]")), out)
    assert len(build(more)) == 6
    compared = compare([read_run(run) for run in more.runs])
    assert [row.seeds for row in compared.rows] == [(0, 1)] * 3
    assert missing_jobs(first) == []


def test_an_interrupted_study_goes_on(tmp_path, out, write_recipe):
    """Stopped in the middle of each kind of job; then it ends with the same weights."""
    recipe = load_recipe(write_recipe())
    other = tmp_path / "other"
    study = Study(recipe, other)

    def interrupted(turn):
        next(turn.parts)  # begun, no more
        if turn.job.kind == "student":
            next(turn.parts)  # an epoch
        turn.parts.close()
        again = next(build_jobs(Study(recipe, other), walk))
        assert again.name == turn.job.name

    assert named(build_jobs(study, interrupted)) == named(study.jobs)
    assert missing_jobs(study) == []
    for run in study.runs:
        weights = [folder / "runs" / run.name / "student" / STUDENT_NAME for folder in (other, out)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_damage_is_mended(out, write_recipe):
    study = Study(load_recipe(write_recipe()), out)
    run = next(iter(study.runs))
    weights = run / "student" / STUDENT_NAME
    weights.write_bytes(weights.read_bytes()[:-1])
    shard = next(study.jobs[0].folder.glob("shard-*.safetensors"))
    shard.unlink()
    assert named(missing_jobs(study)) == [("canonical set", "top"), ("student", "vanilla seed 0")]
    build(study)
    assert missing_jobs(study) == []


def test_an_evaluation_that_lacks_a_figure_is_completed(out, write_recipe):
    """As one of an earlier version does, which had no such measure: the rest is not repeated."""
    study = Study(load_recipe(write_recipe()), out)
    folder = study.runs[0] / "robustness"
    whole = Evaluation.load(folder)
    part = folder / "parts" / "clean" / "evaluation.json"
    before = part.stat().st_mtime_ns
    kept = [one for one in whole.measurements if one.key != whole.measurements[-1].key]
    replace(whole, measurements=kept).save(folder)
    assert named(missing_jobs(study)) == [("evaluation", "vanilla seed 0")]
    build(study)
    assert Evaluation.load(folder).measurements == whole.measurements
    assert missing_jobs(study) == [] and part.stat().st_mtime_ns == before

    (job,) = [job for job in study.jobs if job.kind == "evaluation" and job.folder == study.runs[0]]
    more = replace(job, keys=(*job.keys, "focus/area"))
    assert not more.is_done()  # unless the student cannot give it: no gradient reaches the image
    answers = whole.config["answers"] | {"gradient": "zero"}
    replace(whole, config=whole.config | {"answers": answers}).save(folder)
    assert more.is_done()
    whole.save(folder)


def test_an_existing_set_gives_the_controls_its_images(out, write_recipe):
    recipe = load_recipe(write_recipe())
    folder = Study(recipe, out).jobs[0].folder
    moved = folder.rename(out / "canon")
    study = Study(with_top(recipe, moved), out)
    assert missing_jobs(study) == []  # the same content has the same address
    assert study.canonical == moved


def test_an_existing_set_that_does_not_fit(out, write_recipe):
    recipe = load_recipe(write_recipe())
    top, none = (job.folder for job in Study(recipe, out).jobs[:2])
    with pytest.raises(UserError, match="holds none directions"):
        Study(with_top(recipe, none), out)
    with pytest.raises(UserError, match="holds no canonical set"):
        Study(with_top(recipe, out), out)
    other = load_recipe(write_recipe("other", teacher='"backdrops"'))
    with pytest.raises(UserError, match=r'teacher: .*, "backdrops" now'):
        Study(with_top(other, top), out)
    other = load_recipe(write_recipe("other", data='"backdrops"'))
    with pytest.raises(UserError, match=r"data_sha256 .*images or labels"):
        Study(with_top(other, top), out)


def test_measures_that_the_data_have_nothing_for_are_refused_before_training(
    tmp_path, write_recipe
):
    path = write_recipe(groups='["clean", "focus"]')
    with pytest.raises(UserError, match=r"focus.? cannot be measured on .*needs masks or boxes"):
        Study(load_recipe(path), tmp_path / "out")
    assert Study(load_recipe(write_recipe("whole")), tmp_path / "out").left_out == ""


def test_test_images_that_are_trained_on_are_told(write_recipe, garments_path, tmp_path, capsys):
    with np.load(garments_path) as archive:
        arrays = dict(archive)
    arrays["x_test"][:7] = arrays["x_train"][5:12]
    np.savez(tmp_path / "leaky.npz", **arrays)
    path = write_recipe("leaky", data=f'"{tmp_path}/leaky.npz"')
    seen = Study(load_recipe(path), tmp_path / "out").seen
    assert "trained on 7 of 20 images of " in seen
    assert not Study(load_recipe(write_recipe()), tmp_path / "out").seen
    assert main(["run", str(path), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert f"warning: {seen}" in capsys.readouterr().err


def test_guidance_only_wants_guidance(tmp_path, write_recipe):
    path = write_recipe(steps="2\nguidance = 1.0")
    with pytest.raises(UserError, match="guidance-only decodes with a guidance above 1"):
        Study(load_recipe(path), tmp_path / "out")


def test_one_classifier_for_all_who_ask_it(tmp_path, write_recipe):
    lines = {
        "methods": '["kd", "vanilla", "rkd"]',
        "seeds": '[0, 1]\nclassifier_student = "resnet8"',
    }
    study = Study(load_recipe(write_recipe(**lines)), tmp_path / "out")
    kinds = [job.kind for job in study.jobs]
    assert kinds.count("classifier") == 1
    assert kinds.index("classifier") < kinds.index("student")
    assert named(study.jobs)[1] == ("student", "vanilla seed 0")  # first, whatever the order given
    assert len(list(islice(build_jobs(study, walk), 5))) == 5
    kd = next(job for job in study.jobs if job.name == "kd seed 0")
    assert json.loads((kd.folder / "student/config.json").read_text())["classifier_sha256"]


def test_time_left_comes_from_jobs_of_the_same_kind(out, write_recipe):
    study = Study(load_recipe(write_recipe("other", seeds="[0, 1]")), out)
    seconds = {
        "student vanilla": [10.0, 20.0],
        "student cadistill": [30.0],
        "student guidance-only": [40.0],
        "evaluation vanilla": [5.0],
    }
    (out / "store/seconds.json").write_text(json.dumps(seconds))
    assert time_left(study) == 15 + 30 + 40 + 3 * 5
    seconds.pop("student guidance-only")  # then: the mean of all students
    (out / "store/seconds.json").write_text(json.dumps(seconds))
    assert time_left(study) == 15 + 30 + 20 + 3 * 5
    for text in ('{"student vanilla": [1]}', "{", '{"student": 3}'):
        (out / "store/seconds.json").write_text(text)
        assert time_left(study) is None


def test_data_without_a_test_split_are_measured_on_what_is_held_out(
    write_recipe, garments_path, tmp_path
):
    """By all seeds on the same images, which none of them has seen."""
    with np.load(garments_path) as archive:
        arrays = {"x": archive["x_train"], "y": archive["y_train"], "classes": archive["classes"]}
    np.savez(tmp_path / "undivided.npz", **arrays)
    lines = {"methods": '["vanilla"]', "seeds": "[0, 1]", "data": f'"{tmp_path}/undivided.npz"'}
    recipe = load_recipe(write_recipe(**lines))
    study = Study(recipe, tmp_path / "out")
    assert len(build(study)) == 4
    assert not missing_jobs(Study(recipe, tmp_path / "out"))
    runs = [read_run(folder) for folder in study.runs]
    for run in runs:
        _, held_out = load_held_out(run.folder / "student", study.data)
        assert run.evaluation.config["data_options"]["split"] == "held-out"
        assert torch.equal(run.evaluation.arrays["label"], torch.from_numpy(held_out.labels))
        assert sorted(held_out.labels) == list(range(10))
    assert "picked on these very images" in compare(runs).notes[0]

    none = load_recipe(write_recipe(validation_share='0\npick = "last"', **lines))
    with pytest.raises(UserError, match="validation_share of 0 holds nothing out"):
        Study(none, tmp_path / "none")


def test_options_of_another_method_leave_a_students_address_alone(garments_path):
    options = DataConfig(data=str(garments_path))
    data = load_data(options)

    def address(method, **train):
        job = ("student", Path(), "", method, "resnet8", None, options, data)
        return StudentJob(*job, DistillConfig(**train)).address

    for method, rivals in (("vanilla", True), ("cadistill", True), ("kd", False), ("rkd", True)):
        same = address(method, rivals=RivalsConfig(kd_weight=0.5)) == address(method)
        assert same == rivals, method
    assert address("vanilla", lambda_align=2.0) == address("vanilla") != address("vanilla", ema=0.9)
    assert address("cadistill", lambda_align=2.0) != address("cadistill")
    off = "cadistill-no-align"  # which holds it at 0, whatever is given
    assert address(off, lambda_align=2.0) == address(off) != address("cadistill")


def test_a_student_follows_from_the_parts_of_an_audit_that_it_reads(
    garments_path, write_recipe, tmp_path
):
    recipe = load_recipe(write_recipe())
    options = DataConfig(data=str(garments_path))
    data, teacher = load_data(options), load_teacher(recipe.teacher)

    def address(method, pick="last", **asked):
        audit = AuditJob(Path(), "", teacher, {}, options, data, AuditConfig(**asked))
        job = ("student", Path(), "", method, "resnet8", None, options, data)
        return StudentJob(*job, DistillConfig(pick=pick), audit=audit).address

    def read_by(method, pick="last"):
        usual = address(method, pick)
        told = {
            "errors": {"draws": 3},
            "masks": {"mask_area": 0.3},
            "targets": {"target_sigma": 1.0},
        }
        assert address(method, pick, batch_size=7) == usual
        return [part for part, asked in told.items() if address(method, pick, **asked) != usual]

    assert read_by("doubted") == ["errors"]
    assert read_by("compose") == read_by("adv-compose") == ["errors", "masks"]  # masks follow from
    assert read_by("evidence") == ["targets"]
    assert read_by("evidence-compose") == ["errors", "masks", "targets"]
    assert read_by("evidence", pick="doubted") == ["errors", "targets"]
    assert address("evidence") == address("evidence", mask_draws=0, rivals=2)
    job = AuditJob(Path(), "", teacher, {}, options, data, AuditConfig(draws=3, mask_area=0.3))
    content = {"teacher_sha256": teacher.fingerprint, "data_sha256": data.sha256()}
    before = identity.address(content | {"audit": {"draws": 3, "mask_area": 0.3}})
    assert job.address == before  # as earlier versions had it
    assert job.address_of(("errors", "masks")) == before

    asked = ("student", tmp_path, "x", "evidence", "resnet8", None, options, data, DistillConfig())
    new = StudentJob(*asked, audit=job).folder
    assert new == StudentJob(*asked, audit=replace(job, config=AuditConfig())).folder
    old = tmp_path / f"x-seed0-{StudentJob(*asked, audit=job)._address_by(PARTS)}"
    old.mkdir()  # of a version whose address told every part
    assert StudentJob(*asked, audit=job).folder == old != new


def test_one_audit_for_all_who_read_it(tmp_path, write_recipe, monkeypatch):
    """Its address follows from what is asked; students of other methods do not know of it."""

    class Audited(METHODS["vanilla"]):
        name, needs_audit = "audited", True

    monkeypatch.setitem(METHODS, "audited", Audited)
    lines = {"methods": '["vanilla", "audited"]', "seeds": "[0, 1]"}
    path = write_recipe(**lines)
    told = "[audit]\ndraws = 1\nmask_draws = 0\ntarget_share = 0\n[data]"
    path.write_text(path.read_text().replace("[data]", told))
    study = Study(load_recipe(path), tmp_path / "out")
    assert [kind for kind, _ in named(study.jobs)].count("audit") == 1
    assert study.jobs[0].kind == "audit" and study.jobs[0] is study.audit
    built = build(study)
    assert len(built) == 9 and missing_jobs(study) == []
    found = Audit.load(study.audit.folder)
    assert found.config.draws == 1 and len(found.index) == 40
    assert found.manifest["config"]["teacher_sha256"] == study.teacher.fingerprint
    runs = {job.name: job for job in study.jobs if job.kind == "student"}
    configs = {name: read_json(job.folder / "student/config.json") for name, job in runs.items()}
    assert configs["audited seed 1"]["audit_sha256"] == found.sha256
    assert "audit_sha256" not in configs["vanilla seed 0"]

    more = path.read_text().replace("draws = 1", "draws = 2", 1)
    path.write_text(more.replace("seeds = [0, 1]", "seeds = [0]"))
    other = Study(load_recipe(path), tmp_path / "out")
    assert [job.name for job in missing_jobs(other)] == [
        "of the training images",
        *["audited seed 0"] * 2,
    ]
    path.write_text(more.replace("draws = 2", "sigmas = [99.0]", 1))
    with pytest.raises(UserError, match="sigma 99 is outside"):
        Study(load_recipe(path), tmp_path / "out")


def test_data_without_groups_are_refused_before_anything_is_built(tmp_path, write_recipe):
    recipe = load_recipe(write_recipe(methods='["vanilla", "group-dro"]'))
    with pytest.raises(UserError, match="group-dro is told the groups"):
        Study(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "method, left_out, is_right",
    [
        ("evidence-norm", "target_share", False),
        ("evidence-compose", "target_share", False),
        ("evidence-compose", "mask_draws", False),
        ("adv-compose", "mask_draws", False),
        ("evidence", "mask_draws", True),
        ("compose", "target_share", True),
        ("doubted", "mask_draws", True),
    ],
)
def test_an_audit_that_leaves_out_what_a_method_reads_is_refused(
    tmp_path, write_recipe, method, left_out, is_right
):
    path = write_recipe(methods=f'["vanilla", "{method}"]')
    path.write_text(path.read_text().replace("[data]", f"[audit]\n{left_out} = 0\n[data]"))
    if is_right:
        assert Study(load_recipe(path), tmp_path / "out").audit
        return
    with pytest.raises(UserError, match=f"method {method} reads .* with `{left_out}=0`"):
        Study(load_recipe(path), tmp_path / "out")


def test_an_activation_of_all_or_of_one_variant(tmp_path, write_recipe):
    """A student's address changes where one is given, and there alone."""

    def addresses(top="", variant=""):
        path = write_recipe(methods='["vanilla", "smooth"]', seeds=f"[0]\n{top}")
        path.write_text(f'{path.read_text()}[variants.smooth]\nmethod = "vanilla"\n{variant}\n')
        study = Study(load_recipe(path), tmp_path / "out")
        return [job for job in study.jobs if job.kind == "student"]

    plain = addresses()
    one = addresses(variant='activation = "silu"')
    both = addresses('activation = "silu"')
    assert one[0].address == plain[0].address != one[1].address
    assert [job.address for job in both] == [one[1].address] * 2
    assert [job.activation for job in addresses('activation = "gelu"', 'activation = "silu"')] == [
        "gelu",
        "silu",
    ]
    for _ in one[1].build():
        pass
    assert load_student(one[1].folder).info.activation == "silu"
    with pytest.raises(UserError, match="'tanh'"):
        addresses('activation = "tanh"')


def test_whoever_is_picked_by_the_doubted_reads_the_audit(tmp_path, write_recipe):
    path = write_recipe(methods='["vanilla", "kd"]', epochs='2\npick = "doubted"')
    path.write_text(path.read_text().replace("[data]", "[audit]\nmask_draws = 0\n[data]"))
    study = Study(load_recipe(path), tmp_path / "out")
    assert study.jobs[0] is study.audit
    learning = [job for job in study.jobs if isinstance(job, StudentJob)]
    assert {job.kind for job in learning} == {"student", "classifier"}
    assert all(job.audit is study.audit for job in learning)
    path.write_text(path.read_text().replace('pick = "doubted"', 'pick = "last"'))
    assert Study(load_recipe(path), tmp_path / "out").audit is None
