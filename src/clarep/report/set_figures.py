"""The two figures of an identified set: a row an image, and the spectrum."""

from pathlib import Path

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid
from clarep.data.labelled import LabelledImages, to_unit_range
from clarep.geometry.dense import exact_spectrum
from clarep.report.canonical_figure import canonical_picture, save_figure, spectrum_figure
from clarep.select.controls import control_of

_ROWS = 10
_LARGEST_DENSE = 2**25  # entries of a Jacobian that is formed for a picture


def draw_identified(
    clarid: Clarid, data: LabelledImages, canonical: CanonicalSet, folder: Path
) -> dict[str, Path]:
    """Write canonical.png and spectrum.png into `folder`; return name -> path.

    The rows are ten stored images, evenly from the classes, of each the first ones (of more than
    ten classes, one of each of the first ten): no image is picked by its looks.
    """
    shown = canonical.balanced(_ROWS)
    indices, labels = shown.tensors["index"].numpy(), shown.tensors["label"]
    x_te, latents = shown.tensors["x_te"], shown.tensors["latent"]
    columns = [
        to_unit_range(data.images(indices)),
        control_of(clarid, "reconstruction").sample(x_te, labels),
        control_of(clarid, "none").sample(x_te, labels),
        shown.tensors["sample"],
        x_te - latents,
    ]
    config = clarid.config
    removed = "no directions" if config.kind == "none" else f"{config.kind} k = {clarid.num_dirs}"
    title = (
        f"{data.name}\nsigma {clarid.sigma_te:.3g}, tap {clarid.tap}, {removed}, "
        f"guidance {config.guidance:g}"
    )
    names = [data.class_names[int(label)] for label in labels]
    paths = {"picture": folder / "canonical.png"}
    save_figure(canonical_picture(columns, names, title), paths["picture"])
    values = canonical.tensors["singular_values"]
    if config.kind == "top":  # other directions have no place on the spectrum's left
        paths["spectrum"] = folder / "spectrum.png"
        # One exact spectrum, so that the reader sees what lies beyond k.
        jacobian = clarid.jacobian(x_te[:1], labels[:1])
        small = jacobian.m * jacobian.n <= _LARGEST_DENSE
        exact = exact_spectrum(jacobian.dense()[0].cpu()) if small else None
        save_figure(spectrum_figure(values, values.shape[1], exact), paths["spectrum"])
    return paths
