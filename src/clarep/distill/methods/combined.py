"""Two ingredients in one student: exchanged backgrounds, and what makes it hold under attack.

Backgrounds after Xiao et al. 2020, arXiv 2006.09994; each ingredient and its papers are told where
it stands alone.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from clarep.distill.methods.adv import Adv, AdvConfig
from clarep.distill.methods.compose import ComposeConfig, Composed
from clarep.distill.methods.evidence import Evidence, EvidenceConfig


@dataclass(frozen=True)
class _EvidenceCompose(EvidenceConfig, ComposeConfig):
    """Options of both; in no module's list, as they are there already."""


@dataclass(frozen=True)
class _AdvCompose(AdvConfig, ComposeConfig):
    """Options of both."""


class EvidenceCompose(Composed, Evidence):
    """`evidence` on images whose backgrounds are exchanged; those with evidence keep theirs."""

    name, audit_reads = "evidence-compose", ("masks", "targets")
    Config: ClassVar[type[Any]] = _EvidenceCompose
    options: _EvidenceCompose


class AdvCompose(Composed, Adv):
    """`adv` on images whose backgrounds are exchanged: the rival that has the same masks."""

    name, needs_audit = "adv-compose", True
    Config: ClassVar[type[Any]] = _AdvCompose
    options: _AdvCompose


METHODS = (
    EvidenceCompose,
    EvidenceCompose.variant("evidence-norm-compose", off="evidence_weight"),
    AdvCompose,
)
