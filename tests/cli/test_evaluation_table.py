"""The table of `clarep evaluate`: every figure, and what qualifies it, once."""

from clarep.cli.evaluate import evaluation_table
from clarep.robustness.evaluation import Evaluation, Measurement


def test_a_remark_stands_once_whatever_it_is_of():
    weak, masked, noted = "it was weak", "it is masked", "run with more steps"
    found = [
        Measurement("clean/accuracy", 0.9, (0.8, 1.0), 50),
        Measurement("attack/pgd-linf/eps_255=1", 0.5, (0.4, 0.6), 50, weak),
        Measurement("attack/pgd-linf/eps_255=2", 0.4, (0.3, 0.5), 50, f"{masked}; {weak}", noted),
        Measurement("attack/worst-linf/eps_255=2", 0.4, (0.3, 0.5), 50, weak, noted),
    ]
    text = evaluation_table(Evaluation({}, found, {}))
    for remark in (weak, masked, noted):
        assert text.count(remark) == 1
    names = ("clean", "PGD 1/255", "PGD 2/255", "worst 2/255")  # a row goes on below
    marked = ["".join(line for line in text.splitlines() if line.startswith(n)) for n in names]
    assert [line.count("(") for line in marked] == [0, 1, 3, 2]
    assert ["not trustworthy" in line for line in marked] == [False, True, True, True]
