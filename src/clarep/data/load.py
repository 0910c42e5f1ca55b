"""One border for all data sets: a name or a path becomes `LabelledImages`."""

import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from clarep.data.added_cues import CueKind, with_cue
from clarep.data.backdrops import load_backdrops
from clarep.data.cifar import find_cifar10, load_cifar10
from clarep.data.class_balance import class_balanced_choice
from clarep.data.files import NoSplitError, load_class_folders
from clarep.data.foregrounds import Foregrounds
from clarep.data.garments import SIZE, load_garments
from clarep.data.hf_sets import divided, load_hf
from clarep.data.labelled import LabelledImages
from clarep.data.npz import load_npz
from clarep.data.sets.backgrounds_challenge import is_challenge, load_challenge
from clarep.data.shards import load_shards
from clarep.data.subset import subset
from clarep.engine.bounds import Seed, Within, check_bounds
from clarep.engine.identity import located
from clarep.errors import UserError, check_type, unknown_name

_NAMED = {
    "garments": (),
    "backdrops": ("correlation", "variant", "data_seed"),
    "noise-backdrops": ("variant", "data_seed"),
}
"""Name of a set -> the options, beside split and image_size, that apply to it."""
_FAMILIES = ("wds", "hf")
"""What stands before a colon: shards of WebDataset, a data set of Hugging Face's `datasets`."""
_LATER = ("share", "cue")
"""Options that came after sets were stored, whose bytes they leave alone: kept where given."""
_SHARE = ("share", "data_seed")
"""Options of a share of a set that is read from a path."""


@dataclass(frozen=True)
class DataOptions:
    """How a data set is read, whichever it is."""

    split: str = "train"
    """Which part: train, test, or val where the data have it."""
    image_size: Annotated[int, Within(1)] | None = None
    """Crop images to their central square and resize it to this side, in pixels."""
    correlation: Annotated[float, Within(0, 1)] = 0.0
    """For backdrops: share of images, in [0, 1], that are given their class's own scene; the
    others draw any of the ten. With a cue, of those that are given their class's own colour."""
    variant: str = "original"
    """For either backdrops: original, only_fg, only_bg, no_fg, mixed_same, mixed_rand,
    mixed_next. With a cue: original, own, random, none."""
    data_seed: Seed = 0
    """For either backdrops: seed of placement, scene, crop and tint; for paths, of a share; of the
    colours of a cue."""
    cue: CueKind | None = None
    """Add a spurious cue, a colour for each class: tint the image, or put a patch into its corner.
    For all data but those that know their objects, as backdrops do."""
    share: Annotated[float, Within(0, 1, "(]")] = 1.0
    """For paths: share of every class that is read, chosen at random by data-seed."""
    classes_file: Path | None = None
    """For class folders and wds: text file with a folder (of wds what a .cls holds), or it and a
    class name, a line, to load no others. Spaces and # may stand in a folder's name."""
    alpha_colour: str = "white"
    """For class folders, wds and hf: colour behind transparent pixels, a name or #rrggbb."""


@dataclass(frozen=True)
class DataConfig(DataOptions):
    """Which data set, and how it is read."""

    data: str = "backdrops"
    """A name (garments, backdrops, noise-backdrops) or a path: class folders, an .npz (with boxes,
    too), CIFAR-10's batches, or the Backgrounds Challenge; or wds:PATTERN, WebDataset's shards,
    such as wds:x-{split}-{000..146}.tar; or hf:PLACE, a data set of Hugging Face's datasets, such
    as hf:FOLDER or hf:FOLDER:test."""


def load_data(config: DataConfig | str | Path) -> LabelledImages:
    """Load the data set that `config` describes; a name or a path alone is its `data`.

    Images of garments and backdrops are 32x32 and are not resized.

    Raises:
        UserError: for an unknown name or path, an option that does not apply to the set, and
            whatever the set's own reader refuses.
    """
    check_type("config", config, (DataConfig, str, Path), "a DataConfig, a name or a path")
    if not isinstance(config, DataConfig):
        config = DataConfig(data=str(config))
    if isinstance(config.data, Path):
        config = replace(config, data=str(config.data))
    if isinstance(config.classes_file, str):
        config = replace(config, classes_file=Path(config.classes_file))
    check_bounds(config)
    if config.cue is not None:
        return _with_cue(config, config.cue)
    if config.data in _NAMED:
        return _load_named(config)
    family, _, place = config.data.partition(":")
    if family in _FAMILIES and place:
        return _share_of(_load_family(family, place, config), config)
    path = Path(os.path.expanduser(config.data))  # Path's own fails at ~ of a user with no home
    if not config.data or not os.path.exists(path):
        unknown = unknown_name("data set", config.data, _NAMED)
        raise UserError(f"{unknown}, or a path, but there is no such file or folder")
    if config.share == 1 and config.data_seed:
        _refuse_all_but(config, "classes_file", "alpha_colour")
    return _share_of(_load_path(path, config), config)


def _share_of(data: LabelledImages, config: DataConfig) -> LabelledImages:
    if config.share == 1:
        return data
    if isinstance(data, Foregrounds):
        raise UserError(
            f"`share={config.share:g}` would lose the foregrounds of {data.name}: leave it out, "
            "and say how many are measured with `images`"
        )
    chosen = class_balanced_choice(data.labels, config.share, config.data_seed)
    return subset(data, chosen, f"share {config.share:g} seed {config.data_seed}")


def _with_cue(config: DataConfig, cue: CueKind) -> LabelledImages:
    seed = 0 if config.share == 1 else config.data_seed  # of the share
    without = replace(config, cue=None, correlation=0.0, variant="original", data_seed=seed)
    data = load_data(without)
    if isinstance(data, Foregrounds):
        raise UserError(
            f"`cue={cue}` would lose the foregrounds of {data.name}: leave it out (backdrops have "
            "`correlation` without one)"
        )
    return with_cue(
        data,
        cue,
        config.correlation,
        seed=config.data_seed,
        variant=config.variant,
        split=config.split,
    )


def stored_options(config: DataConfig) -> dict[str, Any]:
    """Return the options as JSON values, to be stored with a run; paths are absolute."""
    places = {
        "data": _located(config.data),
        "classes_file": None if config.classes_file is None else located(str(config.classes_file)),
    }
    usual = {name: getattr(DataConfig, name) for name in _LATER}
    given = {k: v for k, v in asdict(config).items() if k not in usual or v != usual[k]}
    return given | places


def _located(data: str) -> str:
    """Return a set as it is stored: paths are absolute, whatever stands around them."""
    family, _, place = data.partition(":")
    if family not in _FAMILIES or not place:
        return data if data in _NAMED else located(data)
    folder, part = divided(place) if family == "hf" else (place, "")
    folder = os.path.expanduser(folder)
    if family == "wds" or os.path.exists(folder):
        folder = os.path.abspath(folder)
    return f"{family}:{folder}" + (f":{part}" if part else "")


def load_test(config: DataConfig) -> tuple[DataConfig, LabelledImages]:
    """Load the images of a set that are there to test on: its split test or, without one, val.

    Returns the options behind which they are, and the images. Raises NoSplitError where the set
    has neither, and whatever `load_data` does.
    """
    test, val = (replace(config, split=split) for split in ("test", "val"))
    try:
        return test, load_data(test)
    except NoSplitError as error:
        try:
            return val, load_data(val)
        except NoSplitError:
            raise error from None


def _load_named(config: DataConfig) -> LabelledImages:
    _refuse_all_but(config, *_NAMED[config.data])
    if config.image_size not in (None, SIZE):
        raise UserError(
            f"{config.data} are {SIZE}x{SIZE} and are not resized: "
            f"leave out `image_size={config.image_size}`"
        )
    if config.data == "garments":
        return load_garments(config.split)
    noise = config.data == "noise-backdrops"
    return load_backdrops(
        config.split, config.data_seed, config.correlation, config.variant, noise=noise
    )


def _load_family(family: str, place: str, config: DataConfig) -> LabelledImages:
    listed = ("classes_file",) if family == "wds" else ()
    seed = _SHARE if config.share < 1 else ()
    _refuse_all_but(config, *seed, *listed, "alpha_colour")
    if family == "hf":
        return load_hf(place, config.split, config.image_size, config.alpha_colour)
    return load_shards(
        place, config.split, config.image_size, config.classes_file, config.alpha_colour
    )


def _load_path(path: Path, config: DataConfig) -> LabelledImages:
    is_cifar10, is_variants = find_cifar10(path) is not None, is_challenge(path)
    if path.is_dir() and not is_cifar10 and not is_variants:
        _refuse_all_but(config, *_SHARE, "classes_file", "alpha_colour")
        return load_class_folders(
            path, config.split, config.image_size, config.classes_file, config.alpha_colour
        )
    _refuse_all_but(config, *_SHARE)
    if is_variants:
        return load_challenge(path, config.image_size)
    if is_cifar10:
        return load_cifar10(path, config.split, config.image_size)
    if path.suffix != ".npz":
        raise UserError(f"{path} is neither a folder nor an .npz: give one of these")
    return load_npz(path, config.split, config.image_size)


def _refuse_all_but(config: DataConfig, *names: str) -> None:
    """Raise UserError if a field of no such name was given: the data set would ignore it."""
    for field in fields(DataOptions):
        value = getattr(config, field.name)
        if field.name not in ("split", "image_size", *names) and value != field.default:
            raise UserError(f"`{field.name}={value}` does not apply to {config.data}: leave it out")
