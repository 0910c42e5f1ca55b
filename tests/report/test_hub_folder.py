"""Students, teachers and sets as the hub has them: there and back, by a hub of folders here."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from clarep import CanonicalSet, Evaluation, Measurement, Student, push_to_hub
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.identify import identify
from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.engine.artefacts import sha256_file, write_json
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError
from clarep.report.hub_folder import write_hub_folder
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, save_student
from clarep.teachers.unet_teacher import UNetTeacher
from clarep.teachers.zoo import load_teacher

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def fake_hub(tmp_path, monkeypatch) -> Path:
    """Repositories are folders; what is uploaded there is downloaded from there."""
    root = tmp_path / "hub"

    class HfApi:
        def __init__(self, token=None):
            assert token is None

        def create_repo(self, repo_id, *, repo_type, private, exist_ok):
            if repo_id == "no/rights":
                raise OSError("403 Forbidden")
            (root / repo_type / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id, repo_type, folder_path, commit_message):
            shutil.copytree(folder_path, root / repo_type / repo_id, dirs_exist_ok=True)

    def listed(repo_id, *, revision, repo_type):
        return [path.name for path in (root / repo_type / repo_id).iterdir()]

    def download(repo_id, *, revision, repo_type, allow_patterns, ignore_patterns):
        to = tmp_path / "cache" / repo_type / repo_id
        to.mkdir(parents=True)
        for name in allow_patterns:
            shutil.copy(root / repo_type / repo_id / name, to)
        return str(to)

    monkeypatch.setattr(hub, "HfApi", HfApi)
    monkeypatch.setattr(hub, "list_repo_files", listed)
    monkeypatch.setattr(hub, "snapshot_download", download)
    return root


def a_run(folder: Path, data: str, fingerprint: str | None = None) -> Student:
    """A student's run with an evaluation of it, or of what has another fingerprint."""
    student = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)))
    file = folder / "student" / "student.safetensors"
    save_student(student, file)
    options = stored_options(DataConfig(data=data))
    config = {"method": "vanilla", "seed": 7, "data_options": options, "data": data}
    write_json(file.with_name("config.json"), config | {"student_sha256": sha256_file(file)})
    told = {
        "student_fingerprint": fingerprint or sha256_state(student),
        "seed": 0,
        "data": {"name": f"{data}/test", "images": 40},
    }
    right = Measurement("clean/accuracy", 0.625, (0.5, 0.75), 40)
    doubted = Measurement("attack/pgd-linf/eps_255=4", 0.25, (0.1, 0.4), 40, "gradients | vanish")
    Evaluation(told, [right, doubted], {"label": torch.zeros(40)}).save(folder / "robustness")
    return student.eval()


def test_a_student_there_and_back(tmp_path, fake_hub):
    student = a_run(tmp_path / "mine", "my_set")
    where = push_to_hub(tmp_path / "mine", "someone/garments")
    assert where == "https://huggingface.co/someone/garments"
    put = fake_hub / "model" / "someone" / "garments"
    assert {path.name for path in put.iterdir()} == {
        "README.md", "config.json", "student.safetensors"
    }  # fmt: skip
    back = Student.from_pretrained("someone/garments")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(back(x), student(x)) and back.info == student.info
    card = hub.ModelCard((put / "README.md").read_text())
    (found,) = card.data.eval_results  # what is not trusted is no metric
    assert (found.metric_type, found.metric_value) == ("clean/accuracy", 0.625)
    assert found.dataset_name == "my_set/test"  # its markup is escaped in the text alone
    assert card.data.library_name == "clarep"
    assert 'Student.from_pretrained("someone/garments")' in card.text
    assert "| clean | 0.625 | [0.5, 0.75] | 40 |" in card.text
    assert "not trustworthy: gradients \\| vanish" in card.text
    told = json.loads((put / "config.json").read_text())
    assert told["data_options"]["data"] == "my_set" and told["seed"] == 7


def test_huggingfaces_own_mixin_loads_the_folder(tmp_path):
    student = a_run(tmp_path / "mine", "backdrops")
    write_hub_folder(tmp_path / "mine", tmp_path / "folder")

    class Mixed(hub.ModelHubMixin):
        def __init__(self, student, config=None):
            self.student, self.config = student, config

        @classmethod
        def _from_pretrained(cls, *, model_id, config, **_):
            return cls(Student.from_pretrained(model_id), config)

    mixed = Mixed.from_pretrained(tmp_path / "folder")
    assert mixed.config["class_names"] == list(CLASS_NAMES)
    assert sha256_state(mixed.student) == sha256_state(student)


def test_no_path_of_this_machine_goes_along(tmp_path, garments_path, tiny_teacher_path):
    a_run(tmp_path / "mine", str(garments_path))
    write_hub_folder(tmp_path / "mine", tmp_path / "folder")
    folder = garments_path.parent.name
    for path in (tmp_path / "folder").iterdir():
        assert folder.encode() not in path.read_bytes(), path.name


def test_figures_of_other_weights_are_refused(tmp_path):
    a_run(tmp_path / "mine", "backdrops", fingerprint="0" * 64)
    with pytest.raises(UserError, match="other weights"):
        write_hub_folder(tmp_path / "mine", tmp_path / "folder")


def test_a_teacher_there_and_back(fake_hub):
    push_to_hub("backdrops", "someone/teacher")
    back, ours = UNetTeacher.from_pretrained("someone/teacher"), load_teacher("backdrops")
    assert back.fingerprint == ours.fingerprint and back.class_names == ours.class_names
    put = fake_hub / "model" / "someone" / "teacher"
    text = hub.ModelCard((put / "README.md").read_text()).text
    quality = json.loads((put / "card.json").read_text())["quality"]["samples"][0]
    assert f"| 1 | {quality['class_accuracy']:.3f} | {quality['frechet_distance']:.3f} |" in text


def test_a_canonical_set_there_and_back(tmp_path, fake_hub, tiny_teacher_path, capsys):
    teacher, data = load_teacher(str(tiny_teacher_path)), load_data("backdrops")
    stored = identify(
        Clarid(teacher, ClaridConfig(t=0.85, k=2, steps=1)), data, tmp_path / "s" / "canon", [3, 9]
    )
    pushed = ["export", str(tmp_path / "s"), "--format", "hub", "--push", "someone/set"]
    assert main(pushed) == 0
    assert "someone/set" in capsys.readouterr().out
    back = CanonicalSet.from_pretrained("someone/set")
    assert back.sha256 == stored.sha256 and torch.equal(back.sample, stored.sample)
    card = hub.DatasetCard((fake_hub / "dataset" / "someone" / "set" / "README.md").read_text())
    assert "k = 2 directions" in card.text and "Median round trip" in card.text


def test_what_the_hub_refuses_and_what_is_none(tmp_path, fake_hub, capsys):
    with pytest.raises(UserError, match="403"):
        push_to_hub("backdrops", "no/rights")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no canonical set"):
        push_to_hub(tmp_path / "empty", "someone/x")
    assert main(["export", "backdrops", "--push", "someone/x"]) == 2
    with pytest.raises(UserError, match="other files"):
        write_hub_folder("backdrops", fake_hub.parent)
