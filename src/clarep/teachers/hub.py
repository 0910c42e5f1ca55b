"""Checkpoint folders by path or Hugging Face identifier, from the cache when offline."""

import re
from pathlib import Path

from clarep.engine.extras import require_extra
from clarep.errors import UserError, first_line

_IDENTIFIER = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")
# Gigabytes of copies that no family loads: other precisions, and whole pipelines in one file.
_UNWANTED = ("*.fp16.*", "*.non_ema.*", "*pruned*", "safety_checker/*")
_EXTRA = "diffusers"


def checkpoint_folder(place: str) -> Path:
    """Return the folder of a checkpoint, downloaded if `place` is the identifier of one.

    Of a repository only configurations, safetensors and tokenizer files are taken; pickles never.

    Raises:
        UserError: if there is no such folder, and no such repository in cache or network.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(
            f"{place} is a file: give the folder with its model_index.json or config.json"
        )
    if not _IDENTIFIER.fullmatch(place):
        raise _no_folder(place)
    return _download(place)


def _download(identifier: str) -> Path:
    hub = require_extra("huggingface_hub", _EXTRA)
    errors = require_extra("huggingface_hub.errors", _EXTRA)
    try:
        folder = hub.snapshot_download(
            identifier, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)
        )
        return Path(folder)
    except errors.HFValidationError as error:  # ../model, say
        raise _no_folder(identifier) from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{identifier} is no folder here, is not in the Hugging Face cache, and the hub "
            "cannot be reached: give a folder, or run this once with a network"
        ) from error
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"the Hugging Face hub gives no {identifier} ({first_line(error)}): check the "
            "spelling, accept its licence there, or give a folder"
        ) from error
    except Exception as error:  # whatever the HTTP library beneath it raises
        raise UserError(
            f"cannot download {identifier} ({first_line(error)}): check network and disk, "
            "or give a folder"
        ) from error


def _no_folder(place: str) -> UserError:
    return UserError(
        f"there is no folder {place}: give an existing one, or the OWNER/NAME of one on the "
        "Hugging Face hub"
    )
