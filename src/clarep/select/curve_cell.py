"""One cell of `clarep select`'s grid: the canonicity curve of a seed's images at one t and tap.

Latents without k directions of each kind, k growing, all k of a kind from one basis; of each what
still tells the class, image by image, and what is left that does not belong to it.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from clarep.clarid.clarid import Clarid
from clarep.clarid.directions import Kind, project_out
from clarep.engine.cost import sum_costs
from clarep.select.canonicity import TOLD
from clarep.select.clarep_measures import Scene, measure, scene_of
from clarep.select.class_evidence import ClassEvidence, class_evidence
from clarep.select.controls import control_of, invert_all, scrambled
from clarep.select.grid import CONTROL_KINDS, Cell, Grid
from clarep.select.judging import Scorer, answers

_PROBES = 16  # directions from which |J|^2 is estimated


def compute_cell(grid: Grid, cell: Cell, judge: Scorer | None) -> dict[str, Any]:
    """Measure one cell: a row for guidance alone (k = 0), and one for each kind and k.

    judge: of the teacher's classes; None where there is none.

    Returns JSON values: the cell, its images, `rows`, what the directions of each kind and
    everything together cost. Where a control is among the kinds, the last row is of images that
    show nothing, these scrambled: what is read from their latents is not read from an object.
    """
    clarid, chosen = grid.clarid(cell), grid.chosen[cell.seed]
    of_kind = {kind: control_of(clarid, kind) for kind in grid.config.kind}
    scene = scene_of(grid.data, chosen)
    labels, images = scene.labels, grid.data.images(chosen)
    x_te, psnr = invert_all(clarid, images, labels)
    latents: dict[tuple[Kind, int], tuple[Tensor, float]] = {("none", 0): (x_te, 0.0)}
    kind: Kind
    for kind, own in of_kind.items():
        found, energy = nested_latents(
            own, x_te, labels, counts=grid.counts, chosen=chosen, seed=cell.seed
        )
        latents |= {(kind, k): (found[k], energy[k]) for k in grid.counts}
    rows, before = [], None
    for (kind, k), (kept, energy_held) in latents.items():
        row, evidence = measured_row(
            clarid,
            judge,
            (scene, chosen, cell.seed),
            x_te=x_te,
            latents=kept,
            kind=kind,
            before=before,
        )
        before = before or evidence
        share = k / grid.teacher.latent_dim
        rows.append({"k": k, "share": share, "captured_energy": energy_held} | row)
    if not CONTROL_KINDS.isdisjoint(of_kind):
        nothing, _ = invert_all(clarid, scrambled(images, chosen, cell.seed), labels)
        about = (Scene(labels), chosen, cell.seed)
        row, _ = measured_row(
            clarid, judge, about, x_te=nothing, latents=nothing, kind="scrambled", before=None
        )
        rows.append({"k": 0, "share": 0.0, "captured_energy": 0.0} | row)
    clarid.ledger.images += len(chosen)
    parts = [one.ledger.as_dict() for one in (clarid, *of_kind.values())]
    return {
        "cell": asdict(cell) | {"sigma": clarid.sigma_te},
        "images": chosen.tolist(),
        "round_trip_psnr_median": float(psnr.quantile(0.5)),
        "rows": rows,
        "directions": {
            kind: {
                "seconds": round(sum(own.ledger.seconds.values()), 3),
                "products": own.ledger.jacobian_products,
            }
            for kind, own in of_kind.items()
        },
        "cost": sum_costs(parts) | {"batch_size": clarid.config.batch_size},
    }


def nested_latents(
    clarid: Clarid,
    x_te: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    *,
    counts: tuple[int, ...],
    chosen: NDArray[np.int64],
    seed: int,
) -> tuple[dict[int, Tensor], dict[int, float]]:
    """Return k -> latents without k directions of clarid's kind, and the energy of J these hold.

    One basis an image serves all k: its columns are ordered, the first k of the largest are those
    of k (of `bottom` the last, which have the smallest singular values). The energy is
    |J V|^2 / |J|^2, mean over images, |J|^2 estimated from Gaussian probes; of `random` directions
    it is what they hold on average, k / n.

    Args:
        clarid: of a kind with directions, its k the largest of `counts`.
        x_te: inverted latents.
        labels: their classes.
        counts: every k.
        chosen: the images' indices.
        seed: of the solver's start, the random directions and the probes.
    """
    kept: dict[int, list[Tensor]] = {k: [] for k in counts}
    held: dict[int, list[Tensor]] = {k: [] for k in counts}
    for part in torch.arange(len(x_te)).split(clarid.config.batch_size):
        x, given = x_te[part], labels[part]
        subspace = clarid.directions(x, given, seed + int(chosen[part[0]]))
        assert subspace is not None  # the kind has directions
        total = None
        if clarid.config.kind != "random":
            total = _energy(clarid, x, given, seed).maximum(_squares(subspace.singular_values))
        last = clarid.config.kind == "bottom"
        for k in counts:
            columns = slice(-k, None) if last else slice(k)
            kept[k].append(project_out(x, subspace.V[:, :, columns]))
            if total is not None:
                held[k].append(_squares(subspace.singular_values[:, columns]) / total)
    energy = {k: float(torch.cat(v).mean()) if v else k / x_te[0].numel() for k, v in held.items()}
    return {k: torch.cat(parts) for k, parts in kept.items()}, energy


def measured_row(
    clarid: Clarid,
    judge: Scorer | None,
    drawn: tuple[Scene, NDArray[np.int64], int],
    *,
    x_te: Float[Tensor, "n c h w"],
    latents: Float[Tensor, "n c h w"],
    kind: str,
    before: ClassEvidence | None,
) -> tuple[dict[str, Any], ClassEvidence]:
    """Return the measures of latents, as JSON values, `read` image by image, and the evidence.

    drawn: what is on the images, which they are, and by which seed. before: the evidence of x_te,
    if these are others.
    """
    scene, chosen, seed = drawn
    samples = clarid.sample(latents, scene.labels).clamp(-1, 1)
    found = class_evidence(
        clarid, latents, scene.labels, judge, indices=torch.from_numpy(chosen), seed=seed
    )
    measures = measure(
        clarid,
        judge,
        scene,
        x_te,
        latents=latents,
        samples=samples,
        kind=kind,
        seed=seed,
        evidence=found,
        before=before,
    )
    told = None if judge is None else answers(judge, samples).argmax(1) == scene.labels
    read: dict[str, Tensor | None] = {
        "posterior": found.nats.exp() / found.labels,
        "below": None if found.below_nats is None else found.below_nats.exp() / found.labels,
        "null_right": found.null_right,
        TOLD: told,
    }
    known = {name: values.double().tolist() for name, values in read.items() if values is not None}
    spread = sample_spread(samples, scene.labels)
    return asdict(measures) | {"sample_spread": spread, "read": known}, found


def sample_spread(samples: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
    """Return the root mean square distance of samples' pixels from their class's mean sample."""
    flat, apart = samples.double().flatten(1), samples.new_zeros((), dtype=torch.float64)
    for label in labels.unique():
        own = flat[labels == label]
        apart = apart + (own - own.mean(0)).square().sum()
    return float((apart / flat.numel()).sqrt())


def _energy(clarid: Clarid, x: Tensor, labels: Tensor, seed: int) -> Float[Tensor, " n"]:
    """Return an estimate of |J|^2 of each image: the mean of |J z|^2 over Gaussian z."""
    generator = torch.Generator().manual_seed(seed)
    probes = torch.randn(len(x), x[0].numel(), _PROBES, generator=generator).to(x.dtype)
    placed = x.to(clarid.teacher.device, clarid.teacher.dtype)
    with clarid.ledger.stage("directions"):
        jacobian = clarid.jacobian(placed, labels)
        found: Tensor = jacobian.matmat(probes.to(placed)).square().sum((1, 2)).cpu() / _PROBES
    clarid.ledger.jacobian_products += jacobian.products * len(x)
    return found


def _squares(values: Tensor) -> Tensor:
    return values.square().sum(1)
