"""`import clarep` in a fresh process: what it costs, and what it offers."""

import subprocess
import sys

import pytest

HEAVY = (
    "torchvision timm diffusers sklearn skimage scipy matplotlib tyro rich accelerate ray beartype"
)


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_all_public_names_resolve_and_pull_in_nothing_foreign():
    code = f"""
import sys, clarep
named = [getattr(clarep, name) for name in clarep.__all__]
assert all(value is not None for value in named)
assert set(clarep.__all__) <= set(dir(clarep))
print(len(named), "torch" in sys.modules)
print(*[name for name in "{HEAVY}".split() if name in sys.modules])
"""
    count, torch_loaded, *foreign = run(code)
    assert (int(count) >= 12, torch_loaded, foreign) == (True, "True", [])


def test_the_names_are_those_of_their_rooms():
    import clarep
    from clarep.clarid.canonical_set import CanonicalSet
    from clarep.clarid.identify import identify
    from clarep.teachers.teacher import Teacher

    assert clarep.CanonicalSet is CanonicalSet
    assert clarep.identify is identify
    assert clarep.Teacher is Teacher
    assert clarep.__version__.count(".") == 2
    for name in ("Clarid", "ClaridConfig", "CLARep", "DataConfig", "load_data", "load_teacher"):
        assert getattr(clarep, name).__name__ == name
        assert getattr(clarep, name).__module__.startswith("clarep.")


def test_an_unknown_name_is_an_attribute_error():
    import clarep

    with pytest.raises(AttributeError, match="'clarep' has no attribute 'Clardi'"):
        _ = clarep.Clardi
