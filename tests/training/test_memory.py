from __future__ import annotations

import subprocess
import sys

import pytest

from pudnet_lib import speed as memory
from pudnet_lib.speed import kept_memory

# In a process of its own: what others have freed before would hide the page faults.
COUNT_FAULTS = """
import resource, torch
from pudnet_lib.speed import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(5 * 2**20).fill_(1.0) for _ in range(4)]  # 80 MiB, which is 20,480 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = max(faults() for _ in range(4))
with kept_memory():
    with kept_memory():
        faults()
    inside = min(faults() for _ in range(20))  # the inner block's end changes nothing
after = max(faults() for _ in range(4))
print(outside, inside, after)
"""


@pytest.mark.skipif(memory._glibc() is None, reason="another C library than GNU's")
def test_freed_memory_is_used_again_within_the_block_and_given_back_after_it():
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, timeout=120, check=True)
    outside, inside, after = map(int, done.stdout.split())
    assert outside > 5000
    assert inside < 100
    assert after > 5000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with kept_memory():
        assert memory._depth == 0


def test_an_error_leaves_the_block():
    with pytest.raises(ValueError, match="inside"), kept_memory():
        raise ValueError("inside")
    assert memory._depth == 0
