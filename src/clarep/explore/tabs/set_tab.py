"""Set: a canonical set, sorted and filtered, its features before and after."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr
import numpy as np
import torch
from markupsafe import Markup

from clarep.clarid.clarid_config import FIXED_T
from clarep.clarid.identify import identify_steps
from clarep.errors import UserError
from clarep.explore import pictures
from clarep.explore.catalogue import EVIDENCE, MAPS, SORTS, Catalogue
from clarep.explore.explorer import KINDS
from clarep.explore.page import AT_ONCE, ONE_AT_A_TIME, Page, told
from clarep.report.html.svg import tag

_EACH = 3  # images a class of a set that is made here
_MOST = 120  # images in the gallery
_ALL = "all classes"
_MAKE = "Make a small set"
_SMALL: dict[str, Any] = {"scale": 0, "min_width": 260}
_WALKED = ("steps", "solver", "inversion", "branch", "inversion_label")
_ORDERS = ("highest first", "lowest first")
_NONE = (
    "No canonical set is open. `clarep identify` makes one, and `clarep explore --canon FOLDER` "
    f"opens it; or make a small one here, of {_EACH} images a class, with the sliders' setting."
)


def build(page: Page) -> None:
    """Add the tab; a set that cannot be opened ends the command."""
    opened = [] if page.canon is None else [Catalogue(page.explorer, page.canon)]
    names = list(page.explorer.teacher.class_names)
    with gr.Tab("Set", id="set") as tab:
        about = gr.Markdown(_about(opened))
        with gr.Row():
            make = gr.Button(_MAKE, visible=not opened, elem_id="make", **_SMALL)
        with gr.Row():
            of_class = gr.Dropdown([_ALL, *names], value=_ALL, label="Show")
            by = gr.Dropdown(list(SORTS), value=next(iter(SORTS)), label="Sort by")
            order = gr.Radio(
                ["highest first", "lowest first"], value="highest first", label="Order"
            )
        images = gr.HTML(js_on_load=pictures.PICKED, elem_id="set-images")
        looked_at = gr.State(None)
        with gr.Row():
            with gr.Column(min_width=300):
                closer = gr.HTML(elem_id="closer")
            open_it = gr.Button("Open in Canonical", interactive=False, elem_id="open-it", **_SMALL)
        maps = _map_part(opened)

    def show(of: str, by: str, order: str) -> Iterator[Any]:
        if not opened:
            yield ""
            return
        if by == EVIDENCE:
            for share in opened[-1].ask_evidence():
                yield pictures.computing(f"asking the teacher, {share:.0%} done", share, 1.0)
        yield _gallery(opened[-1], of, names, by, order == _ORDERS[0])

    def look(event: gr.EventData) -> tuple[Any, ...]:
        return event.i, _closer(opened[-1], event.i), gr.Button(interactive=True)

    def open_row(row: int) -> tuple[Any, ...]:
        return *_as_chosen(page, opened[-1], row), gr.Tabs(selected="canonical")

    shown: dict[str, Any] = {"fn": told(show), "inputs": [of_class, by, order], "outputs": images}
    tab.select(**shown, **ONE_AT_A_TIME)
    for menu in (of_class, by, order):
        menu.input(**shown, **ONE_AT_A_TIME)
    make.click(
        told(partial(_make_one, page, opened)),
        page.controls,
        [about, make, images],
        **ONE_AT_A_TIME,
    )
    for of in (images, maps):
        of.click(look, None, [looked_at, closer, open_it], **AT_ONCE)
    to = [page.chosen, *page.controls, page.tabs]
    open_it.click(told(open_row), looked_at, to, **AT_ONCE).success(**page.show)


def _make_one(page: Page, opened: list[Catalogue], *values: Any) -> Iterator[tuple[Any, ...]]:
    """Make a small set with the sliders' setting, and open it."""
    names = list(page.explorer.teacher.class_names)
    setting = page.setting(*values)
    clarid = page.given.at(setting).clarid_of(page.explorer.teacher)
    chosen = [i for label in range(len(names)) for i in page.explorer.of_class(label, _EACH)]
    folder = page.scratch / f"set-{len(list(page.scratch.iterdir()))}"
    steps = identify_steps(clarid, page.explorer.data, folder, chosen, shard_size=_EACH)
    for step in steps:
        words = f"{step.done} of {step.total} images done"
        yield gr.skip(), gr.skip(), pictures.computing(words, step.done, step.total)
    opened.append(Catalogue(page.explorer, folder))
    yield _about(opened), gr.Button("Make another"), _gallery(opened[-1], _ALL, names, "", True)


def _as_chosen(page: Page, catalogue: Catalogue, row: int) -> tuple[Any, ...]:
    """Return an image of a set and its setting, as the first tab takes them.

    Raises UserError for what that tab cannot show; says what of the setting it has otherwise.
    """
    index, setting = int(catalogue.canonical.index[row]), catalogue.clarid.config
    if not catalogue.has_originals or setting.kind not in KINDS or setting.sigma is not None:
        raise UserError(
            f"a set of kind {setting.kind} that was made of other images than the page's, or by "
            "sigma, cannot be opened there: open the page with the set's own data"
        )
    taken = catalogue.canonical.singular_values.shape[1]
    own = page.explorer.config
    if other := [name for name in _WALKED if getattr(setting, name) != getattr(own, name)]:
        gr.Info(f"the set was made with another {' and '.join(other)} than this page")
    t = FIXED_T if setting.t is None else setting.t
    values = (t, taken, setting.guidance, catalogue.clarid.tap, setting.kind)
    return page.explorer.chosen(index), *values


def _map_part(opened: list[Catalogue]) -> gr.HTML:
    """Add the features in the plane; return where they are drawn."""
    with gr.Row():
        method = gr.Radio(list(MAPS), value=MAPS[0], label="Features in the plane")
        lay_out = gr.Button("Lay out before and after", elem_id="lay-out", **_SMALL)
    maps = gr.HTML(js_on_load=pictures.PICKED, elem_id="maps")

    def draw(method: str) -> Iterator[Markup]:
        if not opened:
            raise gr.Error("no set is open", print_exception=False)
        yield pictures.waiting(f"laying out by {method} …")
        yield _maps(opened[-1], method)

    lay_out.click(told(draw), method, maps, **ONE_AT_A_TIME)
    return maps


def _about(opened: list[Catalogue]) -> str:
    return f"`{opened[-1].canonical!r}`" if opened else _NONE


def _gallery(catalogue: Catalogue, of: str, names: list[str], by: str, falling: bool) -> Markup:
    label = None if of == _ALL else names.index(of)
    rows = catalogue.order(label, by or next(iter(SORTS)), falling)
    values = catalogue.values(by) if SORTS.get(by) else None
    shown = {}
    for row in rows[:_MOST]:
        name = names[int(catalogue.canonical.label[row])]
        value = "" if values is None else f", {values[row]:.3g} {SORTS[by]}"
        shown[row] = (name + value, catalogue.samples[row])
    rest = f"{len(rows) - _MOST} more are not shown" if len(rows) > _MOST else ""
    return pictures.gallery(shown) + (pictures.waiting(rest) if rest else Markup())


def _closer(catalogue: Catalogue, row: int) -> Markup:
    one = catalogue.canonical[row]
    columns = {name: images[0] for name, images in one.columns().items()}
    if catalogue.has_originals:
        columns = {"original": catalogue.explorer.data.images(one.index)[0]} | columns
    name = one.class_names[int(one.label)]
    words = f"{name}, image {int(one.index)}, round trip {float(one.round_trip_psnr):.1f} dB"
    return pictures.row(columns.items(), "strip") + tag("p", "", words)


def _maps(catalogue: Catalogue, method: str) -> Markup:
    rows = catalogue.laid_out()
    labels = catalogue.canonical.label[rows].tolist()
    names = [catalogue.canonical.class_names[label] for label in labels]
    index = catalogue.canonical.index[torch.tensor(rows)]
    samples = catalogue.samples[torch.tensor(rows)]
    originals = catalogue.explorer.data.images(index) if catalogue.has_originals else samples
    drawn = []
    for title, places, images in zip(
        ("before: inverted latents", "after: canonical latents"),
        catalogue.places(method),
        (originals, samples),
        strict=True,
    ):
        shown = {row: (name, image) for row, name, image in zip(rows, names, images, strict=True)}
        drawn.append(pictures.map_of(f"{method}, {title}", np.asarray(places), labels, shown))
    words = "The features are taken given the class, so that they hold it in any case."
    colours = pictures.legend(dict(zip(labels, names, strict=True)))
    return tag("div", "maps", *drawn) + colours + pictures.waiting(words)
