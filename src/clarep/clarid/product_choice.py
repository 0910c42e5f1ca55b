"""Whether a canonical set's Jacobian products are compiled: settled once, and kept by the set.

By counts alone, so that the same command gives the same bytes however long anything takes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from clarep.engine.arithmetic import CountedArithmetic
from clarep.errors import UserError
from clarep.geometry.precision import differentiable

if TYPE_CHECKING:
    from clarep.clarid.clarid import Clarid

ENGINE_JVP = "engine_jvp"
"""Its name among a set's findings; sets without it are of eager products."""
_WORTH_FLOP = 6e13
"""Arithmetic of products whose gain is more than the compile, on two cores; docs/solver.md."""
_PRODUCTS_OF_K = 3  # what the solver takes to k directions, about; docs/solver.md


def choose_engine_jvp(clarid: "Clarid", images: int) -> Literal["eager", "compiled"]:
    """Return how the products of so many images are best made, or as the setting says.

    auto compiles where the work ahead repays it, which on a GPU was not measured.
    """
    asked = clarid.config.engine_jvp
    if asked != "auto":
        return asked
    on_cpu = clarid.teacher.device.type == "cpu"
    return "compiled" if on_cpu and flop_ahead(clarid, images) >= _WORTH_FLOP else "eager"


def flop_ahead(clarid: "Clarid", images: int) -> float:
    """Return about how much arithmetic the Jacobian products of so many images are, in FLOP."""
    kind, teacher = clarid.config.kind, clarid.teacher
    if kind in ("none", "random"):
        return 0.0
    x = torch.zeros(1, *teacher.latent_shape, device=teacher.device, dtype=teacher.dtype)
    cond = teacher.condition(torch.zeros(1, dtype=torch.int64, device=teacher.device))
    with torch.no_grad(), differentiable(), CountedArithmetic() as counter:
        y = teacher.features(x, x.new_full((1,), clarid.sigma_te), cond, clarid.tap)
    whole = min(teacher.latent_dim, y.numel())
    some = min(_PRODUCTS_OF_K * (clarid.num_dirs or 0), whole)
    products = whole if kind in ("middle", "bottom") else some
    return images * products * float(counter.operations)


def hold_to(clarid: "Clarid", findings: Mapping[str, Any], batch: int) -> None:
    """Have products made as a set's findings tell that they were begun.

    batch: images that go through at once. Raises UserError if the setting asks for the other way.
    """
    begun = findings.get(ENGINE_JVP, "eager")
    if clarid.config.engine_jvp not in ("auto", begun):
        raise UserError(
            f"the set was begun with {begun} Jacobian products, and `engine_jvp` is "
            f"{clarid.config.engine_jvp}: leave it out, or give another `out`"
        )
    clarid.products = None
    if begun == "compiled":
        clarid.compile_for(batch)
