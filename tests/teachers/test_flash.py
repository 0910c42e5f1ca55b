"""Flash attention: where it is refused, and, in another process, that it is right."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from clarep.errors import UserError
from clarep.teachers.checkpoint_files import Checkpoint
from clarep.teachers.families.vit_parts import vae_of
from clarep.teachers.flash import AttentionCall, FlashAttention, check_flash
from clarep.teachers.options import TeacherOptions, check_options, fingerprint_with, recorded
from clarep.teachers.zoo import load_teacher

FLASH = TeacherOptions(attention="flash")


@pytest.fixture(autouse=True)
def _compiled(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_a_processor_is_refused():
    with pytest.raises(UserError, match=r"^attention flash runs on a GPU and the device is cpu"):
        check_options(FLASH, "dit", ("attention",))


@pytest.mark.parametrize("module", ["triton", "jvp_flash_attention"])
def test_a_missing_package_is_named_with_its_extra(module, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setitem(sys.modules, module, None)
    told = rf"^{module}.* is not installed: give pip install '\.\[flash\]' in a clone of clarep$"
    with pytest.raises(UserError, match=told):
        check_flash(torch.device("cuda"))


def test_families_of_other_attention_refuse_it():
    for spec in ("backdrops", "edm:none"):
        with pytest.raises(UserError, match=r"^`attention=flash` means nothing to a"):
            load_teacher(spec, FLASH)
    uvit = Checkpoint(Path("uvit.pt"), {}, {})
    with pytest.raises(UserError, match=r"^`attention=flash` means nothing to a uvit: teacher"):
        vae_of(uvit, 3, "uvit", FLASH)


def test_it_is_not_recorded_as_it_changes_rounding_alone():
    assert recorded(FLASH) == {} and fingerprint_with(FLASH, "ab", ("x",)) == "ab"


def test_calls_that_stay_with_math_are_counted():
    q, short, wide = torch.ones(1, 2, 32, 8), torch.ones(1, 2, 7, 8), torch.ones(1, 2, 32, 160)
    attend, calls = torch.nn.functional.scaled_dot_product_attention, Counter()
    with FlashAttention(calls):
        attend(q, short, short)
        attend(q, key=short, value=short)
        attend(wide, wide, wide)
        attend(q, q, q, is_causal=True)
        attend(short, short, short, dropout_p=0.0)
    assert calls == {
        AttentionCall("math", 8, 32, "cross"): 2,
        AttentionCall("math", 160, 32, "self"): 1,
        AttentionCall("math", 8, 32, "masked"): 1,
        AttentionCall("math", 8, 7, "self"): 1,
    }


def test_the_kernels_in_tritons_interpreter():
    for module in ("triton", "jvp_flash_attention", "diffusers"):
        pytest.importorskip(module)
    tests = Path(__file__).with_name("flash_in_interpreter.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
