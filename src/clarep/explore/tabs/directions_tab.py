"""Directions: a walk along one of them, on this image and on others; the first as a sheet."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import gradio as gr
import torch
from markupsafe import Markup

from clarep.explore import pictures
from clarep.explore.explorer import REACH, Chosen, Setting
from clarep.explore.page import AT_ONCE, ONE_AT_A_TIME, Page, told
from clarep.report.html.svg import tag

_STEPS = tuple(REACH * i / 6 for i in range(-6, 7))
_OTHERS = 4  # images
_SHEET = 32  # directions


def build(page: Page) -> None:
    """Add the tab."""
    count = min(_SHEET, page.explorer.most)
    with gr.Tab("Directions", id="directions") as tab:
        number, at, along = _walk_part(count)
        draw, stop, sheet = _sheet_part(count)
    given = [page.chosen, number, at, *page.controls]
    walking: dict[str, Any] = {
        "fn": told(partial(_walk, page)),
        "inputs": given,
        "outputs": along,
        "trigger_mode": "always_last",
        **ONE_AT_A_TIME,
    }
    scrubbing = {"trigger_mode": "always_last", **ONE_AT_A_TIME}
    events = [tab.select(**walking), number.release(**walking)]
    at.input(told(partial(_scrub, page)), given, along[0], **scrubbing)
    first = told(partial(_first, page, count))
    drawing = draw.click(first, [page.chosen, *page.controls], sheet, **ONE_AT_A_TIME)
    sheet.click(_number, None, number, **AT_ONCE).then(**walking)
    stop.click(lambda: None, cancels=[*events, drawing], **AT_ONCE)


def _walk_part(count: int) -> tuple[gr.Slider, gr.Slider, list[gr.HTML]]:
    """Lay out the walk along a direction; what is shown is the image, its strip, others'."""
    gr.Markdown(
        "The image of *Canonical*, moved along one of its directions, in units of the noise "
        "level at t: as far as noise alone spreads latents. What changes is what the "
        "direction holds; the class should stay."
    )
    with gr.Row():
        number = gr.Slider(
            1, count, 1, step=1, label="direction, the strongest first", elem_id="number",
            buttons=[],
        )  # fmt: skip
        at = gr.Slider(
            -REACH, REACH, REACH, step=REACH / 6, label="how far along it, in noise levels",
            elem_id="scrub", buttons=[],
        )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=1, min_width=200):
            scrubbed = gr.HTML(elem_id="scrubbed")
        with gr.Column(scale=3, min_width=320):
            strip = gr.HTML(pictures.waiting("loading"), elem_id="strip")
    return number, at, [scrubbed, strip, gr.HTML(elem_id="others")]


def _sheet_part(count: int) -> tuple[gr.Button, gr.Button, gr.HTML]:
    with gr.Row():
        draw = gr.Button(f"The first {count} directions as a sheet", elem_id="draw-sheet")
        stop = gr.Button("Stop", scale=0, min_width=90)
    return draw, stop, gr.HTML(js_on_load=pictures.PICKED, elem_id="sheet")


def _walk(
    page: Page, chosen: Chosen | str, j: int, at: float, *values: Any
) -> Iterator[tuple[Any, ...]]:
    if isinstance(chosen, str):
        yield "", pictures.waiting(chosen), ""
        return
    setting = page.setting(*values)
    yield gr.skip(), pictures.waiting("finding the directions and walking …"), ""
    frames = page.explorer.walk(chosen, setting, chosen, int(j) - 1, _STEPS)
    shown = [(pictures.at(_STEPS[i]), frames[i]) for i in range(0, len(_STEPS), 2)]
    drawn = pictures.row(shown, "strip")
    yield _at(frames, at), drawn, pictures.waiting("the same direction on other images …")
    yield _at(frames, at), drawn, _on_others(page, chosen, setting, int(j) - 1)


def _scrub(page: Page, chosen: Chosen | str, j: int, at: float, *values: Any) -> Markup:
    if isinstance(chosen, str):
        return pictures.waiting(chosen)
    setting = page.setting(*values)
    return _at(page.explorer.walk(chosen, setting, chosen, int(j) - 1, _STEPS), at)


def _first(page: Page, count: int, chosen: Chosen | str, *values: Any) -> Iterator[Markup]:
    if isinstance(chosen, str):
        yield pictures.waiting(chosen)
        return
    setting, found = page.setting(*values), dict[int, pictures.Shown]()
    for j in range(count):
        ends = page.explorer.walk(chosen, setting, chosen, j, (-REACH, REACH))
        found[j + 1] = (
            f"{j + 1}: {pictures.at(-REACH)}, {pictures.at(REACH)}",
            torch.cat([*ends], dim=2),
        )
        if j % 4 == 3 or j == count - 1:
            bar = pictures.computing(f"walked along {j + 1} of {count}", j + 1, count)
            yield pictures.gallery(found, css="wide") + (bar if j < count - 1 else Markup())


def _number(event: gr.EventData) -> int:
    return int(event.i)


def _at(frames: torch.Tensor, at: float) -> Markup:
    nearest = min(range(len(_STEPS)), key=lambda i: abs(_STEPS[i] - at))
    return pictures.row([(pictures.at(_STEPS[nearest]), frames[nearest])], "large")


def _on_others(page: Page, chosen: Chosen, setting: Setting, number: int) -> Markup:
    """Return an image of this class and of some others, moved along the same direction."""
    labels = list(dict.fromkeys([chosen.label, *range(page.explorer.teacher.num_classes)]))
    apart = [[i for i in page.explorer.of_class(c, 2) if i != chosen.index] for c in labels]
    rows = [tag("h3", "", "The same direction on other images")]
    for members in list(filter(None, apart))[:_OTHERS]:
        other = page.explorer.chosen(members[0])
        steps = (-REACH, -REACH / 2, 0.0, REACH / 2, REACH)
        frames = page.explorer.walk(other, setting, chosen, number, steps)
        name = page.class_name(other)
        shown = [(f"{name}, {pictures.at(at)}", one) for at, one in zip(steps, frames, strict=True)]
        rows.append(pictures.row(shown, "strip"))
    return Markup().join(rows)
