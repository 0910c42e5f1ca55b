"""A student's gradient in its input, as something that is itself trained."""

import torch
from jaxtyping import Float
from torch import Tensor


def input_gradient(
    outputs: Float[Tensor, " batch"], x: Float[Tensor, "batch c h w"]
) -> Float[Tensor, "batch n"]:
    """Return the gradient of the outputs' sum in x, flat; it can be differentiated again.

    That is the gradient of each image's own output in that image, but for what they share in batch
    statistics. The relu has no second derivative, so that a loss of this gradient cannot move where
    its units switch; smooth activations do much better (Rodriguez-Munoz, Wang & Torralba 2024,
    arXiv 2409.20139).

    >>> x = torch.tensor([[[[2.0]]], [[[3.0]]]], requires_grad=True)
    >>> gradient = input_gradient(x.flatten(1)[:, 0] ** 3, x)  # 3 x^2, whose derivative is 6 x
    >>> gradient.tolist(), torch.autograd.grad(gradient.sum(), x)[0].flatten().tolist()
    ([[12.0], [27.0]], [12.0, 18.0])
    """
    (gradient,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    return gradient.flatten(1)
