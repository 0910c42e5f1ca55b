"""What the page asks: everything is computed once and kept by what it follows from.

An image has one basis for each noise level, tap and kind of directions, as wide as the k slider
goes; a smaller k projects by its first columns. So moving k costs one decoding.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig, resolve_tap, resolved, unfound
from clarep.clarid.directions import Kind, project_out
from clarep.data.decode_image import decode_image
from clarep.data.labelled import LabelledImages, to_uint8
from clarep.errors import UserError
from clarep.report.quality import student_judge
from clarep.select.clarep_measures import judge_knows
from clarep.select.class_evidence import class_evidence
from clarep.select.class_match import of_the_datas_classes
from clarep.students.student_files import load_judge
from clarep.teachers.teacher import Teacher

KINDS: tuple[Kind, ...] = ("top", "mask", "contrast")
"""Directions of which the first k are those of a smaller k."""
MOST = 256
"""Directions that a basis has, unless the setting asks for more."""
REACH = 3.0
"""How far a walk goes, in noise levels."""
_KEPT = 60  # results; a basis of 32-pixel images is 3 MB, of 64x64 latents 17
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Chosen:
    """An image that is looked at, and the class that it is taken for."""

    pixels: UInt8[Tensor, "c h w"]
    label: int
    name: str
    """Where it comes from."""
    index: int | None = None
    """Of the data set; None for an upload."""

    @cached_property
    def key(self) -> str:
        """What tells it, with its class, from others."""
        return f"{hashlib.sha1(self.pixels.numpy().tobytes()).hexdigest()}-{self.label}"


@dataclass(frozen=True)
class Setting:
    """What the sliders say."""

    t: float
    k: int
    """0 takes nothing out."""
    guidance: float
    tap: str
    kind: Kind


@dataclass(frozen=True, eq=False)
class Evidence:
    """What of its class a latent holds before and after, of one image."""

    nats: tuple[float, float]
    null_right: tuple[bool, bool] | None
    """Whether the judge gives the class to what is decoded under none."""
    labels: int


class Explorer:
    """Teacher, data and all that was computed with them.

    Raises:
        UserError: for what `Clarid` refuses of the setting, or data of other classes or another
            size than the teacher's.
    """

    def __init__(self, teacher: Teacher, data: LabelledImages, config: ClaridConfig) -> None:
        self.teacher, self.note = of_the_datas_classes(teacher, data)
        self.data = data
        self.teacher.accept_images(torch.zeros(1, *data.images([0]).shape[1:]))
        if config.sigma is not None or config.kind not in KINDS:
            raise UserError(
                f"the page has sliders for t and kinds {', '.join(KINDS)}: give these instead of "
                f"`sigma={config.sigma}`, `kind={config.kind}`"
            )
        settled, _, _, num_dirs = resolved(unfound(config), self.teacher, {})
        if num_dirs is None:
            raise UserError(f"the k slider counts directions: give a number, not `k={config.k}`")
        self.most = min(max(MOST, num_dirs), self.teacher.latent_dim)
        self.config = replace(settled, k=self.most)
        self.start = Setting(
            t=0.85 if settled.t is None else float(settled.t),
            k=num_dirs,
            guidance=settled.guidance if self.teacher.has_null else 1.0,
            tap=resolve_tap(self.teacher, settled.tap),
            kind=settled.kind,
        )
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._judge = student_judge(load_judge()) if judge_knows(self.teacher, data) else None

    def chosen(self, index: int) -> Chosen:
        """Return an image of the data, as one of its own class."""
        pixels = self.data.images([index])[0]
        return Chosen(pixels, int(self.data.labels[index]), self.data.sources[index], index)

    def uploaded(self, path: Path, label: int) -> Chosen:
        """Return a photograph, cropped and resized as all images are.

        Raises UserError for what is no image, or a huge one.
        """
        channels, side, width = self.teacher.image_shape
        if side != width or channels != 3:
            raise UserError("own photographs need a teacher of square RGB images")
        pixels = decode_image(path, path.name, side)
        return Chosen(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), label, path.name)

    def of_class(self, label: int, count: int) -> list[int]:
        """Return the first images of a class."""
        return [int(i) for i in np.flatnonzero(self.data.labels == label)[:count]]

    def stops(self) -> list[int]:
        """Return the values of the k slider: 0, and from 1 evenly in log k."""
        octaves = 8 * int(np.ceil(np.log2(self.most)))
        steps = {min(self.most, round(2 ** (i / 8))) for i in range(octaves + 1)}
        return sorted({0, *steps, self.start.k})

    def clarid(self, setting: Setting) -> Clarid:
        """Return CLARID at a setting, whose k is that of the whole basis."""
        config = replace(
            self.config, t=setting.t, tap=setting.tap, kind=setting.kind, guidance=setting.guidance
        )
        key = ("clarid", setting.t, setting.tap, setting.kind, setting.guidance)
        return self._once(key, lambda: Clarid(self.teacher, config))

    def inverted(self, chosen: Chosen, setting: Setting) -> tuple[Float[Tensor, "1 c h w"], float]:
        """Return x_te and the round trip's PSNR in dB."""

        def invert() -> tuple[Tensor, float]:
            x_te, trip = self.clarid(setting).invert(chosen.pixels[None], [chosen.label])
            return x_te, float(trip)

        return self._once(("inverted", chosen.key, setting.t), invert)

    def basis(
        self, chosen: Chosen, setting: Setting
    ) -> tuple[Float[Tensor, "1 n most"], Float[Tensor, " most"]]:
        """Return the directions of an image, the strongest first, and their singular values.

        The largest entry of each direction is positive, so that a walk has a sign.
        """

        def find() -> tuple[Tensor, Tensor]:
            x_te, _ = self.inverted(chosen, setting)
            seed = chosen.index or 0  # as `identify` takes it
            found = self.clarid(setting).directions(x_te, [chosen.label], seed)
            assert found is not None
            largest = found.V.gather(1, found.V.abs().argmax(dim=1, keepdim=True))
            return found.V * largest.sign(), found.singular_values[0]

        return self._once(("basis", chosen.key, setting.t, setting.tap, setting.kind), find)

    def latent(self, chosen: Chosen, setting: Setting) -> Float[Tensor, "1 c h w"]:
        """Return x_te without its first k directions."""
        x_te, _ = self.inverted(chosen, setting)
        if setting.k == 0:
            return x_te
        return project_out(x_te, self.basis(chosen, setting)[0][:, :, : setting.k])

    def decoded(
        self, x: Float[Tensor, "b c h w"], label: int, setting: Setting, *key: Hashable
    ) -> UInt8[Tensor, "b ci hi wi"]:
        """Return latents decoded under a class with the setting's guidance, kept by `key`."""
        key = ("decoded", label, setting.t, setting.guidance, *key)
        clarid = self.clarid(setting)
        return self._once(key, lambda: to_uint8(clarid.sample(x, [label] * len(x))))

    def reconstruction(self, chosen: Chosen, setting: Setting) -> UInt8[Tensor, "ci hi wi"]:
        """Return x_te decoded as it was inverted, without guidance."""
        plain = replace(setting, guidance=1.0)
        x_te, _ = self.inverted(chosen, setting)
        return self.decoded(x_te, chosen.label, plain, chosen.key)[0]

    def guided(self, chosen: Chosen, setting: Setting) -> UInt8[Tensor, "ci hi wi"]:
        """Return x_te decoded with guidance: the control of CLARID."""
        x_te, _ = self.inverted(chosen, setting)
        return self.decoded(x_te, chosen.label, setting, chosen.key)[0]

    def canonical(self, chosen: Chosen, setting: Setting) -> UInt8[Tensor, "ci hi wi"]:
        """Return the canonical sample."""
        if setting.k == 0:
            return self.guided(chosen, setting)
        latent = self.latent(chosen, setting)
        key = (chosen.key, setting.tap, setting.kind, setting.k)
        return self.decoded(latent, chosen.label, setting, *key)[0]

    def removed(self, chosen: Chosen, setting: Setting) -> UInt8[Tensor, "c h w"]:
        """Return what was taken out of the latent, drawn as `CLAReps.columns` draws it."""
        x_te, latent = self.inverted(chosen, setting)[0], self.latent(chosen, setting)
        difference = x_te - latent
        return to_uint8(difference / difference.abs().max().clamp_min(1e-12))[0]

    def evidence(self, chosen: Chosen, setting: Setting) -> Evidence | None:
        """Return what of the class is left; None for a teacher of one class."""
        if self.teacher.num_classes < 2:
            return None

        def ask() -> Evidence:
            both = torch.cat([self.inverted(chosen, setting)[0], self.latent(chosen, setting)])
            index = torch.tensor([chosen.index or 0] * 2)
            labels = torch.tensor([chosen.label] * 2)
            found = class_evidence(self.clarid(setting), both, labels, self._judge, indices=index)
            null = found.null_right
            return Evidence(
                nats=(float(found.nats[0]), float(found.nats[1])),
                null_right=None if null is None else (bool(null[0]), bool(null[1])),
                labels=found.labels,
            )

        key = (setting.t, setting.tap, setting.kind, setting.k)
        return self._once(("evidence", chosen.key, *key), ask)

    def walk(
        self, chosen: Chosen, setting: Setting, along: Chosen, number: int, steps: Sequence[float]
    ) -> UInt8[Tensor, "steps ci hi wi"]:
        """Return an image moved along direction `number` (from 0) of image `along`.

        steps: in noise levels: where the latent is 0.
        """
        x_te, _ = self.inverted(chosen, setting)
        direction = self.basis(along, setting)[0][0, :, number].view_as(x_te[0])
        sigma = self.clarid(setting).sigma_te
        moved = x_te + torch.tensor(steps).view(-1, 1, 1, 1) * sigma * direction
        key = (chosen.key, along.key, setting.tap, setting.kind, number, tuple(steps))
        return self.decoded(moved.to(x_te.dtype), chosen.label, setting, *key)

    def swapped(self, chosen: Chosen, donor: Chosen, setting: Setting) -> UInt8[Tensor, "ci hi wi"]:
        """Return an image with the part along its k directions taken from a donor's latent."""
        x, y = (self.inverted(one, setting)[0] for one in (chosen, donor))
        latent = y + self._apart(chosen, setting, x - y)
        key = (chosen.key, donor.key, setting.tap, setting.kind, setting.k)
        return self.decoded(latent, chosen.label, setting, "swapped", *key)[0]

    def _apart(self, chosen: Chosen, setting: Setting, x: Tensor) -> Tensor:
        if setting.k == 0:
            return x
        return project_out(x, self.basis(chosen, setting)[0][:, :, : setting.k])

    def _once(self, key: Hashable, compute: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = compute()
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        found: T = self._kept[key]
        return found
