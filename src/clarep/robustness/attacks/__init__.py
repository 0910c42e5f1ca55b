"""Attacks of our own, AutoAttack, curves over their strength, and checks that they were strong."""

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
