"""Freed memory that stays with the process: page faults of a second round, counted."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")

ROUNDS = """
import ctypes, resource, sys
if sys.argv[1] == "cli":
    import clarep.cli
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def work():
    held = [libc.malloc(16 << 20) for _ in range(8)]
    for pointer in held:
        ctypes.memset(pointer, 1, 16 << 20)
    for pointer in held:
        libc.free(pointer)

work(), work()  # the first teaches glibc what sizes there are
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = (8 * 16 << 20) // os.sysconf("SC_PAGE_SIZE")


def faults(way, **environment):
    known = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", ROUNDS, way]
    environment = known | environment
    return int(subprocess.check_output(command, env=environment, text=True, timeout=300))


def test_the_command_line_keeps_what_was_freed():
    assert faults("cli") < PAGES / 100


@pytest.mark.parametrize(
    "own",
    [{"MALLOC_TRIM_THRESHOLD_": "1048576"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}],
)
def test_a_users_own_setting_stays(own):
    assert faults("cli", **own) > PAGES / 2
    assert faults("library", **own) > PAGES / 2
