"""Images, labels and answers as users of Python give them: taken, or refused in one sentence."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.engine.printable import counted
from clarep.errors import UserError, check_type, unknown_name

Images = Tensor | NDArray[Any] | Sequence[Any]
"""A batch (B, C, H, W) of floats, of any memory layout; see `as_images`."""
Labels = Tensor | NDArray[Any] | Sequence[Any]
"""A whole number of any type for each image; see `as_labels`."""
_ROUNDING = 1e-3  # by which an interpolation may leave the range


def as_images(given: object, low: int, mend: str) -> Float[Tensor, "batch c h w"]:
    """Return images in [low, 1] as `as_batch` does; half precision becomes float32.

    mend: how images of another range become such, for the sentence that refuses them. Raises
    UserError for what is no such batch, or leaves the range by more than 0.001.
    """
    images = as_batch(given, "images", f"in [{low}, 1]; {mend}")
    least, most = float(images.amin()), float(images.amax())
    if not (least >= low - _ROUNDING and most <= 1 + _ROUNDING):  # also refuses NaN
        raise UserError(
            f"images lie in [{least:g}, {most:g}]: give finite values in [{low}, 1]; {mend}"
        )
    return images if images.dtype == torch.float64 else images.float()


def as_batch(given: object, what: str, such: str) -> Float[Tensor, "batch c h w"]:
    """Return a batch of floats, a tensor or an array, as a contiguous tensor without a graph.

    what, such: it holds, and of which kind, for the sentence that refuses another. Raises
    UserError for what is no such batch, or holds nothing.
    """
    if isinstance(given, np.ndarray):
        given = _tensor(given, what)
    if not isinstance(given, Tensor) or given.layout != torch.strided or given.is_meta:
        held = f"{given.layout} on {given.device}" if isinstance(given, Tensor) else ""
        raise UserError(
            f"{what} are a {held or type(given).__name__}: give a batch of floats, a dense tensor "
            f"or an array (B, C, H, W), {such}"
        )
    if given.ndim != 4:
        raise UserError(
            f"{what} have {given.ndim} dimensions: give a batch, (B, C, H, W); one alone is "
            f"{what}[None]"
        )
    if not given.numel():
        raise UserError(f"the batch holds no {what}: give at least one")
    if not given.is_floating_point():
        raise UserError(f"{what} are {given.dtype}: give float {such}")
    return given.detach().contiguous()


def as_labels(given: object, images: int, classes: int, whose: str = "") -> Int64[Tensor, " batch"]:
    """Return labels of so many images, a tensor, array or list, as int64 in [0, classes).

    whose: of whom the classes are, such as "the teacher's". Raises UserError for anything but a
    whole number for each image, or one that is no class.
    """
    labels = given if isinstance(given, Tensor) else _tensor(given, "labels")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels are {labels.dtype}: give the number of a class for each image")
    if labels.shape != (images,):
        raise UserError(
            f"{counted(images, 'image')} came with labels of shape {tuple(labels.shape)}: give the "
            f"number of a class for each image, ({images},)"
        )
    labels = labels.detach().to(torch.int64)
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise UserError(
            f"label {int(outside[0])} is outside {whose or f'the {classes}'} classes 0 to "
            f"{classes - 1}: give labels of these, or a model of more classes"
        )
    return labels


def as_index(given: object, images: int) -> Int64[Tensor, " batch"]:
    """Return what each of so many images is recorded as; raise UserError for what mixes them up."""
    index = given if isinstance(given, Tensor) else _tensor(given, "indices")
    whole = not index.is_floating_point() and not index.is_complex() and index.dtype != torch.bool
    place = index.to("cpu", torch.int64) if whole else index
    fits = whole and place.shape == (images,) and int(place.min()) >= 0
    if not fits or place.unique().numel() < images:
        shown = f"{index.flatten()[:5].tolist()}"[:-1] + (", ...]" if index.numel() > 5 else "]")
        raise UserError(
            f"indices {shown} do not tell {counted(images, 'image')} apart: give each a "
            "whole number of its own, from 0"
        )
    return place


def as_names(given: object, *, each_once: bool = True) -> tuple[str, ...]:
    """Return names of classes in their order; raise UserError for others than texts.

    each_once: refuse a name given twice too. Of ImageNet's, two are cranes and two maillots.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):  # a text's letters are none
        kind = type(given).__name__
        raise UserError(f"`class_names={given!r}` is a {kind}: give a list of names")
    names = tuple(given)
    for i, name in enumerate(names):
        check_type(f"class_names[{i}]", name, str, "a name")
        if each_once and name in names[:i]:
            raise UserError(f"`class_names` gives '{name}' twice: name each class once")
    if not names:
        raise UserError("`class_names` is empty: give the classes' names in order of labels")
    return names


def numbered(labels: Labels, class_names: Sequence[str]) -> Labels:
    """Return names of classes as their numbers, one name as a list of one, all else as it is.

    Raises UserError for a name that is none of them, or that of two.
    """
    if isinstance(labels, str):
        labels = [labels]
    if not isinstance(labels, Sequence | np.ndarray) or not any(isinstance(i, str) for i in labels):
        return labels
    number = {name: i for i, name in enumerate(class_names)}
    if unknown := [name for name in labels if name not in number]:
        raise unknown_name("class", str(unknown[0]), class_names)
    for name in set(labels):
        if class_names.count(name) > 1:
            raise UserError(f"'{name}' is the name of two classes: give their numbers")
    return [number[name] for name in labels]


def logits_in(answer: object) -> Tensor:
    """Return the logits in a model's answer.

    They are the answer itself, what it calls `logits`, or the first of a tuple. Raises UserError
    where they cannot be told.
    """
    found: object = answer if isinstance(answer, Tensor) else getattr(answer, "logits", None)
    if isinstance(answer, Mapping):
        found = answer.get("logits")
    elif isinstance(answer, tuple | list) and answer and not hasattr(answer, "logits"):
        found = answer[0]
    if not isinstance(found, Tensor):
        held = f" of {', '.join(map(str, answer))}" if isinstance(answer, Mapping) else ""
        raise UserError(
            f"the model answers with a {type(answer).__name__}{held}, in which its logits cannot "
            "be told: give a model that returns them alone, (B, classes), first of a tuple, or as "
            "'logits'"
        )
    return found


def as_logits(answer: object, images: int) -> Float[Tensor, "batch classes"]:
    """Return the logits in a model's answer (see `logits_in`) to so many images.

    Raises UserError for an answer without logits (B, classes), or logits that are not finite.
    """
    logits = logits_in(answer)
    if logits.ndim != 2 or len(logits) != images or logits.shape[1] < 2:
        raise UserError(
            f"the model answers {counted(images, 'image')} with logits of shape "
            f"{tuple(logits.shape)}: it must give ({images}, classes), of two classes or more"
        )
    if not logits.is_floating_point():
        raise UserError(f"the model's logits are {logits.dtype}: it must give floats")
    check_finite(logits, "the model's logits", "it can be neither attacked nor trusted")
    return logits


def check_finite(values: Tensor, what: str, why: str) -> None:
    """Raise UserError "WHAT are not finite: WHY" if a value is infinite or NaN."""
    if not torch.isfinite(values).all():
        raise UserError(f"{what} are not finite: {why}")


def _tensor(given: object, what: str) -> Tensor:
    try:
        array = np.asarray(given)
        # A copy: torch takes no negative strides or swapped bytes, and warns of what is read-only.
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError):  # texts, other objects, rows of several lengths
        raise UserError(f"{what} hold other things than numbers: give a tensor of these") from None
