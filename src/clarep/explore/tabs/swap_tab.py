"""Swap: the extraneous part of one image with the class of another."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from markupsafe import Markup

from clarep.explore import pictures
from clarep.explore.explorer import Chosen
from clarep.explore.page import AT_ONCE, ONE_AT_A_TIME, Page, told

_SHOWN = 12  # images of a class to choose from


def build(page: Page) -> None:
    """Add the tab."""
    explorer = page.explorer
    names = list(explorer.teacher.class_names)
    of = names[1 % len(names)]
    members = explorer.of_class(1 % len(names), _SHOWN) or [0]
    with gr.Tab("Swap", id="swap") as tab:
        donor = gr.State(explorer.chosen(members[0]))
        gr.Markdown(
            "What lies along the k directions of one latent is replaced by what another image has "
            "there. A direction that is no matter of the class brings the donor's scene along and "
            "leaves the class."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                of_class = gr.Dropdown(names, value=of, label="Donors of the class")
                donors = gr.HTML(
                    _donors(page, of, members[0]), js_on_load=pictures.PICKED, elem_id="donors"
                )
            with gr.Column(scale=2, min_width=320):
                swapped = gr.HTML(pictures.waiting("loading"), elem_id="swapped")

    def swap(chosen: Chosen | str, donor: Chosen, *values: Any) -> Iterator[Markup]:
        if isinstance(chosen, str):
            yield pictures.waiting(chosen)
            return
        setting = page.setting(*values)
        first, second = (f"{page.class_name(one)}, {one.name}" for one in (chosen, donor))
        shown = [(f"image: {first}", chosen.pixels), (f"donor: {second}", donor.pixels)]
        yield pictures.row(shown, "two") + pictures.waiting("swapping …")
        if setting.k == 0:
            raise gr.Error("k is 0: there is nothing to swap", print_exception=False)
        for a, b in ((chosen, donor), (donor, chosen)):
            words = f"class of the {page.class_name(a)}, rest of the {page.class_name(b)}"
            shown.append((words, explorer.swapped(a, b, setting)))
        yield pictures.row(shown, "two")

    def pick(event: gr.EventData, of: str) -> tuple[Chosen, Markup]:
        return explorer.chosen(event.i), _donors(page, of, event.i)

    swapping: dict[str, Any] = {
        "fn": told(swap),
        "inputs": [page.chosen, donor, *page.controls],
        "outputs": swapped,
        "trigger_mode": "always_last",
        **ONE_AT_A_TIME,
    }
    tab.select(**swapping)
    donors.click(told(pick), of_class, [donor, donors], **AT_ONCE).then(**swapping)
    of_class.input(lambda of: _donors(page, of, None), of_class, donors, **AT_ONCE)


def _donors(page: Page, of: str, picked: int | None) -> Markup:
    label = page.explorer.teacher.class_names.index(of)
    indices = page.explorer.of_class(label, _SHOWN)
    return pictures.gallery(
        {i: (f"{of} {i}", page.explorer.data.images([i])[0]) for i in indices}, picked
    )
