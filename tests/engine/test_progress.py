"""Progress in plain lines: what is skipped counts as done, and not for the rate."""

import re

import pytest

from clarep.engine import progress as module
from clarep.engine.progress import progress


def test_skipped_units_do_not_quicken_the_rate(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    with progress("evaluate", "passes", 1000, 100) as advance:
        advance(100)
        advance(600, skipped=500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "evaluate: 200/1000 passes, 10.00 passes/s, 80 s left"
    assert lines[1] == "evaluate: 800/1000 passes, 10.00 passes/s, 20 s left"


def test_all_skipped_leaves_no_time_to_tell(capsys) -> None:
    with progress("evaluate", "passes", 10) as advance:
        advance(5, skipped=5)
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(r"evaluate: 5/10 passes, 0\.00 passes/s", line)
