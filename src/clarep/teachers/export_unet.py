"""clarep's own U-Nets as a folder of diffusers', which others load without clarep; and back.

The network is no class of diffusers: the folder brings its code, as diffusers' custom components
do, and clarep itself reads the folder's data alone. Preconditioning and noise levels are those of
diffusers' EDMEulerScheduler (Karras et al. 2022, arXiv 2206.00364).
"""

from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import torch

from clarep.engine.artefacts import atomic_path, write_json
from clarep.engine.lock import hold, is_leftover
from clarep.engine.tensors import read_tensors, save_tensors
from clarep.errors import UserError, refusing
from clarep.teachers.pipeline_folder import names_of, read_json
from clarep.teachers.unet_teacher import BROKEN, CARD_NAME, UNetTeacher, rebuilt

EXPORT_CLASS = "ClarepUNet"
"""Class of the exported network, by which an export is recognised."""
_MODULE = "clarep_unet"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = "model_index.json"
_PREFIX = "network."  # of every weight: the class holds the network as its one part
_BOUNDS = (
    "from clarep.engine.bounds import Within\n",
    "def Within(*_: object, **__: object) -> str:\n    return 'bounds, which clarep checks'\n\n",
)
"""What the network's module imports of clarep, and what stands for it in an export."""
_IMPORT = "from clarep.teachers.unet import UNet, UNetConfig"


def export_diffusers(
    teacher: UNetTeacher, out: Path, name: str, licence: str | None = None, card: Path | None = None
) -> None:
    """Write a teacher as a folder for `diffusers.DiffusionPipeline.from_pretrained`.

    Weights are stored in fp16 where that loses nothing (as for every teacher loaded from a file of
    ours), else in fp32.

    Args:
        teacher: one of clarep's own.
        out: folder, new, empty, or of an earlier export.
        name: title of its README.
        licence: of the weights, as the hub abbreviates it; None where clarep cannot know.
        card: model card that goes with it.

    Raises:
        UserError: if the folder holds something else, or another process writes in it.
    """
    _check_out(out)
    config, network = teacher.net.config, _module_source()
    _lock = hold(out)
    (out / _INDEX).unlink(missing_ok=True)  # of an earlier export: until the end, it is none
    # First, as it tells the folder for an export's, should a full disk or a kill end it here.
    write_json(out / "unet" / "config.json", {"_class_name": EXPORT_CLASS} | asdict(config))
    whole = {_PREFIX + name: value.cpu() for name, value in teacher.net.state_dict().items()}
    half = {name: value.half() for name, value in whole.items()}
    exact = all(torch.equal(half[name].to(value.dtype), value) for name, value in whole.items())
    save_tensors(out / "unet" / _WEIGHTS, half if exact else whole, {"format": "pt"})
    _write(out / "unet" / f"{_MODULE}.py", network)
    # The sampler's preconditioning is the network's own.
    scheduler = {
        "_class_name": "EDMEulerScheduler",
        "sigma_min": teacher.sigma_min,
        "sigma_max": teacher.sigma_max,
        "sigma_data": config.sigma_data,
        "sigma_schedule": "karras",
        "rho": 7.0,
        "prediction_type": "epsilon",
        "final_sigmas_type": "zero",
        "num_train_timesteps": 1000,
    }
    write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    _write(out / "pipeline.py", _asset("pipeline.py.txt"))
    _write(out / "README.md", _readme(teacher, name, licence, card is not None))
    if card is None:
        (out / CARD_NAME).unlink(missing_ok=True)  # of an earlier export
    else:
        _write(out / CARD_NAME, card.read_text(encoding="utf-8"))
    index = {
        "_class_name": ["pipeline", "ClarepPipeline"],
        "unet": [_MODULE, EXPORT_CLASS],
        "scheduler": ["diffusers", "EDMEulerScheduler"],
        "id2label": {str(label): name for label, name in enumerate(teacher.class_names)},
    }
    write_json(out / _INDEX, index)  # last: without it there is no pipeline


def load_export(unet_folder: Path, device: str = "cpu") -> UNetTeacher:
    """Load what `export_diffusers` wrote; computing in fp32, without running the folder's code.

    unet_folder: unet/ of the export, which needs what lies beside it.

    Raises:
        UserError: if a file is missing or damaged, or the parts do not fit each other.
    """
    root, path = unet_folder.resolve().parent, unet_folder / _WEIGHTS
    config = read_json(unet_folder / "config.json")
    names = names_of(read_json(root / _INDEX).get("id2label"), root)
    scheduler = read_json(root / "scheduler" / "scheduler_config.json")
    stored, _ = read_tensors(path, "an exported teacher")
    weights = {name.removeprefix(_PREFIX): value for name, value in stored.items()}
    what = f"{root} holds no export that this clarep can build"
    with refusing(what, "give a folder that clarep export wrote", BROKEN):
        sigma_range = scheduler["sigma_min"], scheduler["sigma_max"]
        teacher = rebuilt(path, weights, config, names, sigma_range)
    return teacher.to(device)


def _check_out(out: Path) -> None:
    """Raise UserError if the folder holds a file and is no earlier export."""
    if not any(path.is_file() and not is_leftover(path) for path in out.rglob("*")):
        return
    try:
        kind = read_json(out / "unet" / "config.json").get("_class_name")
    except UserError:
        kind = None
    if kind != EXPORT_CLASS:
        raise UserError(f"{out} holds other files: give `out` a new folder, or an earlier export")


def _module_source() -> str:
    """Return the code of the network and of the class around it, which import no clarep."""
    network = (files("clarep.teachers") / "unet.py").read_text(encoding="utf-8")
    network = network.replace(*_BOUNDS)
    wrapper = _asset("clarep_unet.py.txt")
    if _IMPORT not in wrapper or "clarep." in network:
        raise RuntimeError("the network's module no longer stands for itself")
    head, tail = wrapper.split(_IMPORT)
    return f"{head}\n# --- clarep/teachers/unet.py, as it is ---\n\n{network}\n\n# ---{tail}"


def _readme(teacher: UNetTeacher, name: str, licence: str | None, has_card: bool) -> str:
    channels, height, width = teacher.image_shape
    terms = (
        f"Weights and code: {licence.upper()}."
        if licence
        else "Code: MIT. The weights belong to whoever trained them: say here under which licence "
        "you give them away, and in the first lines of this file."
    )
    return _asset("README.md.txt").format(
        name=name,
        licence=licence or "other",
        terms=terms,
        size=f"{height}x{width}",
        channels=channels,
        parameters=f"{sum(p.numel() for p in teacher.net.parameters()):,}",
        classes="\n".join(f"{i}. {label}" for i, label in enumerate(teacher.class_names)),
        count=len(teacher.class_names),
        example=teacher.class_names[0],
        sigma_min=teacher.sigma_min,
        sigma_max=teacher.sigma_max,
        fingerprint=teacher.fingerprint,
        card=f"Recipe, training and measured quality: `{CARD_NAME}`.\n" if has_card else "",
    )


def _asset(name: str) -> str:
    return (files("clarep.teachers") / "export_assets" / name).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
