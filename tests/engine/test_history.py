import os

import pytest

from clarep.engine.training_folder import HISTORY_NAME, TrainingFolder, read_records
from clarep.errors import UserError


def begun(path, records):
    folder = TrainingFolder(path, {})
    folder.start({}, records)
    return folder


def test_records_come_back_in_order_and_a_cut_line_is_none(tmp_path):
    assert read_records(tmp_path, "epoch") == []
    folder = begun(tmp_path, [{"epoch": 1}])
    for epoch in (2, 3):
        folder.append({"epoch": epoch})
    with open(tmp_path / HISTORY_NAME, "a") as stream:
        stream.write('{"epoch": 4, "lo')  # killed while it wrote
    assert read_records(tmp_path, "epoch") == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]


_LINES = (b"", b"{}", b"[]", b"7", b"null", b"\xff", b'{"step": NaN}', b'{"step": "x"}')
_MORE = (b'{"step": 50}', b"[" * 100_000, b'{"step": ' + b"9" * 5_000 + b"}")


@pytest.mark.parametrize("line", [*_LINES, *_MORE])
def test_a_damaged_line_is_told_by_its_number(tmp_path, line):
    begun(tmp_path, [{"step": 50}])
    with open(tmp_path / HISTORY_NAME, "ab") as stream:
        stream.write(line + b"\n")
    with pytest.raises(UserError, match=r"line 2 of .*run the command that trained it again"):
        read_records(tmp_path, "step")


def test_a_changed_digit_is_told(tmp_path):
    folder = begun(tmp_path, [{"step": 50, "held_out": {"0.1-0.5": 0.94976}}])
    folder.append({"step": 100, "held_out": {"0.1-0.5": 0.64918}})
    whole = (tmp_path / HISTORY_NAME).read_text()
    for number, digits in enumerate(("0.94976", "0.64918"), start=1):
        (tmp_path / HISTORY_NAME).write_text(whole.replace(digits, "0.14976"))
        with pytest.raises(UserError, match=rf"line {number} of .*SHA-256"):
            read_records(tmp_path, "step")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / HISTORY_NAME)
    with pytest.raises(UserError, match=r"no regular file.*run the command that trained it again"):
        read_records(tmp_path, "step")
