"""`edm:FILE`: class-conditional networks of NVlabs' EDM, from safetensors.

Karras et al. 2022 (arXiv 2206.00364). clarep opens no pickle: `clarep convert edm` makes the file.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from clarep.engine.tensors import read_tensors
from clarep.errors import UserError
from clarep.teachers.class_choice import choose_classes, numbered
from clarep.teachers.families.edm_keys import EDMSpec, build_network, read_metadata
from clarep.teachers.families.edm_net import EDMUNet
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions, check_options
from clarep.teachers.pipeline_folder import refuse_diffusers

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt")


class EDMTeacher(ForeignTeacher):
    """A class-conditional network of EDM, in pixels; the condition is one-hot.

    The null label's condition is all zeros. A network that was trained without dropping labels
    (`label_dropout` 0), as the published ones were, has never seen it: it has no null class.
    """

    def __init__(
        self,
        network: EDMUNet,
        spec: EDMSpec,
        options: TeacherOptions,
        class_names: tuple[str, ...],
        class_ids: Sequence[int],
    ) -> None:
        """Take a network, and the names and its own numbers of the classes to be had of it."""
        shape = spec.shape
        coarsest = shape.img_resolution >> (len(shape.channel_mult) - 1)
        super().__init__(
            network,
            spec.precond,
            options,
            latent_shape=(shape.img_channels, shape.img_resolution, shape.img_resolution),
            class_names=class_names,
            # The end of the bottleneck: a block with attention, in0, and this one.
            default_tap=f"dec.{coarsest}x{coarsest}_in1",
            tap_modules=network.blocks(),
            has_null=spec.label_dropout > 0,
            own_labels=(*class_ids, shape.label_dim),
        )
        self._label_dim = shape.label_dim

    def condition(self, labels: Int64[Tensor, " batch"]) -> Float[Tensor, "batch classes"]:
        one_hot = F.one_hot(super().condition(labels), self._label_dim + 1)
        return one_hot[:, : self._label_dim].float()

    def check_null(self) -> None:
        """Raise UserError if the network was trained without dropping labels."""
        if not self.has_null:
            raise UserError(
                "this edm: network was trained without dropping labels (label_dropout 0 in its "
                "file), so that it does not know the null class that guidance and the null branch "
                "need: use `guidance=1` and the conditional branch"
            )

    def run(
        self, x: Float[Tensor, "batch c h w"], time: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        output: Tensor = self.network(x, time, cond.to(x.dtype))
        return output


def load_edm(place: str, options: TeacherOptions) -> EDMTeacher:
    """Load a file that `clarep convert edm` wrote; computing in fp32.

    Raises:
        UserError: if there is no such file, it is a pickle, truncated, or of a network that is
            not supported, or class names do not fit its classes.
    """
    check_options(options, "edm", ("device", "bf16", "class_names"))
    path = Path(os.path.expanduser(place))
    _check_file(path)
    weights, metadata = read_tensors(path, "an EDM network")
    spec = read_metadata(metadata, path)
    names, ids = _classes(options, spec.shape.label_dim)
    return EDMTeacher(build_network(spec, weights, path), spec, options, names, ids)


def _check_file(path: Path) -> None:
    if path.is_dir():
        refuse_diffusers(path, "EDM network")
        raise UserError(f"{path} is a folder: give the .safetensors file of an EDM network")
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the .safetensors file of an EDM network")
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise UserError(
            f"{path} is a pickle, which can run any code when it is opened and which clarep does "
            f"not load: make a .safetensors of it with clarep convert edm {path}"
        )


def _classes(options: TeacherOptions, count: int) -> tuple[tuple[str, ...], list[int]]:
    """Return names and numbers of the classes: the network knows the numbers alone."""
    if options.class_names is None:
        return tuple(map(str, range(count))), list(range(count))
    return choose_classes(options.class_names, numbered(count))
