"""Labelled images by name or path, and what they look like."""

from clarep.data.backdrops import SCENES, Backdrops, Composition, load_backdrops
from clarep.data.cifar import load_cifar10
from clarep.data.class_balance import class_balanced_choice
from clarep.data.decode_image import decode_image, square_resize, to_rgb
from clarep.data.files import load_class_folders, read_classes_file
from clarep.data.foregrounds import VARIANTS, Foregrounds, MaskedImages
from clarep.data.garments import garment_arrays, garment_mask, load_garments
from clarep.data.labelled import (
    LabelledImages,
    UnreadableImage,
    readable_indices,
    to_uint8,
    to_unit_range,
)
from clarep.data.load import DataConfig, DataOptions, load_data
from clarep.data.npz import load_npz
from clarep.data.sheet import choose_by_class, class_sheet, contact_sheet

__all__ = [
    "SCENES",
    "VARIANTS",
    "Backdrops",
    "Composition",
    "DataConfig",
    "DataOptions",
    "Foregrounds",
    "LabelledImages",
    "MaskedImages",
    "UnreadableImage",
    "choose_by_class",
    "class_balanced_choice",
    "class_sheet",
    "contact_sheet",
    "decode_image",
    "garment_arrays",
    "garment_mask",
    "load_backdrops",
    "load_cifar10",
    "load_class_folders",
    "load_data",
    "load_garments",
    "load_npz",
    "read_classes_file",
    "readable_indices",
    "square_resize",
    "to_rgb",
    "to_uint8",
    "to_unit_range",
]
