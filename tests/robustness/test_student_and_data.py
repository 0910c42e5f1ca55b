import pytest

from clarep.data.load import DataConfig, load_data
from clarep.errors import UserError
from clarep.robustness.student_and_data import load_any_split


def test_the_home_of_nobody_is_no_traceback():
    with pytest.raises(UserError, match="unknown data set '~nosuchuser/x'"):
        load_data(DataConfig(data="~nosuchuser/x"))
    with pytest.raises(UserError, match="unknown data set '~nosuchuser/x'"):
        load_any_split("~nosuchuser/x", 32)
