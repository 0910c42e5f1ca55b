"""The page in headless Chromium: both widths, both themes."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def opened(request, browser, report) -> Iterator[tuple[Any, list[str]]]:
    """The page at a width and theme, and all that went wrong or was asked of the network."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url[:80]}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("data:", "file:"))
            else said.append(f"network: {request.url}")
        ),
    )
    page.goto(report.as_uri(), wait_until="load")
    yield page, said
    context.close()


def test_the_page_looks_right(opened):
    page, said = opened
    broken = "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.alt)"
    assert page.evaluate("document.images.length") > 30
    assert page.evaluate(broken) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        "Canonical samples", "Results", "Attacks", "Corruptions", "Backgrounds", "Other test sets",
        "Calibration", "Saliency", "Features before and after", "What was run", "Cost", "Data",
    ]  # fmt: skip
    assert said == []


def test_the_canonical_samples_are_seen_without_scrolling(opened):
    page, _ = opened
    places = page.evaluate(
        """() => [...document.querySelectorAll('#canonical tbody tr')].map(row =>
            [row.querySelector('th').innerText,
             row.querySelector('img').getBoundingClientRect().right <= innerWidth])"""
    )
    seen = {name.replace("\n", " "): inside for name, inside in places}
    assert list(seen) == [
        "original", "reconstruction", "guidance alone", "canonical sample", "what was removed",
    ]  # fmt: skip
    assert all(seen.values())


def test_words_are_large_enough_and_inside_their_charts(opened):
    page, _ = opened
    facts = page.evaluate(
        """() => [...document.querySelectorAll('svg.plot')].map(svg => {
            const frame = svg.getBoundingClientRect()
            const texts = [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect())
            return {
                scale: frame.width / svg.viewBox.baseVal.width,
                outside: texts.filter(t => t.left < frame.left - 1 || t.right > frame.right + 1
                    || t.top < frame.top - 1 || t.bottom > frame.bottom + 1).length,
            }
        })"""
    )
    assert len(facts) > 10
    assert min(fact["scale"] for fact in facts) > 0.95  # words are 11 pixels high at 1
    assert sum(fact["outside"] for fact in facts) == 0


def test_a_table_that_goes_on_says_so(opened):
    page, _ = opened
    shades = page.evaluate(
        """async () => { const shades = []
            for (const box of document.querySelectorAll('.scroll')) {
                if (!box.checkVisibility()) continue
                const wide = box.scrollWidth > box.clientWidth + 1
                const shade = () => +getComputedStyle(box, '::after').opacity
                const frame = () => new Promise(done =>
                    requestAnimationFrame(() => requestAnimationFrame(done)))
                const first = box.querySelector('tbody th')
                await frame()
                const before = shade(), left = first.getBoundingClientRect().left
                box.scrollLeft = 1e5
                await frame()
                shades.push([wide, before, shade(),
                    first.getBoundingClientRect().left - left])
            }
            return shades }"""
    )
    assert {round(before, 2) for wide, before, _, _ in shades if wide} <= {1}
    assert {round(before, 2) for wide, before, _, _ in shades if not wide} <= {0}
    assert {round(after, 2) for _, _, after, _ in shades} == {0}
    assert {abs(round(moved)) for *_, moved in shades} == {0}  # the names stay in view
    assert page.viewport_size["width"] > 390 or any(wide for wide, *_ in shades)


def test_text_has_contrast_in_both_themes(opened):
    page, _ = opened
    colours = page.evaluate(
        """() => ['body', '.verdict', 'nav a', '.notes', 'td small', 'figcaption',
            '.untrusted'].map(
            name => { const style = getComputedStyle(document.querySelector(name));
                      const notes = getComputedStyle(document.querySelector('.notes'));
                      return [style.color, name == '.notes' ? notes.backgroundColor
                              : getComputedStyle(document.body).backgroundColor] })"""
    )
    for ink, paper in colours:
        lighter, darker = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of rgb(r, g, b), WCAG 2."""
    channels = [int(c) / 255 for c in colour.strip("rgb()").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_link_downloads_its_numbers(browser, report, tmp_path):
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.goto(report.as_uri())
    with page.expect_download() as waiting:
        page.locator("a[download='main_table.json']").click()
    waiting.value.save_as(tmp_path / "main_table.json")
    context.close()
    beside = report.parent / "data" / "main_table.json"
    assert (tmp_path / "main_table.json").read_bytes() == beside.read_bytes()
    assert json.loads(beside.read_text())[0]["method"] == "vanilla"
