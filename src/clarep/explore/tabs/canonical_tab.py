"""Canonical: one image, what is taken out of it, and what is left."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from clarep.errors import UserError
from clarep.explore import pictures
from clarep.explore.copied import as_command, as_python
from clarep.explore.explorer import KINDS, Chosen, Evidence, Setting
from clarep.explore.page import AT_ONCE, ONE_AT_A_TIME, Page, told
from clarep.report.html.svg import tag

_SHOWN = 12  # images of a class to choose from
_NO_PHOTO = "No image is chosen: choose one of the class, or another photograph."
_COLUMNS = {
    "original": "as it is given",
    "reconstruction": "inverted and decoded",
    "guidance alone": "decoded with guidance, nothing taken out",
    "canonical": "decoded without its extraneous part",
    "what was removed": "from the latent, on grey",
}


def build(page: Page, blocks: gr.Blocks) -> None:
    """Add the tab, and the state that all tabs share."""
    explorer = page.explorer
    first = explorer.chosen(explorer.of_class(0, 1)[0] if explorer.of_class(0, 1) else 0)
    with gr.Tab("Canonical", id="canonical"), gr.Row():
        page.chosen = gr.State(first)  # within the tab: gradio takes a child of Tabs for one
        with gr.Column(scale=1, min_width=320):
            of_class, images, photo, as_class = _choice(page, first)
        with gr.Column(scale=2, min_width=320):
            shown = gr.HTML(pictures.waiting("loading"), elem_id="canonical-pictures")
            slider, stop = _knobs(page)
            outputs = [shown, *_answers()]
    t, k, guidance, tap, kind = page.controls

    def pick(event: gr.EventData, of: str) -> tuple[Any, ...]:
        chosen = explorer.chosen(event.i)
        return chosen, page.class_name(chosen), _images(page, of, chosen)

    page.show = {
        "fn": told(partial(_show, page)),
        "inputs": [page.chosen, *page.controls],
        "outputs": outputs,
        "trigger_mode": "always_last",
        **ONE_AT_A_TIME,
    }
    events = [
        blocks.load(**page.show),
        images.click(told(pick), of_class, [page.chosen, as_class, images], **AT_ONCE).then(
            **page.show
        ),
        photo.upload(
            partial(_put, page), [photo, as_class, of_class], [page.chosen, images], **AT_ONCE
        ).success(**page.show),
        photo.clear(
            partial(_taken_away, page), [page.chosen, of_class], [page.chosen, images], **AT_ONCE
        ).then(**page.show),
        as_class.input(
            partial(_take_for, page), [page.chosen, as_class], page.chosen, **AT_ONCE
        ).then(**page.show),
        *(knob.release(**page.show) for knob in (t, guidance)),
        slider.input(lambda at: page.stops[at], slider, k, **AT_ONCE).then(**page.show),
        k.submit(**page.show),
        k.blur(**page.show),
        *(menu.input(**page.show) for menu in (tap, kind)),
    ]
    k.change(lambda k: page.place_of(k or 0), k, slider, **AT_ONCE)
    of_class.input(
        lambda of, chosen: _images(page, of, chosen), [of_class, page.chosen], images, **AT_ONCE
    )
    stop.click(lambda: None, cancels=events, **AT_ONCE)


def _choice(page: Page, first: Chosen) -> tuple[gr.Dropdown, gr.HTML, gr.File, gr.Dropdown]:
    """Add what chooses an image: of which class, the images, a photograph, and its class."""
    names, own = list(page.explorer.teacher.class_names), page.class_name(first)
    of_class = gr.Dropdown(names, value=own, label="Images of the class")
    images = gr.HTML(_images(page, own, first), js_on_load=pictures.PICKED, elem_id="images")
    label = "or a photograph of your own"
    photo = gr.File(label=label, file_types=["image"], height=150, elem_id="photo")
    as_class = gr.Dropdown(names, value=own, label="Taken for the class")
    return of_class, images, photo, as_class


def _knobs(page: Page) -> tuple[gr.Slider, gr.Button]:
    """Add the page's controls; return the slider of k, which is none of them, and the stop."""
    explorer, start = page.explorer, page.explorer.start
    with gr.Row():
        t = gr.Slider(
            0.05, 0.98, start.t, step=0.01, label="t: noise level", elem_id="t", buttons=[]
        )
        guidance = gr.Slider(
            1, 8, start.guidance, step=0.25, label="guidance", elem_id="guidance",
            buttons=[], interactive=explorer.teacher.has_null,
        )  # fmt: skip
    with gr.Row():
        slider = gr.Slider(
            0, len(page.stops) - 1, page.place_of(start.k), step=1,
            label="k: directions out, log scale", elem_id="k", buttons=[],
        )  # fmt: skip
        k = gr.Number(
            start.k, label=f"k, of {explorer.teacher.latent_dim}", precision=0, minimum=0,
            maximum=explorer.most, elem_id="k-number", min_width=130, scale=0,
        )  # fmt: skip
    with gr.Row():
        taps = list(explorer.teacher.taps())
        tap = gr.Dropdown(taps, value=start.tap, label="tap: the layer that is asked")
        kind = gr.Dropdown(list(KINDS), value=start.kind, label="kind of directions")
        stop = gr.Button("Stop", elem_id="stop", scale=0, min_width=90)
    page.controls = [t, k, guidance, tap, kind]
    return slider, stop


def _answers() -> tuple[gr.HTML, gr.HTML, gr.Code, gr.Code]:
    """Add what is told beneath: facts, spectrum, the command and the Python of it."""
    with gr.Row():
        with gr.Column(min_width=280):
            facts = gr.HTML(elem_id="facts")
        with gr.Column(min_width=280):
            spectrum = gr.HTML(elem_id="spectrum")
    with gr.Accordion("Copy as command or as Python", open=False):
        command = gr.Code(label="command", language="shell", interactive=False, lines=1,
                          elem_id="command", wrap_lines=True)  # fmt: skip
        python = gr.Code(label="Python", language="python", interactive=False, lines=4,
                         elem_id="python", wrap_lines=True)  # fmt: skip
    return facts, spectrum, command, python


def _show(page: Page, chosen: Chosen | str, *values: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(chosen, str):
        yield pictures.waiting(chosen), "", "", "", ""
        return
    setting = page.setting(*values)
    copied = _copied(page, chosen, setting)
    for found, evidence, words in _steps(page, chosen, setting):
        values_of, drawn = "", ""
        if "canonical" in found:
            values_of = _facts(page, chosen, setting, evidence)
            drawn = _spectrum(page, chosen, setting)
        yield _pictures(found, words), values_of, drawn, *copied


def _put(page: Page, path: str, name: str, of: str) -> tuple[Chosen | str, Markup]:
    label = page.explorer.teacher.class_names.index(name)
    try:
        chosen: Chosen | str = page.explorer.uploaded(Path(path), label)
    except UserError as mistake:
        chosen = f"{mistake}. Choose an image, or another photograph.".replace("`", "")
    return chosen, _images(page, of, chosen)


def _taken_away(page: Page, chosen: Chosen | str, of: str) -> tuple[Chosen | str, Markup]:
    if isinstance(chosen, str) or chosen.index is None:  # else it is not the photograph
        chosen = _NO_PHOTO
    return chosen, _images(page, of, chosen)


def _take_for(page: Page, chosen: Chosen | str, name: str) -> Chosen | str:
    if isinstance(chosen, str):
        return chosen
    return replace(chosen, label=page.explorer.teacher.class_names.index(name))


def _images(page: Page, of: str, chosen: Chosen | str) -> Markup:
    label = page.explorer.teacher.class_names.index(of)
    found = {
        i: (f"{of} {i}", page.explorer.data.images([i])[0])
        for i in page.explorer.of_class(label, _SHOWN)
    }
    return pictures.gallery(found, None if isinstance(chosen, str) else chosen.index)


def _steps(
    page: Page, chosen: Chosen, setting: Setting
) -> Iterator[tuple[dict[str, Any], Evidence | None, str]]:
    """Yield all pictures so far, at the end the evidence, and what is done next, in words."""
    explorer, found = page.explorer, {"original": chosen.pixels}
    yield found, None, "inverting the image to the noise level, and back"
    found["reconstruction"] = explorer.reconstruction(chosen, setting)
    yield found, None, "decoding with guidance"
    found["guidance alone"] = explorer.guided(chosen, setting)
    yield found, None, "finding the directions, and decoding without them"
    found["canonical"] = explorer.canonical(chosen, setting)
    found["what was removed"] = explorer.removed(chosen, setting)
    yield found, None, "asking the teacher what is left of the class"
    yield found, explorer.evidence(chosen, setting), ""


def _pictures(found: dict[str, Any], words: str) -> Markup:
    """Return the pictures in their order, those to come as blanks, and what is being done."""
    cells = [
        tag(
            "figure",
            "" if name in found else "blank",
            pictures.image(found[name], name) if name in found else tag("div", "no-image"),
            tag("figcaption", "", tag("b", "", name), tag("small", "", meaning)),
        )
        for name, meaning in _COLUMNS.items()
    ]
    drawn = tag("div", "pictures five", *cells)
    return drawn + pictures.computing(words, len(found), len(_COLUMNS) + 1) if words else drawn


def _facts(page: Page, chosen: Chosen, setting: Setting, evidence: Evidence | None) -> Markup:
    x_te, trip = page.explorer.inverted(chosen, setting)
    left = page.explorer.latent(chosen, setting)
    share = 1 - float(left.double().square().sum() / x_te.double().square().sum())
    facts = {
        "image": f"{chosen.name}, taken for {page.class_name(chosen)}",
        "round trip": f"{trip:.1f} dB: how well the image comes back",
        "taken out": f"{share:.1%} of the latent's energy",
    }
    if evidence is None:
        several = page.explorer.teacher.num_classes > 1
        facts["class evidence"] = "asking …" if several else "needs a teacher of two classes"
    else:
        before, after = evidence.nats
        facts["class evidence"] = f"{before:+.2f} nats before, {after:+.2f} after: 0 is chance"
        if evidence.null_right is not None:
            said = ["right" if right else "wrong" for right in evidence.null_right]
            facts["judge of it, decoded under no class"] = f"{said[0]} before, {said[1]} after"
    parts = [
        part for name, of in facts.items() for part in (tag("dt", "", name), tag("dd", "", of))
    ]
    return tag("dl", "facts", *parts)


def _spectrum(page: Page, chosen: Chosen, setting: Setting) -> Markup:
    if setting.k == 0:
        return pictures.waiting("no direction is taken out")
    return pictures.spectrum(page.explorer.basis(chosen, setting)[1], setting.k)


def _copied(page: Page, chosen: Chosen, setting: Setting) -> tuple[str, str]:
    given, name = page.given.at(setting), page.class_name(chosen)
    own = chosen.index is not None and int(page.explorer.data.labels[chosen.index]) == chosen.label
    return as_command(given, chosen, name, own), as_python(given, chosen, name)
