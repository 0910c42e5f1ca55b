"""The pictures of an identified set as PNG: a row an image, and the spectrum."""

from pathlib import Path

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clareps import draw_rows
from clarep.clarid.set_pictures import ROWS, picture_columns, read_pictures
from clarep.engine.figure_style import save_figure
from clarep.geometry.spectrum_figure import spectrum_figure


def draw_set(canonical: CanonicalSet, folder: Path) -> dict[str, Path]:
    """Write canonical.png and spectrum.png into `folder`; return name -> path.

    The rows are ten stored images, evenly from the classes, of each the first ones (of more than
    ten classes, one of each of the first ten): no image is picked by its looks.
    """
    pictures, config = read_pictures(canonical), canonical.manifest["config"]
    kind, guidance = (canonical.setting[name] for name in ("kind", "guidance"))
    directions = "no directions" if kind == "none" else f"{kind} k = {config['num_dirs']}"
    setting = f"sigma {config['sigma_te']:.3g}, tap {config['tap']}, {directions}"
    title = f"{_without_folders(pictures.data_name)}\n{setting}, guidance {guidance:g}"
    columns = picture_columns(canonical.balanced(ROWS), pictures)
    drawn = {"picture": draw_rows(columns, pictures.classes, title)}
    if kind == "top":  # other directions have no place on the spectrum's left
        values = canonical.singular_values
        drawn["spectrum"] = spectrum_figure(values, pictures.spectrum, width=5.0)
    names = {"picture": "canonical.png", "spectrum": "spectrum.png"}
    for name, figure in drawn.items():
        save_figure(figure, folder / names[name])
    return {name: folder / names[name] for name in drawn}


def _without_folders(name: str) -> str:
    """Return a set's name; of a path its last two parts, and no file that lists classes."""
    path = Path(name)
    path = path.parent if path.suffix == ".txt" else path
    return "/".join(path.parts[-2:]) if path.exists() else str(path)
