"""Views of training images as batched tensor operations: crop, flip, cutout."""

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from clarep.distill.trainer.training_config import TrainingConfig
from clarep.errors import UserError

_GREY = 128


def check_views(config: TrainingConfig, image_shape: tuple[int, int, int]) -> None:
    """Raise UserError if images are too small for the crop's padding or the cutout."""
    side = min(image_shape[1:])
    for name in ("crop_padding", "cutout"):
        if (value := getattr(config, name)) >= side:
            raise UserError(f"`{name}={value}` is not below the image's side {side}: lower it")


def draw_views(
    images: UInt8[Tensor, "batch c h w"], config: TrainingConfig, generator: torch.Generator
) -> UInt8[Tensor, "batch c h w"]:
    """Return a random view of each image; the generator is the CPU's, wherever the images are.

    Crop and flip are one choice of rows and columns, so that no padded copy is made.
    """
    rows, columns = draw_lines(images, config, generator)
    views = take_lines(images, rows, columns)
    return cut_out(views, config.cutout, generator) if config.cutout else views


Rows = Int64[Tensor, "batch h"] | None
"""Which rows of its image a view shows; None where it shows all in order."""
Columns = Int64[Tensor, "batch w"] | None
"""The same of columns."""


def draw_lines(
    images: Shaped[Tensor, "batch c h w"], config: TrainingConfig, generator: torch.Generator
) -> tuple[Rows, Columns]:
    """Return the rows and columns that a random crop and flip of each image show."""
    batch, _, height, width = images.shape
    rows = _crop_index(batch, height, config.crop_padding, generator)
    columns = _crop_index(batch, width, config.crop_padding, generator)
    if config.flip:
        mirrored = torch.rand(batch, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    moves = bool(config.crop_padding)
    return rows if moves else None, columns if moves or config.flip else None


def take_lines(
    images: Shaped[Tensor, "batch c h w"], rows: Rows, columns: Columns
) -> Shaped[Tensor, "batch c h w"]:
    """Return the views that `draw_lines` drew: of images, or of what belongs to their pixels."""
    if rows is not None:
        images = images.gather(2, rows.to(images.device)[:, None, :, None].expand_as(images))
    if columns is not None:
        images = images.gather(3, columns.to(images.device)[:, None, None, :].expand_as(images))
    return images


def _crop_index(
    batch: int, size: int, padding: int, generator: torch.Generator
) -> Int64[Tensor, "batch size"]:
    """Return which line of the image each line of the crop shows; outside, its reflection."""
    start = torch.randint(-padding, padding + 1, (batch, 1), generator=generator)
    index = (start + torch.arange(size)).abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def cut_out(
    images: UInt8[Tensor, "batch c h w"], side: int, generator: torch.Generator
) -> UInt8[Tensor, "batch c h w"]:
    """Put a grey square of that side on each image, its centre anywhere in the image.

    DeVries & Taylor 2017, arXiv 1708.04552.
    """
    batch, _, height, width = images.shape

    def inside(size: int) -> Tensor:
        first = torch.randint(0, size, (batch, 1), generator=generator) - side // 2
        line = torch.arange(size)
        return (line >= first) & (line < first + side)  # (B, size)

    square = inside(height)[:, :, None] & inside(width)[:, None, :]
    return images.masked_fill(square[:, None].to(images.device), _GREY)


def to_student_range(images: UInt8[Tensor, "batch c h w"]) -> Tensor:
    """Map uint8 in [0, 255] to float32 in [0, 1], the range that students take."""
    return images.float().div_(255)
