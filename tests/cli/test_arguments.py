"""The library speaks of arguments, the command line of options, and one rule translates."""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import clarep
from clarep.cli.main import _PLACES, _build, _declared, main
from clarep.cli.terminal import _ARGUMENT, in_options, options_of, terminal_of
from clarep.data.load import DataConfig
from clarep.engine.flags import flags
from clarep.errors import ClarepWarning
from clarep.teachers.options import TeacherOptions

ROOT = Path(clarep.__file__).parent
WHOLE_COMMANDS = (
    "report/html/seed_commands.py",
    "engine/offline.py",
    "engine/flags.py",
    "explore/copied.py",
)
"""Files that build commands to run, of clarep or of the system, and no advice."""
IN_PYTHON_ALONE = {
    "image_shape",
    "config",
    "step_size",
    "first_index",
    "torch.jit.load",
    "levels",
    "most_labels",
    "into",
    "terms",
    "detach",
    "no_grad",
}
"""Arguments of functions that no command offers."""
REQUIRED = {
    "data": "show x",
    "card": "x",
    "bench": "subspace",
    "evaluate": "x",
    "compare": "x",
    "run": "x",
    "report": "x",
    "export": "x",
    "convert": "edm x --out x",
    "verify": "x",
}
GIVEN_TO = [[name, *REQUIRED.get(name, "").split()] for name in _PLACES]
GIVEN_TO.append(["bench", "distill"])
OPTIONS = {
    option
    for words in GIVEN_TO
    for option in options_of(_build(words, {words[0]: _declared(words[0])}))
}


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string but docs; what an f-string puts in is {}."""
    tree = ast.parse(file.read_text())
    inner = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            inner.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            inner.update(map(id, node.values))
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


LIBRARY = [
    file
    for file in sorted(ROOT.rglob("*.py"))
    if "cli" not in file.relative_to(ROOT).parts
    and str(file.relative_to(ROOT)) not in WHOLE_COMMANDS
]


def test_no_text_of_the_library_speaks_of_options():
    """A whole command in backticks, `clarep identify --kind top`, is as right in Python."""
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in LIBRARY
        for line, text in texts(file)
        if re.search(r"(?<![\w-])--[a-z{]", re.sub(r"`clarep [^`]*`", "", text))
    ]
    assert found == []


def test_every_argument_that_is_named_is_an_option_of_some_command():
    arguments = {
        found[0]: f"{file.relative_to(ROOT)}:{line}"
        for file in LIBRARY
        for line, text in texts(file)
        for found in _ARGUMENT.finditer(text)
    }
    assert len(arguments) > 50
    unknown = {
        argument: place
        for argument, place in arguments.items()
        if in_options(argument, OPTIONS) == argument
        and re.split("[`=]", argument)[1] not in IN_PYTHON_ALONE
    }
    assert unknown == {}


@pytest.mark.parametrize("words", GIVEN_TO, ids=" ".join)
def test_the_options_of_a_command_are_those_that_its_help_lists(words, capsys):
    assert (
        main([word for word in words if word not in ("x", "--garments", "--out")] + ["--help"]) == 0
    )
    told = capsys.readouterr().out
    listed = set(re.findall(r"(?m)^\W{1,3}(--[a-z][\w.-]+)", told)) - {"--help"}
    assert listed, told
    assert listed <= set(options_of(_build(words, {words[0]: _declared(words[0])})))


GIVEN = ["--image-size", "--out", "--train.epochs", "--train.rivals.kd-weight", "--no-cw", "--json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("give `image_size=32`, say", "give --image-size 32, say"),
        ("give another `out`", "give another --out"),
        ("`epochs=0` is below 1", "--train.epochs 0 is below 1"),
        ("`rivals.kd_weight=2` is", "--train.rivals.kd-weight 2 is"),
        ("`data.image_size=0` is", "--image-size 0 is"),
        ("`kd_weight=a b` is", "--train.rivals.kd-weight a b is"),
        ("`folder` and `folder=x`", "--out and --out x"),
        ("give `json=True` or `cw=False`", "give --json or --no-cw"),
        ("of no option: `flip=3`, `json_`, `size`", "of no option: `flip=3`, `json_`, `size`"),
        ("run `clarep select --json`", "run clarep select --json"),
        ("one ` alone, image_size=3", "one ` alone, image_size=3"),
    ],
)
def test_arguments_become_the_options_of_the_command(text: str, said: str):
    assert in_options(text, GIVEN) == said


def test_each_command_says_it_in_its_own_options(capsys, tmp_path, write_recipe):
    """The same mistake in the same library function: options here, keys of a recipe there."""
    out = ["--out", str(tmp_path / "out")]
    for arguments, word in (
        (["distill", "--train.epochs", "0", *out], "--train.epochs 0 is below 1"),
        (["train-teacher", "--train.steps", "0", *out], "--train.steps 0 is below 1"),
        (["run", str(write_recipe(epochs="0")), *out], "[train] `epochs=0` is below 1"),
        (["data", "show", "backdrops", "--image-size", "0"], "--image-size 0 is below 1"),
    ):
        assert main(arguments) == 2
        assert word in capsys.readouterr().err


def test_flags_are_what_was_given_otherwise_than_by_default():
    given = DataConfig(data="my pets", image_size=32)
    assert flags(given) == " --image-size 32 --data 'my pets'"
    assert flags(TeacherOptions(bf16=True)) == " --bf16"
    assert flags(given, "image_size") == " --image-size 32" and flags(DataConfig()) == ""


def test_a_warning_of_clareps_own_is_a_note(capsys):
    with warnings.catch_warnings(), terminal_of(["--t"]):
        warnings.simplefilter("always")
        warnings.warn("it was measured otherwise: name `t`", ClarepWarning, stacklevel=1)
    assert "clarep: note: it was measured otherwise: name --t" in capsys.readouterr().err
