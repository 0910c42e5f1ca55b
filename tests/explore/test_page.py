"""The page through real clicks in headless Chromium, served by the command itself.

CLAREP_SCREENSHOTS=docs/explore .venv/bin/python -m pytest tests/explore/test_page.py -k pictures

writes the pictures of docs/explore.md, by the bundled teacher.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.identify import identify
from clarep.cli.main import main
from clarep.data.garments import CLASS_NAMES
from clarep.data.load import DataConfig, load_data, stored_options
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student, save_student
from clarep.teachers.zoo import load_teacher

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
PICTURES = os.environ.get("CLAREP_SCREENSHOTS")
TIMEOUT = 180_000  # ms: the machine may be busy
COLD = 10.0  # seconds of a processor until the page is there
CANONICAL = "#canonical-pictures figure:has-text('canonical') img"


def make_students(folder: Path, data: str) -> list[Path]:
    """Two runs of untrained students, as clarep distill would leave them."""
    runs = []
    for seed in range(2):
        run = folder / f"run-{seed}"
        student = build_student(StudentInfo("resnet8", CLASS_NAMES, (3, 32, 32)), seed=seed)
        save_student(student, run / "student" / "student.safetensors")
        config = {"data_options": stored_options(DataConfig(data=data)), "method": "vanilla"}
        (run / "student" / "config.json").write_text(json.dumps(config))
        runs.append(run)
    return runs


class Served:
    """The command, running in folders of its own."""

    def __init__(self, root: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.folders = (
            f"http://127.0.0.1:{port}",
            [root / n for n in ("home", "tmp", "in")],
        )
        for folder in self.folders:
            folder.mkdir(parents=True)
        home, temporary, here = map(str, self.folders)
        environment = os.environ | {"HOME": home, "TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "clarep.cli.main",
            "explore",
            "--port",
            str(port),
            *options,
        ]
        self.process = subprocess.Popen(
            [*command, *options], cwd=here, env=environment, stderr=subprocess.PIPE, text=True
        )
        said = self.process.stderr.readline()
        while said and "open http" not in said:
            said = self.process.stderr.readline()
        assert self.url in said, said
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        self.cold = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def left_behind(self) -> list[str]:
        """Stop it; return the files that are still there."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=300)
        assert self.process.returncode == 130
        return [str(f) for folder in self.folders for f in folder.rglob("*") if f.is_file()]


@pytest.fixture(scope="module")
def served(tiny_teacher_path, garments_path, tmp_path_factory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("explored")
    options = ["--t", "0.85", "--k", "8", "--steps", "2"]
    if PICTURES:
        methods = ("vanilla", "augment")
        for method in methods:
            asked = f"--method {method} --train.epochs 2 --tracker none --out {root / method}"
            assert main(["distill", *asked.split()]) == 0
        options = ["--steps", "8", "--students", *(str(root / method) for method in methods)]
    else:
        data = load_data(DataConfig(data=str(garments_path)))
        clarid = Clarid(load_teacher(tiny_teacher_path), ClaridConfig(t=0.85, k=4, steps=1))
        identify(clarid, data, root / "canon", list(range(0, 40, 4)))
        runs = make_students(root, str(garments_path))
        options += ["--teacher", str(tiny_teacher_path), "--data", str(garments_path)]
        options += ["--canon", str(root / "canon"), "--students", *map(str, runs)]
    started = Served(root / "page", *options)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


def open_page(browser: Any, served: Served, width: int, scheme: str) -> tuple[Any, list[str]]:
    """Return the page, and all that went wrong or was asked of another host."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    said: list[str] = []
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((served.url, "data:", "blob:"))
            else said.append(f"network: {asked.url}")
        ),
    )
    page.goto(served.url, wait_until="load")
    return page, said


@pytest.fixture(scope="module")
def opened(browser, served) -> tuple[Any, list[str]]:
    return open_page(browser, served, 1280, "light")


def settled(page: Any) -> str:
    """Wait until all pictures of the first tab are there; return the canonical one."""
    page.wait_for_selector("#facts dd:has-text('nats')")
    page.wait_for_function("!document.querySelector('#canonical-pictures progress')")
    return page.get_attribute(CANONICAL, "src")


def changed(page: Any, selector: str, before: str) -> str:
    """Wait until an image is another one; return it."""
    page.wait_for_function(
        "([at, old]) => { const one = document.querySelector(at); return one && one.src != old }",
        arg=[selector, before],
    )
    return page.get_attribute(selector, "src")


def test_it_is_there_soon(served):
    assert served.cold < COLD


def test_canonical(opened, tmp_path):
    page, said = opened
    first = settled(page)
    assert page.locator("#canonical-pictures img").count() == 5
    knob = page.locator("#k input[type=range]")
    knob.focus()
    page.keyboard.press("Home")  # k = 0: the control, by the keyboard alone
    changed(page, "#canonical-pictures figure:nth-child(4) img", first)
    guided = page.get_attribute("#canonical-pictures figure:nth-child(3) img", "src")
    page.wait_for_function(
        "old => document.querySelector('#canonical-pictures figure:nth-child(4) img')?.src == old",
        arg=guided,
    )
    box = page.locator("#k-number input")
    assert box.input_value() == "0"
    page.keyboard.press("End")
    end = changed(page, "#canonical-pictures figure:nth-child(4) img", guided)
    assert box.input_value() == "256"
    box.fill("7")  # no stop of the slider is needed
    box.press("Enter")
    changed(page, "#canonical-pictures figure:nth-child(4) img", end)
    page.wait_for_selector("#spectrum :text('k = 7')")
    assert page.input_value("#k input[type=range]") == "7"
    original = "#canonical-pictures figure:nth-child(1) img"
    before = page.get_attribute(original, "src")
    page.locator("#images button").nth(2).click()
    before = changed(page, original, before)
    page.wait_for_selector("#images button:nth-child(3)[aria-pressed=true]")
    page.get_by_text("Copy as command or as Python").click()
    page.wait_for_selector("#command :text('--only')")
    photograph = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "mine.png")
    page.set_input_files("#photo input[type=file]", tmp_path / "mine.png")
    changed(page, original, before)
    page.wait_for_selector("#facts dd:has-text('mine.png')")
    page.wait_for_selector("#python :text('mine.png')")
    settled(page)
    assert said == []


def test_what_is_no_image_is_told_and_nothing_stale_stays(opened, tmp_path):
    page, said = opened
    (tmp_path / "broken.png").write_bytes(b"no image")
    clear = page.locator("#photo").get_by_label("Clear")
    clear.click()
    page.wait_for_selector("#canonical-pictures p:has-text('No image is chosen')")
    for gone in ("#canonical-pictures img", "#facts dd", "#spectrum svg"):
        assert page.locator(gone).count() == 0
    page.set_input_files("#photo input[type=file]", tmp_path / "broken.png")
    page.wait_for_selector("#canonical-pictures p:has-text('cannot read broken.png')")
    page.get_by_role("tab", name="Swap").click()
    page.wait_for_selector("#swapped p:has-text('cannot read broken.png')")
    page.get_by_role("tab", name="Canonical").click()
    page.locator("#images button").first.click()
    settled(page)
    clear.click()  # the image that is shown is not the photograph
    page.wait_for_timeout(500)
    assert page.locator("#canonical-pictures img").count() == 5
    assert said == []


def test_directions(opened):
    page, said = opened
    page.get_by_role("tab", name="Directions").click()
    page.wait_for_selector("#others h3")
    assert page.locator("#strip img").count() == 7
    assert page.locator("#others img").count() == 20
    first = page.get_attribute("#scrubbed img", "src")
    page.locator("#scrub input[type=range]").focus()
    page.keyboard.press("Home")
    changed(page, "#scrubbed img", first)
    middle = page.locator("#strip img").nth(0).get_attribute("src")
    page.click("#draw-sheet")
    page.wait_for_selector("#sheet button:nth-child(32)")
    page.locator("#sheet button").nth(4).click()
    changed(page, "#strip img", middle)
    assert page.input_value("#number input[type=number]") == "5"
    assert said == []


def test_swap(opened):
    page, said = opened
    page.get_by_role("tab", name="Swap").click()
    page.wait_for_selector("#swapped figure:nth-child(4)")
    first = page.get_attribute("#swapped figure:nth-child(3) img", "src")
    page.locator("#donors button").nth(2).click()
    page.wait_for_selector("#swapped figure:nth-child(4)")
    changed(page, "#swapped figure:nth-child(3) img", first)
    assert said == []


def test_set(opened):
    page, said = opened
    page.get_by_role("tab", name="Set").click()
    page.wait_for_selector("#set-images button:nth-child(10)")
    page.get_by_label("Sort by").click()
    page.get_by_role("option", name="class evidence").click()
    page.wait_for_selector("#set-images button span:has-text('nats')")
    shown = page.locator("#set-images button span").all_inner_texts()
    values = [float(re.search(r"(-?[\d.e-]+) nats", text)[1]) for text in shown]
    assert values == sorted(values, reverse=True) and len(values) == 10
    page.click("#lay-out")
    page.wait_for_selector("#maps .points")
    assert page.locator("#maps .point").count() == 20
    assert page.locator("#maps .legend li").all_inner_texts() == list(CLASS_NAMES)
    point = page.locator("#maps .point").first
    assert not point.locator("img").is_visible()
    point.hover(force=True)
    assert point.locator("img").is_visible()
    page.locator("#set-images button").nth(3).click()
    page.wait_for_selector("#closer img")
    original = page.locator("#closer img").first.get_attribute("src")
    page.click("#open-it")
    page.wait_for_selector("#canonical-pictures >> visible=true")
    page.wait_for_function(
        "now => document.querySelector('#canonical-pictures img')?.src == now", arg=original
    )
    assert page.input_value("#k-number input") == "4"
    settled(page)
    assert said == []


def test_students(opened):
    page, said = opened
    page.get_by_role("tab", name="Students").click()
    page.wait_for_selector("#disagreements button, #disagreements p")
    page.get_by_label("both err, differently").click()
    page.locator("#disagreements button").first.click()
    page.wait_for_selector("#seen h3:has-text('After a swap')")
    assert page.locator("#seen .pair img").count() == 8
    assert len(set(page.locator("#seen .pair img").evaluate_all("all => all.map(i => i.src)"))) > 5
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_fits_a_phone(browser, served, scheme):
    page, said = open_page(browser, served, 390, scheme)
    settled(page)
    assert page.locator("#facts").bounding_box()["width"] > 250  # words, not letters, a line
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    for name in ("Canonical", "Directions", "Swap", "Set", "Students"):
        go_to(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert said == []
    page.context.close()


def go_to(page: Any, name: str) -> None:
    """Click a tab, which may be behind the menu of more tabs."""
    tab = page.get_by_role("tab", name=name)
    if not tab.count():
        page.get_by_label("More tabs").click()
        tab = page.get_by_role("button", name=name, exact=True).last
    tab.click()


@pytest.mark.skipif(not PICTURES, reason="pictures of docs/explore.md are written when asked for")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_pictures_of_the_docs(browser, served, width, scheme):
    page, said = open_page(browser, served, width, scheme)
    phone = "" if width > 390 else "-phone"

    def keep(name: str) -> None:
        folder = Path(PICTURES)
        folder.mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{name}{phone}.png", full_page=True)

    settled(page)
    keep("canonical")
    if phone:
        page.context.close()
        return
    go_to(page, "Directions")
    page.wait_for_selector("#others h3")
    keep("directions")
    go_to(page, "Swap")
    page.wait_for_selector("#swapped figure:nth-child(4)")
    keep("swap")
    go_to(page, "Set")
    page.click("#make")
    page.wait_for_selector("#set-images button:nth-child(30)")
    page.locator("#set-images button").nth(3).click()
    page.wait_for_selector("#closer img")
    page.click("#lay-out")
    page.wait_for_selector("#maps .points")
    keep("set")
    go_to(page, "Students")
    page.locator("#disagreements button").nth(1).click()
    page.wait_for_selector("#seen h3:has-text('After a swap')")
    keep("students")
    assert said == []
    page.context.close()


def test_it_leaves_nothing_behind(opened, served):
    opened[0].context.close()
    assert served.left_behind() == []
