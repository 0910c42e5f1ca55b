"""A student, a teacher or a canonical set as a repository of the Hugging Face hub has them.

The layout is that of huggingface_hub's mixin: weights, `config.json`, and the card, `README.md`.
The files are clarep's own, so that whatever reads a run reads the folder too.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_set import MANIFEST, CanonicalSet
from clarep.engine.artefacts import atomic_path, read_json, sha256_file, write_json
from clarep.engine.hub import RepositoryType, hub_library
from clarep.engine.places import local_path
from clarep.engine.tensors import sha256_state
from clarep.errors import UserError, refusing, said_by
from clarep.report.hub_card import set_card, student_card, teacher_card
from clarep.robustness.evaluation import EVALUATION_NAME, Evaluation
from clarep.students.student_files import STUDENT_NAME, load_student, student_path
from clarep.teachers.unet_teacher import CARD_NAME, WEIGHTS_NAME, card_of, load_unet
from clarep.teachers.zoo import BUNDLED, teacher_path

CONFIG_NAME, README = "config.json", "README.md"
_TRAINED = (
    *("method", "seed", "student", "layer", "activation", "train", "options", "data_sha256"),
    *("picked_epoch", "validation_accuracy", "versions"),
)
"""Of a run's configuration, what goes along: it names no file of the machine that it ran on."""


def write_hub_folder(place: Path | str, out: Path, repo_id: str | None = None) -> RepositoryType:
    """Write what `place` holds as a repository has it; return of which type that is.

    Args:
        place: a run of `clarep distill`, of `clarep train-teacher` or `clarep identify`, the folder
            or file in it that matters, or a bundled teacher's name.
        out: folder, new or empty.
        repo_id: OWNER/NAME, under which the card says how it is loaded.

    Raises:
        UserError: if `place` holds none of these, or a damaged one, an evaluation that is of other
            weights lies beside it, or `out` holds files.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files: give `out` a new folder")
    folder = local_path(place)
    sets = [one for one in (folder, folder / "canon") if (one / MANIFEST).exists()]
    has_student = any((one / STUDENT_NAME).exists() for one in (folder, folder / "student"))
    if sets:
        return _write_set(sets[0], out, repo_id)
    if has_student or folder.name == STUDENT_NAME:
        return _write_student(student_path(folder), out, repo_id)
    if str(place) not in BUNDLED and not folder.exists():
        raise UserError(
            f"there is nothing at {place}: give the folder of a run, or a bundled teacher, "
            f"{' or '.join(BUNDLED)}"
        )
    if str(place) not in BUNDLED and folder.is_dir() and not (folder / WEIGHTS_NAME).exists():
        raise UserError(
            f"{place} holds no {STUDENT_NAME}, no {WEIGHTS_NAME} and no canonical set: give the "
            "folder of a run that is at its end"
        )
    return _write_teacher(teacher_path(str(place)), out, repo_id)


def push_to_hub(
    place: Path | str, repo_id: str, *, private: bool | None = None, token: str | None = None
) -> str:
    """Put a student, a teacher or a canonical set on the Hugging Face hub; return its address.

    `Student.from_pretrained(repo_id)`, `UNetTeacher.from_pretrained` and
    `CanonicalSet.from_pretrained` get it back. The card says what was measured of it and stored.

    Args:
        place: as `write_hub_folder`.
        repo_id: OWNER/NAME; it is made where there is none.
        private: whether a new repository is; None is the hub's own default for the owner.
        token: without one the hub's own login is used (`hf auth login`).

    Raises:
        UserError: as `write_hub_folder`, without huggingface_hub (extra [hub]), and if the hub
            does not take it.
    """
    hub = hub_library()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "folder"
        repo_type = write_hub_folder(place, folder, repo_id)
        what = f"the Hugging Face hub does not take {repo_id}"
        mend = "log in by `hf auth login`, check name, rights and network, and run the same again"
        with refusing(what, mend, (Exception,)):  # of whatever HTTP library is beneath it
            api = hub.HfApi(token=token)
            made = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=made.repo_id,
                repo_type=repo_type,
                folder_path=folder,
                commit_message="Put here by clarep",
            )
    return str(made)


def _write_student(file: Path, out: Path, repo_id: str | None) -> RepositoryType:
    student, config = load_student(file), _stored(file.with_name(CONFIG_NAME))
    home = file.absolute().parent
    home = home.parent if home.name == "student" else home
    evaluation = None
    if (home / "robustness" / EVALUATION_NAME).exists():
        evaluation = Evaluation.load(home / "robustness")
        if evaluation.config.get("student_fingerprint") != sha256_state(student):
            raise UserError(
                f"{home / 'robustness'} tells of other weights than {file}: run `clarep evaluate` "
                "again, or remove that folder"
            )
    told = {name: config[name] for name in _TRAINED if name in config}
    _put(file, out)
    about = told | _classes_and_shape(student.info.class_names, student.info.image_shape)
    about |= {"data_options": _nowhere(config.get("data_options"))}
    write_json(out / CONFIG_NAME, about | {"student_sha256": sha256_file(file)})
    _write_card(out, student_card(student, evaluation, told, repo_id))
    return "model"


def _write_teacher(file: Path, out: Path, repo_id: str | None) -> RepositoryType:
    teacher, beside = load_unet(file), card_of(file)
    card = _stored(beside) if beside.exists() else None
    _put(file, out, WEIGHTS_NAME)
    if card is not None:
        recipe = {name: v for name, v in card.get("recipe", {}).items() if name != "data"}
        if "data_options" in recipe:
            recipe["data_options"] = _nowhere(recipe["data_options"])
        write_json(out / CARD_NAME, card | {"recipe": recipe})
    about: dict[str, Any] = _classes_and_shape(teacher.class_names, teacher.image_shape)
    about |= {"sigma_range": [teacher.sigma_min, teacher.sigma_max], "taps": list(teacher.taps())}
    write_json(out / CONFIG_NAME, about)
    _write_card(out, teacher_card(teacher, card, repo_id))
    return "model"


def _write_set(folder: Path, out: Path, repo_id: str | None) -> RepositoryType:
    canonical = CanonicalSet.load(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors") and not path.name.startswith("."):
            _put(path, out)
    _write_card(out, set_card(canonical, repo_id))
    return "dataset"


def _stored(path: Path) -> dict[str, Any]:
    """Return a file of JSON beside weights; none of it where there is none."""
    try:
        return dict(read_json(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} ({said_by(error)}): put a whole copy back") from error


def _classes_and_shape(names: tuple[str, ...], shape: tuple[int, int, int]) -> dict[str, Any]:
    return {"class_names": list(names), "image_shape": list(shape)}


def _nowhere(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return how data were read, None for those of a path: others have no such folder."""
    if options is None or os.sep in str(options.get("data")) or options.get("classes_file"):
        return None
    return dict(options)


def _put(file: Path, out: Path, name: str | None = None) -> None:
    """Put a file there, without a second copy where the disk can; ours are never written over."""
    out.mkdir(parents=True, exist_ok=True)
    to = out / (name or file.name)
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)


def _write_card(out: Path, text: str) -> None:
    with atomic_path(out / README) as temporary:
        temporary.write_text(text, encoding="utf-8")
