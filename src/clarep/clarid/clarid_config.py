"""The setting of CLARID: its fields are the command line's options, checked here."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from clarep.clarid.directions import ACROSS, SPARING, Kind, parse_k
from clarep.engine.bounds import Within, check_bounds
from clarep.engine.identity import in_full, shortened
from clarep.errors import ClarepWarning, UserError, check_type, unknown_name
from clarep.geometry.precision import Precision
from clarep.geometry.subspace import Measure
from clarep.teachers.stored_setting import FoundSetting, stored_setting
from clarep.teachers.teacher import Teacher

AUTO: Literal["auto"] = "auto"
FIXED_T, FIXED_K = 0.85, 0.04
"""Of a setting that does not look at the teacher; the paper too has one k for all images."""
AT_ONCE = ("batch_size", "memory_mb", "engine_jvp")
"""Fields that change a result within the solver's tolerance and the rounding alone."""


@dataclass(frozen=True)
class ClaridConfig:
    """How canonical latent representations are found."""

    t: float | Literal["auto"] | None = None
    """Where to invert to, as a share of the teacher's time axis; auto is the highest t at which the
    latents hold the class. Without t, k and sigma both are auto, with one of them t is 0.85."""
    sigma: float | None = None
    """Where to invert to, as a noise level; instead of --t."""
    tap: str = "mid"
    """Layer whose Jacobian is taken; mid is the family's default."""
    k: int | float | str | None = None
    """Directions to project out: a number, a share of the latent's dimension, energy:SHARE, or
    auto, the largest k that leaves the class in the latent. Where t alone is given, it is 0.04."""
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
    """Directions: top is CLARID. Where the teacher reads the class is left alone by contrast, which
    takes the top ones across such directions, and mask, outside such pixels. Centre (outside a disc
    in the middle, mask's control), bottom, middle, random and none are controls; bottom and middle
    form the whole Jacobian, which takes 5 to 20 times as long."""
    branch: Literal["conditional", "null"] = "conditional"
    """Label under which the Jacobian is taken."""
    inversion_label: Literal["class", "null"] = "class"
    """Label under which images are inverted: their class, or none."""
    measure: Measure = "energy"
    """What the solver's tolerance bounds: missing captured energy, or worst principal angle."""
    tolerance: Annotated[float, Within(0, 1, "()")] = 0.01
    """Missing share of the optimal captured energy (or angle in radians) at which it stops."""
    precision: Precision | None = None
    """Arithmetic of Jacobian products. Where none is named: fp32 on a processor, tf32 on a GPU.
    What less than fp32 loses of the captured energy is measured in fp32 and counts."""
    batch_size: Annotated[int, Within(1)] = 25
    """Images that go through the teacher at once: fewer take less memory. It changes the solver's
    start and the rounding, and may change in the middle of a canonical set."""
    memory_mb: Annotated[float, Within(0, ends="(]")] | None = None
    """Bound on the memory of one chunk of Jacobian products, in MiB, by estimate. Where none is
    named: 1024 on a processor, a quarter of a GPU's."""
    engine_jvp: Literal["auto", "eager", "compiled"] = "auto"
    """How Jacobian products are made: compiled, J V takes some six tenths of its time, after a
    minute or two; auto compiles for large canonical sets on a processor. A set tells what it began
    with, and keeps to it."""


def with_settings(config: ClaridConfig | None, settings: Mapping[str, Any]) -> ClaridConfig:
    """Return a setting, the default without one, with some fields changed.

    Raises UserError for what is none, and for a name of no field.
    """
    config = ClaridConfig() if config is None else config
    check_type("config", config, ClaridConfig, "a ClaridConfig")
    for name in settings:
        if name not in vars(config):
            raise unknown_name("setting", name, vars(config))
    return replace(config, **settings)


def check_config(config: ClaridConfig) -> None:
    """Raise UserError for a value that no teacher would take."""
    check_bounds(config)
    if AUTO in (config.t, config.k) and config.sigma is not None:
        raise UserError("auto goes by t, and sigma is given: leave out sigma, or give k a number")
    if config.kind in SPARING and str(config.k).startswith("energy"):
        raise UserError(
            f"k = '{config.k}' is a share of the whole Jacobian's energy, and kind {config.kind} "
            "leaves some of it alone: give a number (31) or a share of the dimension (0.01)"
        )
    if config.inversion == "fixed_point" and config.solver != "euler":
        raise UserError(
            "inversion fixed_point belongs to solver euler, whose steps it nearly undoes, and "
            f"solver is {config.solver}: choose `solver=euler` with it"
        )


def is_auto(config: ClaridConfig) -> bool:
    """Whether t and k, or one of them, are to be found: asked for, or nothing is named."""
    return AUTO in (config.t, config.k) or (config.t, config.k, config.sigma) == (None,) * 3


def find_stored(teacher: Teacher, config: ClaridConfig) -> FoundSetting | None:
    """Return the stored setting of a teacher that answers what an automatic one leaves open."""
    found = stored_setting(teacher)
    if found is None or config.t not in (None, AUTO, found.t):
        return None
    same = (resolve_tap(teacher, config.tap), config.branch) == (found.tap, found.branch)
    as_stored = config.kind not in SPARING and config.inversion_label == "class"
    return found if same and as_stored else None


def with_found(config: ClaridConfig, found: FoundSetting) -> ClaridConfig:
    """Return a setting with what it leaves open filled in; a k that is named stays."""
    return replace(config, t=found.t, k=found.k if config.k in (None, AUTO) else config.k)


def measured_otherwise(config: ClaridConfig) -> str:
    """Say what of a setting differs from what stored ones were measured with; "" if nothing."""
    walked = ("guidance", "steps", "solver", "inversion")
    other = [name for name in walked if getattr(config, name) != getattr(ClaridConfig, name)]
    return f"that was with another {' and '.join(other)} than yours" if other else ""


def unfound(config: ClaridConfig) -> ClaridConfig:
    """Return a setting whose automatic t and k are as fixed: with them all else can be checked."""
    check_config(config)
    t = None if config.t == AUTO else config.t
    return replace(config, t=t, k=FIXED_K if config.k in (None, AUTO) else config.k)


def settled(config: ClaridConfig, teacher: Teacher) -> ClaridConfig:
    """Return the setting with t and k as they are for this teacher, without looking at data.

    Automatic ones are the stored setting of a bundled teacher. Where none is stored, what is not
    named is as fixed (t = 0.85, k = 0.04).

    Warns (ClarepWarning) where a stored setting was measured with another guidance, steps or
    solver, or does not keep the class. Raises UserError where auto is asked for by name and
    nothing is stored.
    """
    if is_auto(config):
        found = find_stored(teacher, config)
        if found is not None:
            setting = with_found(config, found)
            doubts = [] if found.stands else ["no setting that was measured keeps the class"]
            if doubts := [*doubts, *filter(None, [measured_otherwise(setting)])]:
                said = f"t = {setting.t}, k = {setting.k} are stored for this teacher"
                mend = "name `t` and `k`, or find them with `clarep.auto_setting(teacher, data)`"
                text = f"{said}, and {', and '.join(doubts)}: {mend}"
                warnings.warn(text, ClarepWarning, stacklevel=4)
            return setting
        if AUTO in (config.t, config.k):
            raise UserError(
                "t and k cannot be auto without images where none are stored for the teacher and "
                "this t, tap and branch: find them with `auto_setting(teacher, data)` or "
                "`clarep select`, or give both"
            )
    return replace(config, k=FIXED_K if config.k is None else config.k)


def resolved(
    config: ClaridConfig | None, teacher: Teacher, changed: Mapping[str, Any]
) -> tuple[ClaridConfig, float, str, int | None]:
    """Return the settled setting, its noise level, its tap, and how many directions k stands for.

    The last is None where k is a share of energy. changed: fields that are others than those of
    `config`. Raises UserError for what no teacher or not this one takes.
    """
    config = with_settings(config, changed)
    check_config(config)
    if config.kind in SPARING and teacher.num_classes < 2:
        raise UserError(
            f"kind {config.kind} leaves alone what tells classes apart, and this teacher has one "
            "class: choose `kind=top`"
        )
    precision = resolve_precision(teacher.device.type, config)
    tap = resolve_tap(teacher, config.tap)
    settled_one = settled(config, teacher)
    assert settled_one.k is not None
    sigma = resolve_sigma(teacher, settled_one)
    num_dirs = parse_k(settled_one.k, teacher.latent_dim)
    return replace(settled_one, precision=precision), sigma, tap, num_dirs


def stored_in_full(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored setting, full or short, with all that it leaves out."""
    return in_full(ClaridConfig, {"k": FIXED_K, "precision": "fp32"} | dict(record))


def stored_in_short(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a settled setting without what is usual: what an artefact is told by.

    A k of 0.04 and precision fp32 are left out, so that sets made before keep their addresses.
    """
    short = shortened(ClaridConfig, record)
    usual = (("k", FIXED_K), ("precision", "fp32"))
    return {name: value for name, value in short.items() if (name, value) not in usual}


def resolve_sigma(teacher: Teacher, config: ClaridConfig) -> float:
    """Return the noise level of a settled setting. Raises UserError for one that none is."""
    if config.sigma is not None and config.t is not None:
        raise UserError("both t and sigma are given: give one of them")
    if config.sigma is None:
        teacher.check_rises()
        return teacher.sigma_from_t(FIXED_T if config.t is None else float(config.t))
    teacher.check_sigma(config.sigma)
    return config.sigma


def resolve_precision(device_type: str, config: ClaridConfig) -> Precision:
    """Return the arithmetic of Jacobian products: fp32 of a kind that takes none, or J whole.

    Raises UserError for what a device has not.
    """
    on_gpu, named = device_type == "cuda", config.precision not in (None, "fp32")
    if named and not on_gpu:
        raise UserError(
            f"precision {config.precision} is for a GPU, and the teacher is on {device_type}: "
            "leave it out, or choose fp32"
        )
    if named and config.measure == "angle":  # now, not at the first basis
        raise UserError(
            f"`measure=angle` is not known in precision {config.precision}: choose fp32, or energy"
        )
    if config.kind not in ("top", *ACROSS) or config.measure == "angle":
        return "fp32"
    return config.precision or ("tf32" if on_gpu else "fp32")


def resolve_tap(teacher: Teacher, tap: str) -> str:
    """Return the tap's own name, for `mid` the family's. Raises UserError if there is none."""
    resolved = teacher.default_tap if tap == "mid" else tap
    teacher.check_tap(resolved)
    return resolved
