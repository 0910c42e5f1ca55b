import pytest

from clarep.engine.artefacts import parse_json, read_json, write_json

_DAMAGED = {
    "deep": "[" * 100_000,
    "deep enough for Python": "[" * 200 + "]" * 200,
    "many digits": '{"n": ' + "9" * 5_000 + "}",
    "beyond 64 bits": '{"n": 9223372036854775808}',
    "NaN": '{"n": [0, NaN]}',
    "infinity": '{"n": -Infinity}',
    "a float that overflows": '{"n": 1e999}',
    "no object": "[1, 2]",
    "cut off": '{"n": 1',
    "empty": "",
    "no UTF-8": b'{"n": "\xff"}',
}


@pytest.mark.parametrize("text", _DAMAGED.values(), ids=_DAMAGED)
def test_damaged_json_is_a_value_error_alone(tmp_path, text):
    path = tmp_path / "damaged.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r".") as refused:
        read_json(path)
    assert len(str(refused.value)) < 300


def test_the_place_of_a_bad_number_is_named():
    with pytest.raises(ValueError, match=r"a\.b\[1\]"):
        parse_json('{"a": {"b": [0.5, NaN]}}')


def test_what_is_written_is_read(tmp_path):
    value = {"deep": [[[{"n": -(2**63)}]]], "x": 1e-300, "name": "é\n", "none": None, "yes": True}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value


@pytest.mark.parametrize("number", [float("inf"), float("-inf")])
def test_infinity_is_written_as_a_text_that_float_reads(tmp_path, number):
    write_json(tmp_path / "v.json", {"n": [(number, 1.5)]}, sealed=True)
    assert "Infinity" not in (tmp_path / "v.json").read_text()
    assert float(read_json(tmp_path / "v.json")["n"][0][0]) == number


def test_a_digit_changed_in_a_sealed_file_is_told(tmp_path):
    path, value = tmp_path / "v.json", {"b": [0.1, 7], "a": {"x": 0.8125}}
    write_json(path, value, sealed=True)
    assert read_json(path) == value
    text = path.read_text()
    for old, new in (("0.8125", "0.8126"), ("7", "8"), ('"x"', '"y"')):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match="SHA-256"):
            read_json(path)
