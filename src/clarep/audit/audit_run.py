"""From a teacher and labelled images to a finished audit: by parts, so that a kill costs one."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clarep.audit.audit import ERRORS, MANIFEST, MASKS, TARGETS, Audit
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_parts import AuditParts
from clarep.audit.object_masks import NothingLearnt
from clarep.audit.questions import Questions
from clarep.audit.shown_images import store_shown
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import Progressed, read_json, sha256_file, versions, write_json
from clarep.engine.identity import in_full, plain, refuse_other
from clarep.engine.lock import hold
from clarep.engine.progress import announce
from clarep.engine.tensors import save_tensors
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher

Chosen = NDArray[np.int64] | Sequence[int] | None
_FORMAT = 1


def audit(
    teacher: Teacher,
    data: LabelledImages,
    folder: Path | str,
    config: AuditConfig | None = None,
    chosen: Chosen = None,
) -> Audit:
    """Ask a teacher about images, into a folder, with a progress bar; return what it said.

    A folder that holds a part of the same audit is gone on with, and ends with the same bytes.

    >>> import clarep, tempfile
    >>> data = clarep.load_data(clarep.DataConfig(data="backdrops", correlation=0.9))
    >>> teacher = clarep.load_teacher("backdrops-biased")
    >>> config = clarep.AuditConfig(draws=1, mask_draws=0, target_share=0.0)
    >>> clarep.audit(teacher, data, tempfile.mkdtemp(), config, [0, 1, 2]).doubts.shape
    torch.Size([3])

    Args:
        teacher: of the data's classes.
        data: where the images come from.
        folder: of the audit.
        config: what is asked.
        chosen: indices of the images; all without any.

    Raises:
        UserError: for a setting out of its bounds, a noise level that the teacher does not know,
            an image or label that does not fit it, a teacher of one class or of others than the
            data's, and a folder that holds an audit of another configuration.
    """
    from clarep.engine.progress import progress

    steps = audit_steps(teacher, data, folder, config, chosen)
    start = next(steps)
    with progress("audit", "denoisings", start.total, start.done) as advance:
        for step in steps:
            advance(step.new)
    return Audit.load(folder)


def audit_steps(
    teacher: Teacher,
    data: LabelledImages,
    folder: Path | str,
    config: AuditConfig | None = None,
    chosen: Chosen = None,
    *,
    described: Mapping[str, Any] | None = None,
) -> Iterator[Progressed]:
    """Do as `audit`, yielding at the start and after each part; what is counted are denoisings.

    The audit is told by the content of its images, labels and teacher, wherever these were found.

    described: what the caller knows of teacher and data; it enters the manifest's configuration.
        JSON values.
    """
    config = AuditConfig() if config is None else config
    asked, folder = Questions.of(teacher, data, config, chosen), Path(folder)
    told = plain({**(described or {}), **asked.described()})
    _lock = hold(folder)
    stored = _stored(folder)
    if stored:
        refuse_other(folder, "an audit", *map(_in_full, (stored.get("config", {}), told)))
    stages = error_stage, map_stage, target_stage = asked.stages()
    parts = AuditParts(folder, asked.described(), stages)
    if _is_whole(folder, {ERRORS: 1, MASKS: map_stage.images, TARGETS: target_stage.images}):
        parts.remove()  # of a run that was killed at its very end
        store_shown(Audit.load(folder), asked.data)
        yield Progressed(parts.total, 0, parts.total)
        return
    manifest = {"format": _FORMAT, "config": told}
    write_json(folder / MANIFEST, manifest, sealed=True)
    yield parts.progress()

    found = yield from parts.walk(error_stage, np.arange(len(asked.index)), asked.errors)
    tensors = {ERRORS: found | {"errors": found["errors"].movedim(0, 2)}}
    if map_stage.images:
        said = Audit(folder, manifest, **tensors[ERRORS], masks=None, targets=None)
        rows = np.flatnonzero(said.doubted().numpy())
        maps = yield from parts.walk(map_stage, rows, partial(asked.maps, said=said))
        announce(f"learning object masks from {len(rows)} doubted images")
        learnt, manifest["masks"] = _learnt(asked, said, maps["evidence"])
        tensors |= {} if learnt is None else {MASKS: {"masks": learnt}}
    if target_stage.images:
        tensors[TARGETS] = yield from parts.walk(target_stage, asked.target_rows, asked.targets)
    for name, content in tensors.items():
        save_tensors(folder / name, content)
    manifest |= {"files": {name: sha256_file(folder / name) for name in tensors}}
    manifest |= {"versions": versions(), "cost": parts.cost()}
    write_json(folder / MANIFEST, manifest, sealed=True)
    store_shown(Audit.load(folder), asked.data)
    parts.remove()


def _learnt(
    asked: Questions, said: Audit, evidence: Tensor
) -> tuple[Tensor | None, dict[str, Any]]:
    """Return object masks, and what the manifest says of them or of why there are none."""
    started = time.perf_counter()
    try:
        learnt = asked.masks(said, evidence)
    except NothingLearnt as error:  # what else the audit tells does not rest on masks
        announce("no object masks could be learnt: manifest.json says why")
        return None, {"refused": str(error)}
    seconds = round(time.perf_counter() - started, 3)
    return learnt.masks, learnt.as_dict() | {"seconds": seconds}


def _stored(folder: Path) -> dict[str, Any]:
    """Return the manifest that lies in a folder; empty where there is none that can be read."""
    try:
        return read_json(folder / MANIFEST)
    except (OSError, ValueError):  # what parts follow from stands in them too
        return {}


def _in_full(config: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest's configuration with the defaults that it leaves out."""
    if "audit" not in config:  # of something else
        return config
    return config | {"audit": in_full(AuditConfig, config["audit"])}


def _is_whole(folder: Path, images: Mapping[str, int]) -> bool:
    """Say whether all that was asked for is there, by file; masks may have been refused."""
    try:
        found = Audit.load(folder).manifest
    except UserError:  # not finished, or damaged: it is made again
        return False
    given_up = {MASKS} if "refused" in found.get("masks", {}) else set()
    return {name for name, count in images.items() if count} == {*found["files"], *given_up}
