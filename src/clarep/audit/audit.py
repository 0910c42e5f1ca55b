"""`Audit`: what a teacher said of a data set, in a folder."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Float16, Int64
from torch import Tensor

from clarep.audit.audit_config import PARTS, AuditConfig, Part
from clarep.audit.label_evidence import Evidence
from clarep.data.held_out import Indices
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import read_json, sha256_file
from clarep.engine.identity import in_full
from clarep.engine.tensors import read_tensors
from clarep.errors import UserError, refusing

MANIFEST = "manifest.json"
ERRORS, MASKS, TARGETS = (f"{part}.safetensors" for part in PARTS)


@dataclass(frozen=True)
class EvidenceTargets:
    """What the teacher knows of the class at single images, as denoised images of each class.

    D(x + sigma n | c) - D(x + sigma n | c2) is the direction in which the image becomes more of
    class c and less of c2, up to sigma^2 the difference of their scores.
    """

    index: Int64[Tensor, " n"]
    """Which images of the data set."""
    denoised: Float16[Tensor, "n k c h w"]
    """Mean of D(x + sigma n | c) - x over draws of n, in [-1, 1] of the teacher's images, of every
    class or of those in `tried`, and last of no class where the teacher has such."""
    tried: Int64[Tensor, "n k"] | None = None
    """Which classes, an image's own first and last the label of none, where these are but a few of
    them."""


@dataclass(frozen=True)
class Audit:
    """What a teacher said of the images of a data set. `Audit.load(folder)` reads it."""

    folder: Path
    """Where it lies."""
    manifest: dict[str, Any]
    """Configuration, versions, SHA-256 of the files, cost."""
    index: Int64[Tensor, " n"]
    """Which images of the data set were audited."""
    labels: Int64[Tensor, " n"]
    """Their classes."""
    tried: Int64[Tensor, "n k"]
    """Classes that each was denoised under, its own first."""
    errors: Float[Tensor, "levels draws n k"]
    """Squared denoising error |D(x_0 + sigma eps | c) - x_0|^2, summed over the latent, under each
    of `tried`; all classes of an image and a draw share their noise."""
    masks: Bool[Tensor, "n h w"] | None
    """Where the object is in each image, at the images' size; None if not asked for."""
    targets: EvidenceTargets | None
    """Class evidence of some of the images; None if not asked for."""

    @classmethod
    def load(cls, folder: Path | str) -> "Audit":
        """Read a finished audit; raises UserError if there is none, or a file is damaged."""
        folder = Path(folder)
        mend = "give a folder that clarep audit wrote to its end, or run its command again"
        faults = (OSError, ValueError, LookupError, TypeError, AttributeError)
        with refusing(f"{folder} holds no finished audit", mend, faults):
            manifest = read_json(folder / MANIFEST)
            if "files" not in manifest:
                raise ValueError("it was stopped before its end")
            files = {name: str(digest) for name, digest in manifest["files"].items()}
        read = {name: _read(folder / name, digest) for name, digest in files.items()}
        found, targets = read[ERRORS], read.get(TARGETS)
        return cls(
            folder,
            manifest,
            found["index"],
            found["labels"],
            found["tried"],
            found["errors"],
            read[MASKS]["masks"] if MASKS in read else None,
            None if targets is None else EvidenceTargets(**targets),
        )

    @property
    def sha256(self) -> str:
        """Of all that it holds, and of who counts as doubted, whatever it cost."""
        return self.sha256_of(PARTS)

    def sha256_of(self, parts: Collection[Part]) -> str:
        """Return the same of some parts: who counts as doubted is read with the errors."""
        names = {f"{part}.safetensors" for part in parts}
        read = {name: sha for name, sha in self.manifest["files"].items() if name in names}
        told = self.manifest["config"]["audit"]  # which leaves defaults out
        if "errors" in parts and "doubted_share" in told:
            read["doubted_share"] = told["doubted_share"]
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()

    @property
    def config(self) -> AuditConfig:
        """What was asked; `batch_size`, which may change on the way, is the default."""
        given = in_full(AuditConfig, self.manifest["config"]["audit"])
        return AuditConfig(**given | {"sigmas": tuple(given["sigmas"])})

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the data's classes."""
        return tuple(self.manifest["config"]["class_names"])

    def name_of(self, tried: int) -> str:
        """Return the name of a class that was tried, or of none."""
        return self.class_names[tried] if tried < len(self.class_names) else "no class"

    def evidence(self) -> Evidence:
        """Return the evidence against each label at each noise level, with standard errors."""
        return Evidence.of(self.errors, self.tried, self.config.sigmas)

    @cached_property
    def doubts(self) -> Float[Tensor, " n"]:
        """The error under the own label less the least under another, mean over the draws.

        At the first noise level; above 0 the teacher finds another class more likely.
        """
        mean = self.errors[0].mean(0)
        return mean[:, 0] - mean[:, 1:].amin(1)

    @cached_property
    def rivals(self) -> Int64[Tensor, " n"]:
        """The other class of the least error of each image; the null label where that was it."""
        best = self.errors[0].mean(0)[:, 1:].argmin(1) + 1
        return self.tried.gather(1, best[:, None])[:, 0]

    def doubted(self, among: Bool[Tensor, " n"] | None = None) -> Bool[Tensor, " n"]:
        """Say of each image whether it is of the most doubted share of its class.

        among: the images that shares are taken of, such as those that are trained on; the others
        are not doubted. At least one image a class is.
        """
        among = torch.ones_like(self.labels, dtype=torch.bool) if among is None else among
        found = torch.zeros_like(among)
        for label in self.labels[among].unique():
            members = torch.nonzero(among & (self.labels == label))[:, 0]
            count = num_doubted(len(members), self.config.doubted_share)
            order = self.doubts[members].argsort(descending=True, stable=True)
            found[members[order[:count]]] = True
        return found

    def doubted_of(self, index: Indices) -> Bool[Tensor, " m"]:
        """Say of images of the data set which are of the most doubted share of their class.

        Shares are taken among these; those that were not audited are not doubted.
        """
        at = torch.from_numpy(index)
        doubted = self.doubted(torch.isin(self.index, at))
        return torch.isin(at, self.index[doubted])


def check_audit(audit: Audit, data: LabelledImages) -> None:
    """Raise UserError if the audit is of other images or labels than these."""
    index, recorded = audit.index.numpy(), audit.manifest["config"]["data_sha256"]
    if index.max() >= len(data) or data.sha256(index) != recorded:
        raise UserError(
            f"{audit.folder} is an audit of other images or labels than {data.name}: give one of "
            "these data, or the data that it was made of"
        )


def num_doubted(members: int, share: float) -> int:
    """Return how many images of a class count as doubted."""
    return max(1, round(share * members))


def _read(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return a file's tensors; raises UserError if its bytes are not those that were recorded."""
    tensors, _ = read_tensors(path, "an audit")
    if sha256_file(path) != sha256:
        raise UserError(
            f"{path} is not the file that the {MANIFEST} beside it tells of: run the clarep audit "
            "command that wrote it again"
        )
    return tensors
