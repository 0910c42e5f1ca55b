"""Attacks of our own, AutoAttack, curves over their strength, and checks that they were strong.

All of them take:
    model: images in [0, 1] -> logits; a module is held in evaluation mode.
    x: images in [0, 1].
    y: true labels.
    threat: how far an image may be changed.
    batch_size: images a pass.

And raise UserError for what `accepted` refuses, or a count below 1.
"""

from clarep.robustness.attacks.apgd import apgd
from clarep.robustness.attacks.attack_config import AttackConfig, check_attacks
from clarep.robustness.attacks.curves import robust_accuracy, threats
from clarep.robustness.attacks.cw import Nearest, cw_l2
from clarep.robustness.attacks.masking import masking_reasons, stronger_attack
from clarep.robustness.attacks.pgd import pgd
from clarep.robustness.attacks.standard import Standard, auto_attack
from clarep.robustness.attacks.threat import Threat

__all__ = [
    "AttackConfig",
    "Nearest",
    "Standard",
    "Threat",
    "apgd",
    "auto_attack",
    "check_attacks",
    "cw_l2",
    "masking_reasons",
    "pgd",
    "robust_accuracy",
    "stronger_attack",
    "threats",
]
