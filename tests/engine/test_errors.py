"""What errors of others say, in a sentence of ours."""

import pytest

from clarep.errors import UserError, reason, refusing, said_by


def test_the_systems_errors_are_told_by_their_words_alone(tmp_path):
    missing = tmp_path / "none"
    with pytest.raises(UserError) as told, refusing("no luck", "try again", (OSError,)):
        missing.read_bytes()
    error = told.value.__cause__
    for said in (str(told.value), reason(error), said_by(error)):
        assert "No such file" in said and "Errno" not in said and str(missing) not in said


def test_other_errors_are_told_whole():
    assert reason(ValueError("it is cut")) == said_by(ValueError("it is cut")) == "it is cut"
    assert said_by(KeyError("config")) == "KeyError: 'config'"
    assert said_by(ConnectionError("no route")) == "ConnectionError: no route"
    assert said_by(RuntimeError()) == "RuntimeError"
