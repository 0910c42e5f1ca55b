"""Image classifiers of transformers, with what their image processor does to colours inside."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from clarep.engine.extras import require_extra
from clarep.engine.tensors import check_weights, read_tensors
from clarep.errors import UserError, said_by
from clarep.students.foreign_model import ForeignModel, ForeignNet
from clarep.students.module_student import LOGITS, last_linear, tapped
from clarep.students.student import logits_of
from clarep.teachers.hub import checkpoint_folder

HF = "hf"
_EXTRA = "diffusers"
_ERRORS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)
_TRIED_SIDES = (64, 96)  # of images that show whether a processor resizes
_CORNERS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
_CHECKED = ((255, 255, 255), (128, 128, 128), (200, 30, 90), (10, 250, 170))
_TOLERANCE = 1e-3  # of the checked colours, in the processor's own unit


class Colours(nn.Module):
    """An affine map of each pixel's colour: scale, normalisation, order of the channels."""

    matrix: Tensor
    offset: Tensor

    def __init__(self, matrix: Float[Tensor, "3 3"], offset: Float[Tensor, "3"]) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.register_buffer("offset", offset)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
        mapped = torch.einsum("dc,bchw->bdhw", self.matrix, x)
        return mapped + self.offset[:, None, None]


class HfNet(ForeignNet):
    """A classifier of transformers; its features are what its last linear layer reads."""

    def __init__(self, model: Any, colours: Colours) -> None:
        super().__init__()
        self.model, self.colours = model, colours
        self._head = last_linear(model, model.config.num_labels)
        self.layer = self._head or LOGITS

    def both(self, x: Float[Tensor, "batch 3 h w"]) -> tuple[Tensor, Tensor]:
        return tapped(self.model, self._head, lambda: self._logits(x))

    def _logits(self, x: Tensor) -> Tensor:
        return logits_of(self.model(pixel_values=self.colours(x), return_dict=True))


def load_hf(place: str) -> ForeignModel:
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
    with _quiet(transformers):
        model = _model(transformers, folder)
        processor = _processor(transformers, folder)
        side = _side(processor, model.config, folder)
        colours = _colours(processor, side or _TRIED_SIDES[0], folder)
    net = HfNet(model, colours).eval()
    names = tuple(str(name) for _, name in sorted(model.config.id2label.items()))
    return ForeignModel(f"{HF}:{place}", net, _identity(model), names, side)


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
    try:
        model, found = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (*_ERRORS, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no image classifier that transformers can load ({said_by(error)}): "
            "give a whole one, such as ViTForImageClassification"
        ) from error
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"{folder} lacks {len(missing)} of the weights of {type(model).__name__} "
            f"({missing[0]} first), which would be random: give a model trained to classify images"
        )
    for file in folder.glob("*.safetensors"):  # transformers would take integers for numbers
        check_weights(read_tensors(file, "a classifier")[0], model, str(file))
    return model.float()


def _processor(transformers: ModuleType, folder: Path) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except _ERRORS as error:
        raise UserError(
            f"{folder} holds no image processor that transformers can load ({said_by(error)}): "
            "save it there too, as preprocessor_config.json"
        ) from error


def _side(processor: Any, config: Any, folder: Path) -> int | None:
    """Return the side that the processor brings square images to, or else the model's."""
    shapes = {tuple(_through(processor, (0, 0, 0), side, folder).shape) for side in _TRIED_SIDES}
    if len(shapes) > 1:  # it does not resize
        side = getattr(config, "image_size", None)
        return side if isinstance(side, int) else None
    channels, height, width = shapes.pop()
    if channels != 3 or height != width:
        raise UserError(
            f"the image processor of {folder} makes images of {width}x{height} with {channels} "
            "channels: give a model that takes square images of three"
        )
    return height


def _colours(processor: Any, side: int, folder: Path) -> Colours:
    """Measure what the processor does to colours.

    Resizing and cropping leave an image of one colour as it is; scale, normalisation and the
    order of channels, which each class of processors words differently, are what is left.
    """
    black, *primary = (_flat(processor, colour, side, folder) for colour in _CORNERS)
    matrix = torch.stack([one - black for one in primary], dim=1)  # (3, 3), a column a channel
    for colour in _CHECKED:
        expected = matrix @ (torch.tensor(colour).double() / 255) + black
        error = (_flat(processor, colour, side, folder) - expected).abs().max()
        if error > _TOLERANCE:
            raise UserError(
                f"{type(processor).__name__} of {folder} does more to colours than scale and "
                "normalise them: give a model with an image processor that does not"
            )
    return Colours(matrix.float(), black.float())


def _flat(
    processor: Any, colour: tuple[int, int, int], side: int, folder: Path
) -> Float[Tensor, "3"]:
    """Return the colour that an image of one colour is made of."""
    pixels = _through(processor, colour, side, folder).double()
    mean = pixels.mean(dim=(1, 2))
    if (pixels - mean[:, None, None]).abs().max() > _TOLERANCE:
        raise UserError(
            f"{type(processor).__name__} of {folder} does not leave an image of one colour as it "
            "is: give a model with an image processor that only resizes, crops and normalises"
        )
    return mean


def _through(processor: Any, colour: tuple[int, int, int], side: int, folder: Path) -> Tensor:
    """Return an image of one colour as the processor gives it to the model, (C, H, W)."""
    image = Image.new("RGB", (side, side), colour)
    try:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
    except _ERRORS as error:
        raise UserError(
            f"the image processor of {folder} cannot be used ({said_by(error)}): mend its "
            "preprocessor_config.json"
        ) from error
    return pixels


def _identity(model: Any) -> str:
    """Return architecture and settings, without what only tells where and when it was saved."""
    settings = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in ("_name_or_path", "transformers_version")
    }
    return f"{type(model).__name__} {json.dumps(settings, sort_keys=True, default=str)}"


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Keep progress bars and tables of keys off the terminal: what matters is told by clarep."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
