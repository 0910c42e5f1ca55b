"""Checkpoint folders by path or Hugging Face identifier, from the cache when offline."""

import contextlib
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from clarep.engine.extras import require_extra
from clarep.errors import UserError, said_by

_PLACE = re.compile(r"(?P<identifier>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")
RepositoryType = Literal["model", "dataset"]
# Gigabytes of copies that no family loads: other weights, and whole pipelines in one file.
_UNWANTED = ("*.non_ema.*", "*pruned*", "safety_checker/*")
_HALF = "*.fp16*"


def hub_library() -> ModuleType:
    """Import huggingface_hub; raises UserError without it."""
    return require_extra("huggingface_hub", "hub")


def checkpoint_folder(
    place: str, part: str | None = None, repo_type: RepositoryType = "model"
) -> Path:
    """Return the folder of a checkpoint, downloaded if `place` is the identifier of one.

    Of a repository only configurations, safetensors and tokenizer files are taken; pickles never.

    Args:
        place: a folder, or OWNER/NAME or OWNER/NAME@REVISION of the Hugging Face hub.
        part: of a repository that has a folder of this name, its files alone are downloaded.
        repo_type: of the repository; a data set's is another than a model's of the same name.

    Raises:
        UserError: if there is no such folder, and no such repository in cache or network, or
            it holds no safetensors.
    """
    path = Path(os.path.expanduser(place))
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(
            f"{place} is a file: give the folder with its model_index.json or config.json"
        )
    found = _PLACE.fullmatch(place)
    if not found:
        raise _no_folder(place)
    folder = _download(found["identifier"], found["revision"], part, repo_type)
    if not any(folder.rglob("*.safetensors")):
        raise UserError(
            f"{place} holds no safetensors at this revision, and clarep opens no pickles: name a "
            f"revision that has them, {found['identifier']}@refs/pr/1 say, or convert it"
        )
    return folder


def wanted_files(listed: Iterable[str], part: str | None = None) -> list[str]:
    """Return which of a repository's files are to be had: no weights twice, and no pickles.

    Weights in half precision are left out where there are whole ones in the same folder.
    """
    files = [name for name in listed if _fits(name, _WANTED) and not _fits(name, _UNWANTED)]
    files = [name for name in files if part and name.startswith(f"{part}/")] or files
    weights = [name for name in files if name.endswith(".safetensors")]
    whole = {Path(name).parent for name in weights if not _fits(name, [_HALF])}
    return [name for name in files if Path(name).parent not in whole or not _fits(name, [_HALF])]


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _download(
    identifier: str, revision: str | None, part: str | None, repo_type: RepositoryType
) -> Path:
    hub, errors = hub_library(), require_extra("huggingface_hub.errors", "hub")
    where = {"revision": revision, "repo_type": repo_type}
    patterns: dict[str, Any] = {
        "allow_patterns": list(_WANTED),
        "ignore_patterns": [*_UNWANTED, _HALF],
    }
    with contextlib.suppress(Exception):  # no network, say: the cache must do, or tells it below
        listed = hub.list_repo_files(identifier, **where)
        patterns = {"allow_patterns": wanted_files(listed, part), "ignore_patterns": None}
    try:
        return Path(hub.snapshot_download(identifier, **where, **patterns))
    except errors.HFValidationError as error:  # ../model, say
        raise _no_folder(identifier) from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{identifier} is no folder here, is not in the Hugging Face cache, and the hub "
            "cannot be reached: give a folder, or run this once with a network"
        ) from error
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"the Hugging Face hub gives no {identifier} ({said_by(error)}): check the "
            "spelling, accept its licence there, or give a folder"
        ) from error
    except Exception as error:  # whatever the HTTP library beneath it raises
        raise UserError(
            f"cannot download {identifier} ({said_by(error)}): check network and disk, "
            "or give a folder"
        ) from error


def _no_folder(place: str) -> UserError:
    return UserError(
        f"there is no folder {place}: give an existing one, or the OWNER/NAME of one on the "
        "Hugging Face hub"
    )
