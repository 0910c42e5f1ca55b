"""Contact sheets: rows of images with a label at the left."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from clarep.data.labelled import LabelledImages
from clarep.engine.printable import counted, one_line
from clarep.errors import UserError

_CELL = 96  # smaller images are enlarged to at most this side, in pixels
_GAP = 4
_FONT_SIZE = 14
_LINE = 22
_MAX_LABEL = 200  # longer labels are cut, in pixels
_MAX_CLASSES = 40


def contact_sheet(
    images: UInt8[Tensor, "N 3 H W"],
    columns: int,
    row_labels: Sequence[str] = (),
    footer: str = "",
) -> Image.Image:
    """Lay out images row by row on white, in their order.

    Small images are enlarged a whole number of times, each pixel a square.

    Args:
        images: uint8 in [0, 255].
        columns: images a row.
        row_labels: one for each row, at its left; none for no labels.
        footer: a line below.

    Raises:
        UserError: for fewer than one column, or another number of labels than rows.
    """
    if columns < 1:
        raise UserError(f"a sheet with {columns} columns shows nothing: give at least 1")
    rows = -(-len(images) // columns)
    if len(row_labels) not in (0, rows):
        raise UserError(f"{len(row_labels)} labels were given for {rows} rows")
    font = ImageFont.load_default(_FONT_SIZE)
    row_labels = [_cut(one_line(label), font, _MAX_LABEL) for label in row_labels]
    footer = one_line(footer)
    height, width = images.shape[2:]
    scale = max(1, _CELL // max(height, width))
    cell_width, cell_height = width * scale + _GAP, height * scale + _GAP
    left = _GAP + max((int(font.getlength(label)) + 2 * _GAP for label in row_labels), default=0)
    size = (
        max(left + columns * cell_width, int(font.getlength(footer)) + 2 * _GAP),
        _GAP + rows * cell_height + (_LINE if footer else 0),
    )
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for i, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):  # (H, W, 3)
        large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
        place = (left + i % columns * cell_width, _GAP + i // columns * cell_height)
        sheet.paste(Image.fromarray(large), place)
    for row, label in enumerate(row_labels):
        middle = _GAP + row * cell_height + height * scale // 2
        pen.text((_GAP, middle), label, fill="black", font=font, anchor="lm")
    pen.text((_GAP, size[1] - _LINE // 2), footer, fill="black", font=font, anchor="lm")
    return sheet


def choose_by_class(
    labels: NDArray[np.int64], num_classes: int, count: int, seed: int | None
) -> list[NDArray[np.int64]]:
    """Choose up to `count` images of each class: the first, or at random with a seed.

    Returns sorted indices into `labels` for each class; none for a class without images.
    """
    rng = None if seed is None else np.random.default_rng(seed)
    chosen = []
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        if rng is not None:
            members = np.sort(rng.permutation(members)[:count])
        chosen.append(members[:count])
    return chosen


def class_sheet(data: LabelledImages, chosen: Sequence[NDArray[np.int64]]) -> Image.Image:
    """Lay out one row a class, its name at the left; a short row ends in blanks.

    chosen: indices into `data` for each class, as from `choose_by_class`. At most 40 rows are
    drawn, and the sheet says how many classes it leaves out.
    Raises UserError if no index was chosen.
    """
    shown = chosen[:_MAX_CLASSES]
    columns = max(map(len, shown), default=0)
    pixels = data.images(np.concatenate([*shown, np.zeros(0, np.int64)]))  # (n, 3, H, W)
    cells = pixels.new_full((len(shown) * columns, *pixels.shape[1:]), 255)
    cells[[row * columns + i for row, found in enumerate(shown) for i in range(len(found))]] = (
        pixels
    )
    footer = f"{data.name}: {counted(len(data), 'image')}, {counted(len(chosen), 'class')}"
    if hidden := len(chosen) - len(shown):
        footer += f"; {hidden} classes are not shown"
    return contact_sheet(cells, columns, data.class_names[: len(shown)], footer=footer)


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
