"""The folder of a pipeline as diffusers' `save_pretrained` writes it, read part by part.

Nothing is unpickled: weights come from safetensors alone, and no code of a checkpoint runs.
"""

import contextlib
import inspect
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from clarep.engine import artefacts
from clarep.engine.extras import require_extra
from clarep.errors import UserError, refusing, said_by
from clarep.teachers.families import FAMILIES
from clarep.teachers.parametrisation import DDPM

EXTRA = "diffusers"
_DDPM_SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler",
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)  # fmt: skip
"""Samplers of one and the same noise schedule: betas, timesteps and a prediction type."""
_SCHEDULER_NAME = "scheduler_config.json"
_WEIGHTS = re.compile(r"\w+(-\d+-of-\d+)?(\.(?P<variant>\w+))?(-\d+-of-\d+)?\.safetensors")
_SPARE_WEIGHTS = ("text_model.embeddings.position_ids", "embeddings.position_ids")
"""Of older checkpoints: a buffer of 0, 1, 2, ... that is no weight."""
_SPARE_SETTINGS = (
    "attention_type", "caption_channels", "cross_attention_dim", "double_self_attention",
    "interpolation_scale", "num_vector_embeds", "only_cross_attention",
    "use_additional_conditions", "use_linear_projection",
)  # fmt: skip
"""What a Transformer2DModel has beside a DiT's settings, and is one where they are not set."""
_NOT_SET = (None, False, "default")
_BROKEN = (OSError, ImportError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError)


def refuse_diffusers(folder: Path, wanted: str) -> None:
    """Raise UserError if a folder where `wanted` was looked for is one of diffusers."""
    for name in ("model_index.json", "config.json"):
        try:
            kind = _class_of(read_json(folder / name).get("_class_name"))
        except UserError:  # missing or broken: the caller tells what it looked for
            continue
        if kind is not None:
            hint = other_family(kind, folder) or ": give a pipeline or model of another class"
            raise UserError(f"{folder} holds a {kind} of diffusers and no {wanted}{hint}")


def other_family(kind: object, folder: Path, own: str = "") -> str:
    """Return "; give FAMILY:FOLDER ..." if another family than `own` takes that class, else ""."""
    takes = [name for name, family in FAMILIES.items() if kind in family.classes and name != own]
    return f"; give {takes[0]}:{folder} for this one" if takes else ""


def _class_of(entry: object) -> object:
    """Return the class of an entry: of a part, or of a pipeline's own code, [module, class]."""
    return entry[-1] if isinstance(entry, list) and entry else entry


def read_index(folder: Path, pipeline: str, parts: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Return a folder's model_index.json.

    pipeline: class that it must be of; parts: name of a part -> classes that it may be of.
    Raises UserError if the file is missing or no JSON, or the pipeline or a part is another.
    """
    index = read_json(folder / "model_index.json")
    found = _class_of(index.get("_class_name"))
    if found != pipeline:
        raise UserError(
            f"{folder} holds a pipeline of class {found}: this family of teachers takes {pipeline}"
            + other_family(found, folder)
        )
    for part, kinds in parts.items():
        kind = _class_of(index.get(part))
        if kind not in kinds:
            raise UserError(
                f"the {part} of {folder} is of class {kind}: this family of teachers takes "
                f"{' or '.join(kinds)}"
            )
    return index


def names_of(id2label: object, path: Path, count: int | None = None) -> tuple[str, ...]:
    """Return the names of an id2label mapping, in order.

    Raises UserError if it is none, or not of `count` classes.
    """
    given = id2label if isinstance(id2label, Mapping) else {}
    numbers = [str(i) for i in range(len(given) if count is None else count)]
    if not numbers or set(given) != set(numbers):
        classes = "0, 1, ..." if count is None else f"0 to {count - 1}"
        raise UserError(
            f"id2label in {path} does not name classes {classes}: mend it, or name the classes "
            "with `class_names`"
        )
    return tuple(str(given[number]) for number in numbers)


def maps_of(network: Any) -> tuple[int, int, int]:
    """Return (C, H, W) of the images or latents that a network of diffusers takes.

    Raises UserError if its output is none of these, or its configuration does not say the size.
    """
    config, kind = network.config, type(network).__name__
    channels, size = config.in_channels, config.sample_size
    if config.out_channels not in (None, channels, 2 * channels):
        raise UserError(
            f"the {kind} takes {channels} channels and gives {config.out_channels}: supported is "
            "as many, or twice as many where it learns the variance, and no inpainting or editing"
        )
    match (size, size) if isinstance(size, int) else size:
        case [int(height), int(width)]:
            return channels, height, width
    raise UserError(
        f"the {kind} does not say how large its maps are (sample_size is {size}): write their side "
        "into its config.json"
    )


def load_part(folder: Path, class_name: str, library: str = "diffusers") -> Any:
    """Load a model of a class (of diffusers or transformers) from its part's folder.

    Raises UserError if there are no safetensors, these are damaged, incomplete or of another
    model, or the configuration has a setting that the class does not know.
    """
    if not any(folder.glob("*.safetensors")):
        found = "only pickles, which clarep never opens" if any(folder.glob("*.bin")) else "none"
        raise UserError(
            f"weights in safetensors are wanted in {folder} and there are {found}: give a folder "
            "that has them, such as save_pretrained of the loaded pipeline writes"
        )
    kind = getattr(require_extra(library, EXTRA), class_name)
    known = inspect.signature(kind.__init__).parameters
    config = read_json(folder / "config.json")
    for name, value in config.items() if library == "diffusers" else ():
        spare = name in _SPARE_SETTINGS and value in _NOT_SET
        if not (name in known or name.startswith("_") or spare):
            raise UserError(
                f"{folder / 'config.json'} has {name} {value}, which class {class_name} does not "
                "know and would pass over: give a checkpoint of that very class"
            )
    what, mend = f"cannot load class {class_name} from {folder}", "give a whole checkpoint of it"
    with refusing(what, mend, _BROKEN), silent(library):  # what does not fit is told below
        model, report = kind.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            variant=_variant(folder),
        )
    surplus = set(report["unexpected_keys"]) - set(_SPARE_WEIGHTS)
    faults = {"lacks {} weights of": report["missing_keys"], "has {} weights too many for": surplus}
    for fault, names in faults.items():
        if names:
            raise UserError(
                f"{folder} {fault.format(len(names))} class {class_name} ({min(names)} ...): "
                "give a whole checkpoint of it"
            )
    return model


def _variant(folder: Path) -> str | None:
    """Return which weights are read: None for the plain ones, else the only others there are."""
    names = map(_WEIGHTS.fullmatch, (path.name for path in folder.iterdir()))
    found = {name["variant"] for name in names if name}
    if None in found or not found:
        return None
    if len(found) > 1:
        raise UserError(
            f"{folder} holds no plain safetensors but variants, {', '.join(sorted(found))}: "
            "leave one of them there"
        )
    variant: str = found.pop()
    return variant


def load_schedule(folder: Path) -> DDPM:
    """Return the noise schedule of a pipeline's folder, whichever sampler it names.

    Raises UserError if there is none, it is no DDPM's, or its prediction type is unknown.
    """
    path = scheduler_config(folder)
    config = read_json(path)
    name = config.get("_class_name")
    if name not in _DDPM_SCHEDULERS:
        raise UserError(
            f"{path} is of class {name}: supported are the samplers of a DDPM schedule "
            f"({', '.join(_DDPM_SCHEDULERS[:3])} ...)"
        )
    if config.get("timestep_type", "discrete") != "discrete":
        raise UserError(
            f"{path} has timestep_type {config['timestep_type']}: supported is discrete, the "
            "timesteps of a DDPM"
        )
    # The samplers differ in how they step; the schedule of all is in DDIM's terms.
    kind = require_extra("diffusers", EXTRA).DDIMScheduler
    what, mend = f"cannot make a noise schedule of {path}", "give a pipeline with a DDPM schedule"
    with refusing(what, mend, _BROKEN), silent("diffusers"):
        scheduler = kind.from_config(config)
    return DDPM(scheduler.alphas_cumprod, scheduler.config.prediction_type)


def scheduler_config(folder: Path) -> Path:
    """Return the path of a pipeline's scheduler_config.json, or of a bare model's beside it."""
    inside, beside = folder / "scheduler" / _SCHEDULER_NAME, folder / _SCHEDULER_NAME
    return beside if beside.exists() and not inside.exists() else inside


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises UserError if there is none."""
    try:
        return artefacts.read_json(path)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {path}: give a folder that diffusers saved a pipeline or model to"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({said_by(error)}): give a whole file") from error


@contextlib.contextmanager
def silent(library: str) -> Iterator[None]:
    """Keep a library off stderr, which is for our own progress and sentences."""
    logger = require_extra(f"{library}.utils.logging", EXTRA)
    level, bars = logger.get_verbosity(), logger.is_progress_bar_enabled()
    logger.set_verbosity(logging.CRITICAL)
    logger.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.set_verbosity(level)
        if bars:
            logger.enable_progress_bar()
