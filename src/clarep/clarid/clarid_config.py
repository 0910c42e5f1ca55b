"""The setting of CLARID: its fields are the command line's options, checked here."""

from dataclasses import dataclass
from typing import Annotated, Literal

from clarep.clarid.directions import Kind
from clarep.engine.bounds import Within, check_bounds
from clarep.errors import UserError
from clarep.geometry.subspace import Measure
from clarep.teachers.teacher import Teacher

_DEFAULT_T = 0.85
AT_ONCE = ("batch_size", "memory_mb")
"""Fields that change a result within the solver's tolerance and the rounding alone."""


@dataclass(frozen=True)
class ClaridConfig:
    """How canonical latent representations are found."""

    t: float | None = None
    """Where to invert to, as a share of the teacher's time axis; 0.85 unless --sigma is given."""
    sigma: float | None = None
    """Where to invert to, as a noise level; instead of --t."""
    tap: str = "mid"
    """Layer whose Jacobian is taken; mid is the family's default."""
    k: int | float | str = 0.04
    """Directions to project out: a number, a share of the latent's dimension, or energy:SHARE."""
    guidance: Annotated[float, Within(0)] = 3.0
    """Classifier-free guidance of the decoding after the projection; 1 is none."""
    steps: Annotated[int, Within(1)] = 8
    """Steps of the inversion and of each decoding."""
    solver: Literal["euler", "heun"] = "heun"
    """How the ODE is walked down: euler is DDIM, heun is of second order at twice the cost."""
    inversion: Literal["euler", "heun", "fixed_point"] = "heun"
    """How the ODE is walked up; fixed_point nearly undoes euler, at six times its cost; choose
    --solver euler with it."""
    kind: Kind = "top"
    """Directions: top is CLARID; bottom, middle, random and none are controls."""
    branch: Literal["conditional", "null"] = "conditional"
    """Label under which the Jacobian is taken."""
    measure: Measure = "energy"
    """What the solver's tolerance bounds: missing captured energy, or worst principal angle."""
    tolerance: Annotated[float, Within(0, 1, "()")] = 0.01
    """Missing share of the optimal captured energy (or angle in radians) at which it stops."""
    batch_size: Annotated[int, Within(1)] = 25
    """Images that go through the teacher at once: fewer take less memory. It changes the solver's
    start and the rounding, and may change in the middle of a canonical set."""
    memory_mb: Annotated[float, Within(0, ends="(]")] = 1024.0
    """Bound on the memory of one chunk of Jacobian products, in MiB."""


def check_config(config: ClaridConfig) -> None:
    """Raise UserError for a value that no teacher would take."""
    check_bounds(config)
    if config.inversion == "fixed_point" and config.solver != "euler":
        raise UserError(
            "inversion fixed_point belongs to solver euler, whose steps it nearly undoes, and "
            f"solver is {config.solver}: choose `solver=euler` with it"
        )


def resolve_sigma(teacher: Teacher, config: ClaridConfig) -> float:
    """Return the noise level that a setting stands for. Raises UserError for one that none is."""
    if config.sigma is not None and config.t is not None:
        raise UserError("both t and sigma are given: give one of them")
    if config.sigma is None:
        return teacher.sigma_from_t(_DEFAULT_T if config.t is None else config.t)
    teacher.check_sigma(config.sigma)
    return config.sigma


def resolve_tap(teacher: Teacher, tap: str) -> str:
    """Return the tap's own name, for `mid` the family's. Raises UserError if there is none."""
    resolved = teacher.default_tap if tap == "mid" else tap
    teacher.check_tap(resolved)
    return resolved
