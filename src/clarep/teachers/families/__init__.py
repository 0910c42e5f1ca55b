"""Teachers of other libraries, one file a family: a new one is its file and its entry here."""

from typing import NamedTuple


class Family(NamedTuple):
    """Where a family is loaded."""

    module: str
    """Module here whose `load(place, options)` gives the teacher."""
    classes: tuple[str, ...] = ()
    """Classes of diffusers' pipelines or models whose folders it takes."""


FAMILIES = {
    "diffusers": Family(
        "diffusers_unet",
        ("DDPMPipeline", "DDIMPipeline", "UNet2DModel", "ClarepPipeline", "ClarepUNet"),
    ),
    "dit": Family("dit", ("DiTPipeline",)),
    "sd": Family("stable_diffusion", ("StableDiffusionPipeline",)),
    "edm": Family("edm"),
    "sit": Family("sit"),
    "uvit": Family("uvit"),
}
"""By the name in front of the colon."""
