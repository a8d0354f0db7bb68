import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys, threading
from ser.cli.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
import torch

def work():
    for _ in range(10):
        torch.zeros(16 * 2**20).add_(1)  # 64 MiB

def faults(run):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def in_a_thread():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

for warm_up in (work, in_a_thread, in_a_thread):
    warm_up()
print(faults(work), min(faults(in_a_thread) for _ in range(3)))  # a heap may be divided unhappily once
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_freed_memory_is_used_again_instead_of_being_faulted_in_anew_in_every_thread():
    kept, returned = (
        [int(count) for count in subprocess.check_output([sys.executable, "-c", COUNT_FAULTS, how]).split()]
        for how in ("keep", "return")
    )
    assert all(many > 4 * few for few, many in zip(kept, returned, strict=True)), (kept, returned)


def test_other_c_libraries_are_left_alone(monkeypatch):
    from ser.cli.memory import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))  # macOS, musl
    assert keep_freed_memory() is False
