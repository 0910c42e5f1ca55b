"""An audit: its files, and what they say of the same images."""

from collections.abc import Iterator
from pathlib import Path

from clarep.audit.audit import ERRORS, MANIFEST, MASKS, TARGETS, Audit
from clarep.data.labelled import LabelledImages
from clarep.engine.artefacts import read_json
from clarep.errors import UserError
from clarep.report.verify.faults import Fault, not_finite

AUDIT = (MANIFEST, ERRORS, MASKS, TARGETS)


def is_audit(folder: Path) -> bool:
    """Tell whether an audit lies in a folder."""
    if (folder / ERRORS).is_file():
        return True
    try:
        return "audit" in read_json(folder / MANIFEST)["config"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def audit_faults(folder: Path, data: LabelledImages | None = None) -> Iterator[Fault]:
    """Yield all that is wrong with an audit. data: that it is said to be of."""
    again, path = "run the same command again", str(folder / MANIFEST)
    made = tuple(folder / name for name in (ERRORS, MASKS, TARGETS))
    try:
        found = Audit.load(folder)
    except UserError as error:
        yield Fault(path, str(error), tuple(file for file in made if file.exists()))
        return
    images = len(found.index)
    if len(found.labels) != images or found.errors.shape[2] != images:
        yield Fault(path, f"its files are of different images: {again}", made)
        return
    if len(found.index.unique()) != images:
        yield Fault(path, f"images are in it twice: {again}", made)
    if not_finite({"errors": found.errors}) or bool((found.errors < 0).any()):
        yield Fault(path, "its errors are not finite and at least 0: look at its teacher")
    if int(found.labels.max()) >= len(found.class_names) or int(found.labels.min()) < 0:
        yield Fault(path, f"its labels are not those of its classes: {again}", made)
    told = found.manifest["config"].get("data_sha256")
    if data is not None and told is not None:
        inside = int(found.index.max()) < len(data)
        if not inside or data.sha256(found.index.numpy()) != told:
            yield Fault(path, f"it is of other images or labels than {data.name}")
