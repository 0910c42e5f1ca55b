"""Losses: pure functions of features, labels and logits, one paper each."""

from clarep.distill.losses.alignment import class_alignment, instance_alignment
from clarep.distill.losses.cka import FeatureQueue, linear_cka
from clarep.distill.losses.clustering import clustering
from clarep.distill.losses.kd import kd
from clarep.distill.losses.rkd import rkd_angle, rkd_distance
from clarep.distill.losses.supcon import supcon

__all__ = [
    "FeatureQueue",
    "class_alignment",
    "clustering",
    "instance_alignment",
    "kd",
    "linear_cka",
    "rkd_angle",
    "rkd_distance",
    "supcon",
]
