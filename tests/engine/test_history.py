from clarep.engine.history import HISTORY_NAME, append_record, keep_records, read_records


def test_records_come_back_in_order_and_a_cut_line_is_none(tmp_path):
    assert read_records(tmp_path) == []
    for epoch in (1, 2, 3):
        append_record(tmp_path, {"epoch": epoch})
    with open(tmp_path / HISTORY_NAME, "a") as stream:
        stream.write('{"epoch": 4, "lo')  # killed while it wrote
    assert read_records(tmp_path) == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3}]


def test_what_lies_beyond_the_checkpoint_goes(tmp_path):
    keep_records(tmp_path, "step", 2)  # nothing there: nothing made
    assert not (tmp_path / HISTORY_NAME).exists()
    for step in (1, 2, 3):
        append_record(tmp_path, {"step": step})
    keep_records(tmp_path, "step", 2)
    append_record(tmp_path, {"step": 3, "again": True})
    assert read_records(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
