"""Labelled images by name or path, and what they look like."""

from clarep.data.foregrounds import Foregrounds as Foregrounds
from clarep.data.foregrounds import MaskedImages as MaskedImages
