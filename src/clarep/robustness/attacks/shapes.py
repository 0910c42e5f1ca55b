"""Shapes that the attacks work on."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Batch = Float[Tensor, "batch c h w"]
"""Images."""
Classes = Int[Tensor, " batch"]
"""Their labels."""
Logits = Float[Tensor, "batch classes"]
Values = Float[Tensor, " batch"]
Marks = Bool[Tensor, " batch"]
"""Which images are meant."""
