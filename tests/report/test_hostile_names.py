"""Names of classes, files and methods steer neither terminal, spreadsheet nor page."""

import csv
import io
import sys
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from rich.console import Console

from clarep.clarid.clareps import draw_rows
from clarep.cli.main import main
from clarep.engine import progress as progress_module
from clarep.engine.figure_style import save_figure
from clarep.engine.printable import one_line, printable
from clarep.engine.progress import announce, progress
from clarep.report.html import build_report
from clarep.report.tables import csv_text, plain_table, write_csv

FORMULAS = [
    "=cmd()|' '!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\N{FULLWIDTH EQUALS SIGN}1",
]
STEERING = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\x00b",
    "b\ra",
    "\u202etxt",
    "\udcff",
]
MARKUP = [
    "<script>a()</script>",
    '"><b>',
    "a & b",
    "[/bold]",
    ":smile:",
    "$x_{$",
    "x|y",
    "{0}",
    "two\nlines",
]
NAMES = [*FORMULAS, *STEERING, *MARKUP, "plain name", "Gerät"]


def assert_harmless(text: str) -> None:
    """Fail if a terminal would do with a text anything but write it."""
    assert printable(text) == text
    text.encode()  # halves of pairs cannot be


def test_all_controls_are_spelled_out_and_all_else_stays():
    for code in [
        *range(0x20),
        *range(0x80, 0xA0),
        0x061C,
        0x200E,
        0x200F,
        0x2028,
        0x202A,
        0x202E,
        0x2066,
        0xD800,
        0xDFFF,
    ]:
        shown = one_line(f"a{chr(code)}b")
        assert shown.startswith("a\\") and shown.endswith("b") and shown.isprintable()
    assert printable("a\n\tb") == "a\n\tb"
    kept = "Gerät 日本 [x] 'q' \\ \x7f"
    assert one_line(kept) == kept


def test_a_spreadsheet_takes_no_cell_for_a_formula(tmp_path):
    rows = [{"name": name, "=head": 0.5, "none": None, "minus": -1.5} for name in NAMES]
    write_csv(rows, tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as stream:
        text = stream.read()
    assert text == csv_text(rows)
    read = list(csv.reader(io.StringIO(text)))
    assert len(read) == len(NAMES) + 1
    for cell in [*read[0], *(row[0] for row in read[1:])]:
        assert not cell.startswith(
            ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}")
        )
    for row, name in zip(read[1:], NAMES, strict=True):
        assert row[0].removeprefix("'") == one_line(name)
        assert row[1:] == ["0.5", "", "-1.5"]
    assert read[-2][0] == "plain name"
    assert_harmless(text.replace("\r\n", "\n"))


def test_a_table_shows_every_name_as_it_is_on_a_line_of_its_own():
    text = plain_table(("name", "value\x1b"), [(name, "0.5") for name in NAMES], "a note\x07")
    assert_harmless(text)
    lines = text.splitlines()
    assert len(lines) == len(NAMES) + 2
    for line, name in zip(lines[1:], NAMES, strict=False):
        assert line.startswith(one_line(name)) and line.endswith("0.5")


@pytest.mark.parametrize("name", NAMES)
def test_progress_is_steered_by_no_name(name, capsys, monkeypatch: pytest.MonkeyPatch):
    announce(name)
    with progress(name, "jobs", 2) as advance:
        advance(1, name)
    told = capsys.readouterr().err
    assert_harmless(told)
    assert told.count(one_line(name)) == 3 and len(told.splitlines()) == 2
    stream = io.StringIO()
    bars = Console(file=stream, force_terminal=True, width=200, color_system=None, _environ={})
    monkeypatch.setattr(progress_module, "Console", lambda stderr: bars)
    with progress(name, "jobs", 2) as advance:
        advance(1, name)
    assert stream.getvalue().count(one_line(name)) >= 2
    if printable(name) != name:
        assert name not in stream.getvalue()


def said(capsys, arguments: Sequence[str], code: int) -> str:
    assert main(list(arguments)) == code
    printed = capsys.readouterr()
    assert_harmless(printed.out + printed.err)
    return printed.err if code else printed.out


def test_data_are_shown_whatever_their_classes_are_called(capsys, tmp_path):
    names = [name for name in NAMES if name != "\udcff"]  # which is refused where it is read
    data, sheet = tmp_path / "x.npz", str(tmp_path / "s.png")
    pixels = np.zeros((len(names), 8, 8, 3), np.uint8)
    np.savez(data, x=pixels, y=np.arange(len(names)), classes=np.array(names))
    told = said(capsys, ["data", "show", str(data), "--out", sheet], 0)
    for name in names:
        assert printable(name) in told
    said(capsys, ["data", "show", str(data), "--out", sheet, "--json"], 0)


def test_an_error_is_one_line_whatever_was_given(capsys):
    for name in (*STEERING, "two\nlines"):
        for given in (["data", "show", name], ["identify", "--data", name], [name], ["demo", name]):
            told = said(capsys, given, 2)
            assert one_line(name) in told and told.count("\n") == 1


def test_what_a_command_prints_is_made_harmless(capsys, monkeypatch: pytest.MonkeyPatch):
    def run(_):
        print("\x1b[2Jcleared")
        print("asks", file=sys.stderr)

    monkeypatch.setattr("clarep.cli.data.Show.run", run)
    assert said(capsys, ["data", "show", "garments"], 0) == "\\x1b[2Jcleared\n"


def test_a_picture_takes_names_for_no_formula(tmp_path):
    names = ["$x_{$", "$\\frac$", "a $b$ c", *FORMULAS[:4]]
    columns = {"original": torch.zeros(len(names), 3, 4, 4, dtype=torch.uint8)}
    save_figure(draw_rows(columns, names, "$x_{$"), tmp_path / "x.png")


class Tags(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag != "span":  # one a word of a command
            self.found.append((tag, *(key for key, _ in attrs)))

    def handle_data(self, data):
        self.text += data


def test_a_page_is_broken_by_no_name(fabricated, tmp_path):
    names = [FORMULAS[0], *STEERING[:2], STEERING[-1], *MARKUP[:2], MARKUP[-1]]
    pages = []
    for methods in ([chr(ord("a") + i) * len(name) for i, name in enumerate(names)], names):
        folder = tmp_path / str(len(pages))
        runs = [fabricated.make_run(folder / "vanilla", "vanilla")]
        for i, name in enumerate(methods):
            more = {"data": name, "student": name}
            runs.append(fabricated.make_run(folder / str(i), name, config=more))
        pages.append(build_report(runs, None, folder / "out").read_text(encoding="utf-8"))
    plain, page = map(Tags, pages)
    assert sorted(page.found) == sorted(plain.found)
    for name in names:
        assert printable(name) in page.text
    assert_harmless(pages[1])
    tables = list((tmp_path / "1" / "out" / "data").glob("*.csv"))
    assert tables
    for path in tables:
        assert_harmless(path.read_text(encoding="utf-8"))
