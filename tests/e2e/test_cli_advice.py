"""Every mend that a message names is taken: the mistake is made, its advice followed, and it works.

{0} stands for what the message advises.
"""

import html
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from clarep.cli.main import _PLACES, main
from clarep.select import curve_cell
from clarep.select.class_evidence import class_evidence

DATA = "--data photos --image-size 32"
STUDENT = "--train.epochs 1 --train.batch-size 16 --train.learning-rate 0.05"
TINY = "--train.steps 2 --train.batch-size 8 --train.unet.widths 8 16 --train.unet.embed-dim 16"
CLEAN = "--groups clean"
FEW = "--images 6 --attack-images 4 --corruption-images 4 --severities 3 --apgd-steps 5"
CLAREPS = "--fraction 0.3 --k 2 --steps 2 --solver euler --inversion euler"
CARD = "--steps 1 --guidances 1"


@dataclass(frozen=True)
class Mistake:
    given: str
    """What is done wrong."""
    advice: str
    """Pattern of what the message tells to do; its group is {0}."""
    then: str
    """The command that follows it."""
    before: str = ""
    """What makes the mistake possible."""


def _distill(method: str, more: str) -> str:
    return f"distill {DATA} --method {method} --out x {STUDENT} {more}"


MISTAKES = {
    "sizes differ, to show": Mistake(
        "data show photos --out x.png",
        r"(--image-size) to crop",
        "data show photos {0} 32 --out x.png",
    ),
    "sizes differ, to train": Mistake(
        f"train-teacher --data photos --out x {TINY}",
        r"(--image-size) to crop",
        f"train-teacher --data photos {{0}} 32 --out x {TINY}",
    ),
    "a size that the network cannot halve": Mistake(
        f"train-teacher --data photos --image-size 31 --out x {TINY}",
        r"multiple of (\d+)",
        f"train-teacher --data photos --image-size {{0}} --out x {TINY}",
    ),
    "another size than the teacher's": Mistake(
        f"identify --data photos --image-size 16 --teacher t --out x {CLAREPS}",
        r"(--image-size 32)",
        f"identify --data photos {{0}} --teacher t --out x {CLAREPS}",
    ),
    "another size than the student's": Mistake(
        f"evaluate v --image-size 16 {CLEAN}",
        r"give (--image-size 32)",
        f"evaluate v {{0}} {CLEAN}",
    ),
    "no such split": Mistake(
        f"evaluate v --split tset {CLEAN}", r"(--split held-out)", f"evaluate v {{0}} {CLEAN}"
    ),
    "other data without a test split": Mistake(
        f"evaluate v --data others {CLEAN}",
        r"give (--split train)",
        f"evaluate v --data others {{0}} {CLEAN}",
        before="others",
    ),
    "a foreign classifier of data without a test split": Mistake(
        f"evaluate timm:resnet18 --weights w.pt --out f {DATA} {CLEAN}",
        r"give (--split train)",
        f"evaluate timm:resnet18 --weights w.pt --out f {DATA} {{0}} {CLEAN}",
        before="weights",
    ),
    "groups that these data have nothing for": Mistake(
        "evaluate v --groups clean focus", r"name other (groups)", "evaluate v --{0} clean"
    ),
    "not evaluated": Mistake("compare v c", r"run clarep (evaluate v)", f"{{0}} {FEW}"),
    "an option that means nothing": Mistake(
        f"evaluate v --class-names x {CLEAN}", r"leave it (out)", f"evaluate v {CLEAN}"
    ),
    "no judge of these classes": Mistake(
        f"card t {CARD}", r"give (--classifier) RUN", f"card t {CARD} {{0}} v"
    ),
    "a judge that saw the held-out images": Mistake(
        f"card t --classifier n {CARD}",
        r"give one of clarep distill (.*)$",
        _distill("vanilla", "{0}"),
        before=_distill("vanilla", "--train.validation-share 0 --train.pick last --out n"),
    ),
    "nothing to pick on": Mistake(
        _distill("vanilla", "--train.validation-share 0"),
        r"or (--train.pick last)",
        _distill("vanilla", "--train.validation-share 0 {0}"),
    ),
    "no canonical set": Mistake(
        _distill("cadistill", ""), r"needs (--canon)", _distill("cadistill", "{0} c/canon")
    ),
    "the folder above the canonical set": Mistake(
        _distill("cadistill", "--canon c"),
        r"the set is in (\S+), give that",
        _distill("cadistill", "--canon {0}"),
    ),
    "a set of another kind": Mistake(
        _distill("reconstruction", "--canon c/canon"),
        r"with clarep (identify .*) and else",
        f"{{0}} {DATA} --teacher t --out k {CLAREPS}",
    ),
    "a set of another size": Mistake(
        f"distill --data photos --image-size 16 --canon c/canon --out x {STUDENT}",
        r"give (--image-size 32)",
        f"distill --data photos {{0}} --canon c/canon --out x {STUDENT}",
    ),
    "another configuration": Mistake(
        f"distill {DATA} --method supcon --out v {STUDENT}",
        r"give another (--out)",
        f"distill {DATA} --method supcon {{0}} x {STUDENT}",
    ),
    "a broken image, to train a student": Mistake(
        _distill("vanilla", ""), r"(--skip-bad)", _distill("vanilla", "{0}"), before="broken"
    ),
    "a broken image, to train a teacher": Mistake(
        f"train-teacher {DATA} --out x {TINY}",
        r"(--skip-bad)",
        f"train-teacher {DATA} --out x {TINY} {{0}}",
        before="broken",
    ),
    "a class of one image": Mistake(
        _distill("vanilla", ""), r"add (images) to it", _distill("vanilla", ""), before="lonely"
    ),
    "a command that does not exist": Mistake("compair v", r"did you mean (\w+)", "{0} --help"),
    "an option that does not exist": Mistake(
        f"evaluate v --spilt train {CLEAN}",
        r"Perhaps you meant: (--\w+)",
        f"evaluate v {{0}} train {CLEAN}",
    ),
}


def _prepare(before: str) -> None:
    if before == "others":
        Path("photos").rename("others")
        Path("others/coffee/00.jpg").unlink()
    elif before == "broken":
        photo = Path("photos/coffee/03.jpg")
        photo.write_bytes(photo.read_bytes()[:100])
    elif before == "lonely":
        for photo in sorted(Path("photos/coffee").glob("*.jpg"))[1:]:
            photo.unlink()
    elif before == "weights":
        import timm
        import torch

        torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), "w.pt")
    elif before:
        assert main(before.split()) == 0


@pytest.mark.parametrize("name", MISTAKES)
def test_the_advice_works(name, photos_home, capsys):
    mistake = MISTAKES[name]
    _prepare(mistake.before)
    capsys.readouterr()
    assert main(mistake.given.split()) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    found = re.search(mistake.advice, told)
    assert found, told
    _check_options(told, mistake.given, capsys)
    if mistake.before == "lonely":
        for i in range(3):
            photo = next(Path("photos/coffee").glob("*.jpg"))
            (photo.parent / f"more{i}.jpg").write_bytes(photo.read_bytes())
    assert main(mistake.then.format(found.group(1)).split()) == 0


def _check_options(told: str, given: str, capsys) -> None:
    """Every option that a message names is one of the command's, or of the one that it names."""
    named = re.findall(r"clarep ([a-z-]+)", told.removeprefix("clarep: "))
    for command in {given.split(maxsplit=1)[0], *named} & {*_PLACES}:
        deeper = given.split()[1:2] if command in ("data", "bench", "convert") else []
        assert main([command, *deeper, "--help"]) == 0
    listed = capsys.readouterr().out + given
    for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", told):
        assert option in listed, option


def test_commands_that_a_report_and_its_notes_name_work(photos_home, capsys):
    assert main(["report", "v", "c"]) == 0
    told = capsys.readouterr().err
    advised = re.findall(r"clarep (evaluate \w+) measures it", told)
    assert advised == ["evaluate v", "evaluate c"] and "--canon" not in told  # found in c/canon
    for command in advised:
        assert main([*command.split(), *CLEAN.split()]) == 0
    assert main(["report", "v", "c"]) == 0
    page = Path("runs/report/index.html").read_text()
    block = re.search(r'<pre class="commands"[^>]*>(.*?)</pre>', page, re.DOTALL)
    lines = html.unescape(re.sub(r"<[^>]+>", "", block.group(1))).split("\n")
    commands = [shlex.split(line)[1:] for line in lines if line]
    assert [command[0] for command in commands] == ["distill", "evaluate"] * 2
    for command in commands:
        assert main(command) == 0, command


def test_what_compare_leaves_out_can_be_measured(photos_home, capsys):
    for run, more in (("v", "calibration"), ("c", "")):
        assert main(f"evaluate {run} {CLEAN} {more}".split()) == 0
    capsys.readouterr()
    assert main(["compare", "v", "c"]) == 0
    assert "calibration: left out, since not measured on c" in capsys.readouterr().out
    assert main(f"evaluate c {CLEAN} calibration".split()) == 0
    assert main(["compare", "v", "c"]) == 0
    assert "left out" not in capsys.readouterr().out.split("evaluation in")[-1]


def test_the_command_that_select_recommends_works(photos_home, capsys, monkeypatch):
    """Of a teacher that is sure of its classes."""

    def sure(*given, **more):
        found = class_evidence(*given, levels=1, **more)
        nats = torch.full_like(found.nats, 1.0)
        return replace(found, nats=nats, below_nats=nats)

    monkeypatch.setattr(curve_cell, "class_evidence", sure)
    grid = "--t 0.3 --k 2 --images 9 --seeds 0 1 --steps 2"
    assert main(f"select {DATA} --teacher t --out s {grid}".split()) == 0
    found = re.search(r"to use it: clarep (identify .*)", capsys.readouterr().out)
    assert found and main(shlex.split(found.group(1))) == 0
