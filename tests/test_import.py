"""`import clarep` in a fresh process: what it costs, and what it offers."""

import subprocess
import sys

import pytest

EXTRAS = "torchvision timm diffusers accelerate tensorboard pyautoattack ray beartype"
"""What no public name may pull in: libraries of an extra."""
HEAVY = f"{EXTRAS} sklearn skimage scipy matplotlib tyro rich"
"""What nothing that finds CLAReps may pull in."""
CLARID = (
    "CLAReps CanonicalSet Clarid ClaridConfig DataConfig LabelledImages Teacher UserError "
    "class_balanced_choice identify load_data load_teacher to_uint8 to_unit_range"
)


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def pulled_in(names: str, watched: str) -> list[str]:
    """Return how many names resolved, whether torch came, and which of `watched` came with it."""
    return run(f"""
import sys, clarep
names = {names}
assert all(getattr(clarep, name) is not None for name in names)
assert set(names) <= set(dir(clarep))
print(len(names), "torch" in sys.modules)
print(*[name for name in "{watched}".split() if name in sys.modules])
""")


def test_importing_clarep_costs_torch_at_most():
    assert pulled_in("[]", HEAVY)[2:] == []


def test_the_names_of_clarid_pull_in_nothing_foreign_but_torch():
    count, torch_loaded, *foreign = pulled_in(f'"{CLARID}".split()', HEAVY)
    assert (int(count), torch_loaded, foreign) == (len(CLARID.split()), "True", [])


def test_all_public_names_resolve_without_an_extra():
    count, _, *foreign = pulled_in("clarep.__all__", EXTRAS)
    assert int(count) > len(CLARID.split()) and foreign == []


def test_a_worker_of_a_study_loads_no_report():
    code = "import sys, clarep.study.turns as t, pickle; pickle.dumps(t.walk_silently);"
    foreign = "sklearn matplotlib pandas scipy.stats clarep.report clarep.cli"
    assert run(f"{code} print(*(n for n in '{foreign}'.split() if n in sys.modules))") == []


def test_a_teacher_is_loaded_without_torchs_compiler():
    code = "import sys; from clarep.teachers.zoo import load_teacher; load_teacher('backdrops');"
    assert run(f"{code} print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)") == [
        *("False", "False")
    ]


def test_the_names_are_those_of_their_rooms():
    import clarep
    from clarep.clarid.canonical_set import CanonicalSet
    from clarep.clarid.identify import identify
    from clarep.teachers.teacher import Teacher

    assert clarep.CanonicalSet is CanonicalSet
    assert clarep.identify is identify
    assert clarep.Teacher is Teacher
    assert clarep.__version__.count(".") == 2
    for name in ("Clarid", "ClaridConfig", "CLAReps", "DataConfig", "load_data", "load_teacher"):
        assert getattr(clarep, name).__name__ == name
        assert getattr(clarep, name).__module__.startswith("clarep.")


def test_an_unknown_name_is_an_attribute_error():
    import clarep

    with pytest.raises(AttributeError, match="'clarep' has no attribute 'Clardi'"):
        _ = clarep.Clardi
