"""A canonical set as the page shows it: sorted, filtered, and laid out in the plane."""

from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.clarid.clarid_config import ClaridConfig
from clarep.clarid.set_pictures import POINTS, principal_coordinates
from clarep.data.labelled import to_uint8
from clarep.errors import UserError
from clarep.explore.explorer import Explorer
from clarep.select.class_evidence import class_evidence

ROUND_TRIP, EVIDENCE, ENERGY = "round trip", "class evidence", "captured energy"
SORTS = {"stored order": "", ROUND_TRIP: "dB", EVIDENCE: "nats", ENERGY: "Σσ²"}
"""What a set can be sorted by, and its unit."""
MAPS = ("PCA", "UMAP") if find_spec("umap") else ("PCA",)
"""How features can be laid out here."""
_FEWEST = 5  # points that UMAP lays out


class Catalogue:
    """A canonical set of the explorer's teacher.

    Raises:
        UserError: if there is no such set, or another teacher made it.
    """

    def __init__(self, explorer: Explorer, folder: Path) -> None:
        if (folder / "canon").is_dir():
            folder = folder / "canon"
        self.explorer = explorer
        self.canonical = canonical = CanonicalSet.load(folder)
        if canonical.config["teacher_sha256"] != explorer.teacher.fingerprint:
            raise UserError(f"another teacher made the set in {folder}: give that, `teacher`")
        # Nothing here takes Jacobian products: a set made on a GPU is opened on a processor too.
        config = ClaridConfig(**canonical.setting | {"precision": None})
        self.clarid = Clarid(explorer.teacher, config)
        index = canonical.index.numpy()
        fits = len(explorer.data) > index.max()
        self.has_originals = fits and explorer.data.sha256(index) == canonical.config["data_sha256"]
        """Whether the page's data are those that it was made of."""
        self._evidence: NDArray[np.float64] | None = None
        self._places: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}

    @cached_property
    def samples(self) -> UInt8[Tensor, "n c h w"]:
        """The canonical samples."""
        return to_uint8(self.canonical.sample)

    def values(self, by: str) -> Float64[NDArray[np.float64], " n"] | None:
        """Return what the images are sorted by; None for evidence that is not asked yet."""
        if by == EVIDENCE:
            return self._evidence
        if by == ENERGY:
            return self.canonical.singular_values.double().square().sum(1).numpy()
        return self.canonical.round_trip_psnr.double().numpy()

    def ask_evidence(self) -> Iterator[float]:
        """Ask what each CLARep holds of its class, yielding the share that is done."""
        found = list[float]()
        parts = torch.arange(len(self.canonical)).split(self.clarid.config.batch_size)
        for part in [] if self._evidence is not None else parts:
            of = self.canonical[part]
            asked = class_evidence(self.clarid, of.latent, of.label, indices=of.index)
            found += asked.nats.tolist()
            yield len(found) / len(self.canonical)
        if found:
            self._evidence = np.array(found)

    def order(self, label: int | None, by: str, falling: bool) -> list[int]:
        """Return the rows of a class, or of all, sorted."""
        labels = self.canonical.label.numpy()
        rows = np.arange(len(labels)) if label is None else np.flatnonzero(labels == label)
        values = None if not SORTS[by] else self.values(by)
        if values is not None:
            rows = rows[np.argsort(-values[rows] if falling else values[rows], kind="stable")]
        return [int(row) for row in rows]

    def laid_out(self) -> list[int]:
        """Return the rows that a map shows: the first of each class, at most `POINTS`."""
        labels = self.canonical.label
        order = self.canonical.balanced(POINTS).index
        row_of = {int(index): row for row, index in enumerate(self.canonical.index)}
        assert len(labels) == len(row_of)
        return [row_of[int(index)] for index in order]

    def places(
        self, method: str
    ) -> tuple[Float[NDArray[np.float64], "m 2"], Float[NDArray[np.float64], "m 2"]]:
        """Return where features lie before and after the projection, of `laid_out` rows."""
        if method not in self._places:
            shown = self.canonical[self.laid_out()]
            before = self.clarid.features(shown.x_te, shown.label)
            self._places[method] = _in_plane(before, method), _in_plane(shown.features, method)
        return self._places[method]


def _in_plane(features: Tensor, method: str) -> NDArray[np.float64]:
    turned = principal_coordinates(features).double()
    if method == "UMAP" and len(turned) > _FEWEST:
        import umap

        neighbours = min(15, len(turned) - 1)
        laid = umap.UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1)
        return np.asarray(laid.fit_transform(turned.numpy()), np.float64)
    places: NDArray[np.float64] = torch.nn.functional.pad(turned, (0, 2))[:, :2].numpy()
    return places
