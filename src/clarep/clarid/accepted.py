"""What CLARID takes of its caller: images, latents and labels, as a teacher takes them."""

from jaxtyping import Float, Int64
from torch import Tensor

from clarep.data.labelled import to_unit_range
from clarep.engine.arrays import Images, Labels, as_batch, as_labels, check_finite, numbered
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher


def accepted(
    teacher: Teacher, images: Images, labels: Labels
) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
    """Return images and labels as the teacher takes them; raise UserError for others."""
    taken = teacher.accept_images(to_unit_range(images))
    return taken, _numbers(teacher, labels, len(taken))


def placed(
    teacher: Teacher, x: Images, labels: Labels
) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
    """Return latents and their labels on its device; raise UserError for what is none."""
    x = as_batch(x, "latents", "such as Clarid.invert gives")
    check_finite(x, "the latents", "look for NaN in what they were made of")
    if tuple(x.shape[1:]) != teacher.latent_shape:
        raise UserError(
            f"latents are {tuple(x.shape[1:])} and the teacher takes {teacher.latent_shape}: "
            "give such as Clarid.invert gives"
        )
    numbers = _numbers(teacher, labels, len(x))
    return x.to(teacher.device, teacher.dtype), numbers.to(teacher.device)


def _numbers(teacher: Teacher, labels: Labels, count: int) -> Int64[Tensor, " batch"]:
    names = teacher.class_names
    return as_labels(numbered(labels, names), count, len(names), "the teacher's")
