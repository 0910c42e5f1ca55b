"""Image classifiers of transformers, with what their image processor does to colours inside."""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from clarep.engine.arrays import logits_in
from clarep.engine.extras import require_extra
from clarep.engine.hub import checkpoint_folder
from clarep.engine.tensors import check_weights, read_tensors
from clarep.errors import UserError, refusing
from clarep.students.matched_student import WholeModel
from clarep.students.module_student import LOGITS, last_linear, tapped
from clarep.students.student import FAULTS
from clarep.teachers.pipeline_folder import silent

_EXTRA = "diffusers"
_FAULTS = (*FAULTS, ImportError, OSError, SafetensorError)
Colour = tuple[int, int, int]
_TRIED_SIDES = (64, 96)  # of images that show whether a processor resizes
_CORNERS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
_CHECKED = ((255, 255, 255), (128, 128, 128), (200, 30, 90), (10, 250, 170))
_TOLERANCE = 1e-3  # of the checked colours, in the processor's own unit


def load_hf(place: str) -> WholeModel:
    """Load a folder that save_pretrained wrote, or one of the Hugging Face hub.

    Code that comes with a checkpoint is never run, and pickles are never read. Raises UserError
    without transformers, if there is no such folder, it holds no image classifier in safetensors
    with its image processor, or lacks some of its weights.
    """
    transformers = require_extra("transformers", _EXTRA)
    if Path(os.path.expanduser(place)).is_file():
        raise UserError(f"{place} is a file: give the folder that holds its config.json")
    folder = checkpoint_folder(place)
    _check_files(folder)
    with silent("transformers"):
        model, processor = _model(transformers, folder), Processor(transformers, folder)
        side = processor.side(model.config)
        colours = processor.colours(side or _TRIED_SIDES[0])
    head = last_linear(model, model.config.num_labels)

    def run(x: Tensor) -> Tensor:
        return logits_in(model(pixel_values=colours(x), return_dict=True)).float()

    return WholeModel(
        f"hf:{place}",
        lambda x: tapped(model, head, lambda: run(x)),
        head or LOGITS,
        {"model": model.eval(), "colours": colours},
        _identity(model),
        tuple(str(name) for _, name in sorted(model.config.id2label.items())),
        side,
    )


def _check_files(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} holds no config.json: give a folder that save_pretrained wrote, with model "
            "and image processor"
        )
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder} holds no weights as safetensors, and pickled ones are never read: save it "
            "again with save_pretrained(..., safe_serialization=True)"
        )


def _model(transformers: ModuleType, folder: Path) -> Any:
    """Load the model, whole and in float32."""
    what = f"{folder} holds no image classifier that transformers can load"
    with refusing(what, "give a whole one, such as ViTForImageClassification", _FAULTS):
        model, found = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{folder} lacks {len(missing)} of the weights of {type(model).__name__} "
            f"({missing[0]} first), which would be random: give a model trained to classify images"
        )
    for file in folder.glob("*.safetensors"):  # transformers would take integers for numbers
        check_weights(read_tensors(file, "a classifier")[0], model, str(file))
    return model.float()


class Processor:
    """An image processor of transformers, and what it does to images of one colour."""

    def __init__(self, transformers: ModuleType, folder: Path) -> None:
        what = f"{folder} holds no image processor that transformers can load"
        with refusing(what, "save it there too, as preprocessor_config.json", _FAULTS):
            self._prepare = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        self._name = f"the image processor of {folder}"

    def _through(self, colour: Colour, side: int) -> Float[Tensor, "c h w"]:
        """Return an image of one colour as the model is given it."""
        mend = "mend its preprocessor_config.json"
        with refusing(f"{self._name} cannot be used", mend, _FAULTS):
            images = Image.new("RGB", (side, side), colour)
            pixels: Tensor = self._prepare(images=images, return_tensors="pt")["pixel_values"][0]
        return pixels

    def side(self, config: Any) -> int | None:
        """Return the side that it brings square images to, or else the model's."""
        shapes = {tuple(self._through((0, 0, 0), side).shape) for side in _TRIED_SIDES}
        if len(shapes) > 1:  # it does not resize
            side = getattr(config, "image_size", None)
            return side if isinstance(side, int) else None
        channels, height, width = shapes.pop()
        if channels != 3 or height != width:
            raise UserError(
                f"{self._name} makes images of {width}x{height} with {channels} channels: give a "
                "model that takes square images of three"
            )
        return height

    def colours(self, side: int) -> nn.Conv2d:
        """Measure what it does to colours: an affine map of each pixel's three channels.

        Resizing and cropping leave an image of one colour as it is; scale, normalisation and the
        order of channels, which each class of processors words differently, are what is left.
        """
        pixels = [self._through(colour, side).double() for colour in (*_CORNERS, *_CHECKED)]
        seen = [one.mean(dim=(1, 2)) for one in pixels]  # (3,) each
        black = seen[0]
        matrix = torch.stack(
            [one - black for one in seen[1:4]], dim=1
        )  # (3, 3), a column a channel
        expected = [matrix @ (torch.tensor(one).double() / 255) + black for one in _CHECKED]
        errors = [one - mean[:, None, None] for one, mean in zip(pixels, seen, strict=True)]
        errors += [one - mean for one, mean in zip(expected, seen[4:], strict=True)]
        if max(float(error.abs().max()) for error in errors) > _TOLERANCE:
            raise UserError(
                f"{self._name} does more to colours than scale and normalise them: give a model "
                "with an image processor that only resizes, crops and normalises"
            )
        mapped: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, 3, 3, 1)
        mapped.load_state_dict({"weight": matrix[:, :, None, None].float(), "bias": black.float()})
        return mapped


def _identity(model: Any) -> str:
    """Return architecture and settings, without what only tells where and when it was saved."""
    settings = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        settings.pop(name, None)
    return f"{type(model).__name__} {json.dumps(settings, sort_keys=True, default=str)}"
