"""The page: its frame, what its tabs share, and the server behind it."""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from clarep.errors import UserError
from clarep.explore.copied import Given
from clarep.explore.explorer import Chosen, Explorer, Setting
from clarep.explore.student_pair import StudentPair
from clarep.report.html.build import chart_style

MOST_UPLOADED = "10mb"
ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_id": "teacher",
    "concurrency_limit": 1,
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Of every event that asks the teacher: they wait for each other, and the page tells how far."""
AT_ONCE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of an event that computes nothing: it waits for none."""
_WHAT_THIS_IS = (
    "What does this model take for the class? An image is inverted to a noisy latent, the "
    "directions that the model's features react to most are taken out, and what is left is "
    "decoded under its class."
)


@dataclass
class Page:
    """What the tabs share; the components are made by the first of them."""

    explorer: Explorer
    given: Given
    canon: Path | None
    pair: StudentPair | None
    scratch: Path
    """Folder that is gone with the page."""
    stops: list[int] = field(init=False)
    tabs: Any = None
    chosen: Any = None
    """State: the image that all tabs are about, or in words why there is none."""
    controls: list[Any] = field(default_factory=list)
    """Sliders and menus whose values `setting` takes."""
    show: Any = None
    """Event arguments that draw the first tab anew."""

    def __post_init__(self) -> None:
        self.stops = self.explorer.stops()

    def setting(self, t: float, k: int | None, guidance: float, tap: str, kind: Any) -> Setting:
        """Return what the controls say."""
        return Setting(float(t), int(k or 0), float(guidance), tap, kind)

    def place_of(self, k: int) -> int:
        """Return where the k slider stands for the nearest k."""
        return min(range(len(self.stops)), key=lambda i: abs(self.stops[i] - k))

    def class_name(self, chosen: Chosen) -> str:
        """Return the class that an image is taken for."""
        return self.explorer.teacher.class_names[chosen.label]


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's mistake in a handler, or a step of it, as a message on the page."""

    def message(mistake: UserError) -> gr.Error:
        return gr.Error(str(mistake).replace("`", ""), print_exception=False)

    @functools.wraps(handler)
    def once(*values: Any) -> Any:
        try:
            return handler(*values)
        except UserError as mistake:
            raise message(mistake) from None

    @functools.wraps(handler)
    def stepwise(*values: Any) -> Iterator[Any]:
        try:
            yield from handler(*values)
        except UserError as mistake:
            raise message(mistake) from None

    return stepwise if inspect.isgeneratorfunction(handler) else once


def build(page: Page) -> gr.Blocks:
    """Return the page, not served yet."""
    from clarep.explore.tabs import canonical_tab, directions_tab, set_tab, students_tab, swap_tab

    with gr.Blocks(analytics_enabled=False, title="clarep explore") as blocks:
        gr.HTML(f"<h1>clarep explore</h1><p>{_WHAT_THIS_IS}</p>", elem_id="head")
        with gr.Tabs() as page.tabs:
            canonical_tab.build(page, blocks)
            directions_tab.build(page)
            swap_tab.build(page)
            set_tab.build(page)
            students_tab.build(page)
    return blocks  # type: ignore[no-any-return]


def serve(page: Page, host: str, port: int | None) -> gr.Blocks:
    """Serve the page without waiting; `close` of what is returned ends it."""
    blocks = build(page)
    style = (files("clarep.explore") / "explore.css").read_text(encoding="utf-8")
    theme = gr.themes.Base(
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
    )
    theme.set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")
    blocks.queue()
    blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        max_file_size=MOST_UPLOADED,
        footer_links=[],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        theme=theme,
        css=style + chart_style(),
    )
    return blocks
