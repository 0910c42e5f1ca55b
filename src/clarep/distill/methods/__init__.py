"""Methods by name: CaDistill, its ablations and controls, and its rivals."""

from dataclasses import dataclass, field, replace

from clarep.clarid.directions import Kind
from clarep.distill.distill_config import DistillConfig
from clarep.distill.methods.adv import Adv
from clarep.distill.methods.augmix import Augment
from clarep.distill.methods.base import Batch, Ingredients, Method
from clarep.distill.methods.cadistill import CaDistill
from clarep.distill.methods.class_mean import ClassMean
from clarep.distill.methods.diffusion_features import DiffusionFeatures
from clarep.distill.methods.generated import Generated
from clarep.distill.methods.kd import Kd
from clarep.distill.methods.rkd import Rkd
from clarep.distill.methods.supcon import SupCon
from clarep.distill.methods.vanilla import Vanilla


@dataclass(frozen=True)
class MethodSpec:
    """What a method is called for, needs, and changes of the configuration."""

    build: type[Method]
    """The loss."""
    canonical_kind: Kind | None = None
    """Kind of the canonical set that it takes; None for a method without one."""
    canonical_guidance: float | None = None
    """The guidance that the set must have been decoded with; None for any."""
    stronger_guidance: bool = False
    """The set must have been decoded with a guidance above 1."""
    needs_teacher: bool = False
    """It asks the diffusion model itself."""
    needs_classifier: bool = False
    """It asks a stronger student."""
    settings: dict[str, float] = field(default_factory=dict)
    """Fields of DistillConfig that it fixes."""

    def configured(self, config: DistillConfig) -> DistillConfig:
        """Return the configuration with what the method fixes."""
        return replace(config, **self.settings)  # type: ignore[arg-type]


METHODS: dict[str, MethodSpec] = {
    "vanilla": MethodSpec(Vanilla),
    "cadistill": MethodSpec(CaDistill, "top"),
    "cadistill-no-align": MethodSpec(CaDistill, "top", settings={"lambda_align": 0.0}),
    "cadistill-no-cano": MethodSpec(CaDistill, "top", settings={"lambda_cano": 0.0}),
    "cadistill-no-dist": MethodSpec(CaDistill, "top", settings={"lambda_dist": 0.0}),
    # The same losses with another set: what else than the projection could help?
    "reconstruction": MethodSpec(CaDistill, "none", canonical_guidance=1.0),
    "guidance-only": MethodSpec(CaDistill, "none", stronger_guidance=True),
    "random": MethodSpec(CaDistill, "random"),
    "bottom": MethodSpec(CaDistill, "bottom"),
    "middle": MethodSpec(CaDistill, "middle"),
    "class-mean": MethodSpec(ClassMean, "top"),
    "diffusion-features": MethodSpec(DiffusionFeatures, needs_teacher=True),
    "generated": MethodSpec(Generated, needs_teacher=True),
    "supcon": MethodSpec(SupCon),
    "kd": MethodSpec(Kd, needs_classifier=True),
    "rkd": MethodSpec(Rkd, needs_classifier=True),
    "adv": MethodSpec(Adv),
    "augment": MethodSpec(Augment),
}
"""Name -> method; `clarep distill --method NAME`."""

__all__ = ["METHODS", "Batch", "Ingredients", "Method", "MethodSpec"]
