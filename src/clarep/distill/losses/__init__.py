"""Losses: pure functions of features, labels and logits, one paper each."""

from clarep.distill.losses.cka import FeatureQueue, linear_cka
from clarep.distill.losses.contrast import class_alignment, instance_alignment, supcon
from clarep.distill.losses.kd import kd
from clarep.distill.losses.rkd import rkd_angle, rkd_distance

__all__ = [
    "FeatureQueue",
    "class_alignment",
    "instance_alignment",
    "kd",
    "linear_cka",
    "rkd_angle",
    "rkd_distance",
    "supcon",
]
