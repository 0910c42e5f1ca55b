"""Students: two runs side by side, where they disagree, and what a swap does to each."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from markupsafe import Markup

from clarep.explore import pictures
from clarep.explore.explorer import Chosen
from clarep.explore.page import ONE_AT_A_TIME, Page, told
from clarep.explore.student_pair import WHERES, StudentPair
from clarep.report.html.svg import tag

_MOST = 60  # images in the gallery
_SALIENCY = (
    "Bright: where a small change of the pixel changes the answer most, by the magnitude of the "
    "input gradient."
)
_NONE = (
    "No students are open. `clarep distill` trains one, and `clarep explore --students RUN RUN` "
    "opens two side by side."
)


def build(page: Page) -> None:
    """Add the tab."""
    with gr.Tab("Students", id="students") as tab:
        pair = page.pair
        if pair is None:
            gr.Markdown(_NONE)
            return
        gr.Markdown(_about(pair))
        first, second = pair.names
        choices = [f"only {first} is right", f"only {second} is right", WHERES[2]]
        where = gr.Radio(
            list(zip(choices, WHERES, strict=True)),
            value=WHERES[0],
            label="Images on which",
            elem_id="where",
        )
        images = gr.HTML(js_on_load=pictures.PICKED, elem_id="disagreements")
        seen = gr.HTML(elem_id="seen")

    def listed(where: Any) -> Markup:
        found = pair.disagreements(where)
        if not found:
            return pictures.waiting("there is no such image among those that were tried")
        names = pair.data.class_names
        shown = {i: (names[pair.data.labels[i]], pair.data.images([i])[0]) for i in found[:_MOST]}
        return pictures.gallery(shown)

    def look(event: gr.EventData, *values: Any) -> Iterator[Markup]:
        index = int(event.i)
        label = int(pair.data.labels[index])
        image = pair.data.images([index])[0]
        truth = f"a {pair.data.class_names[label]}"
        drawn = _asked(pair, image, label, truth) + pictures.waiting(_SALIENCY)
        yield drawn + pictures.waiting("swapping its extraneous part …")
        donor, swapped = pair.swap(page.explorer, page.setting(*values), index)
        of = f"{truth} with the extraneous part of {_a(page, donor)}"
        beside = pictures.row([("donor", donor.pixels)], "strip")
        yield drawn + tag("h3", "", "After a swap") + beside + _asked(pair, swapped, label, of)

    tab.select(told(listed), where, images, **ONE_AT_A_TIME)
    where.input(told(listed), where, images, **ONE_AT_A_TIME)
    images.click(told(look), page.controls, seen, **ONE_AT_A_TIME)


def _about(pair: StudentPair) -> str:
    shares = [f"`{n}` {a:.3f}" for n, a in zip(pair.names, pair.accuracies, strict=True)]
    return f"Right on {len(pair.indices)} test images of {pair.data.name}: {', '.join(shares)}."


def _a(page: Page, chosen: Chosen) -> str:
    return f"a {page.class_name(chosen)}"


def _asked(pair: StudentPair, image: Any, label: int, what: str) -> Markup:
    """Return an image as both students see it, with the saliency of their answers."""
    sides = []
    for name, answer in zip(pair.names, pair.answers(image, label), strict=True):
        verdict = "right" if answer.right else "wrong"
        shown = [(what, image), (f"says {answer.said}: {verdict}", answer.saliency)]
        sides.append(tag("div", "", tag("h3", "", name), pictures.row(shown, "large")))
    return tag("div", "pair", *sides)
