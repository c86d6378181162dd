"""One engine for sweeps and single runs: this process, or processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from pudnet_lib.parallel import parallel


def test_in_this_process():
    assert parallel(abs, [-1, 2, -3]) == [1, 2, 3]


def sleep_forever(_: int) -> None:
    time.sleep(600)


def one_of(item: int, shared: list[str]) -> str:
    return shared[item]


def test_what_is_shared_goes_to_each_process_once_and_results_keep_their_order():
    assert parallel(one_of, [1, 0], jobs=2, shared=["a", "b"]) == ["b", "a"]
    assert parallel(one_of, [1, 0], shared=["a", "b"]) == ["b", "a"]


def total(item: torch.Tensor, shared: torch.Tensor) -> int:
    return int(item.sum() + shared.sum())


def test_tensors_stay_where_they_are_so_that_views_of_them_stay_whole():
    shared, items = torch.ones(1000), [torch.ones(1000), torch.zeros(1000)]
    before, view = [t.data_ptr() for t in (shared, *items)], shared.numpy()
    assert parallel(total, items, jobs=2, shared=shared) == [2000, 1000]
    assert [t.data_ptr() for t in (shared, *items)] == before
    assert not any(t.is_shared() for t in (shared, *items))
    assert view.sum() == 1000


def test_threads_are_put_back():
    before = torch.get_num_threads()
    assert parallel(lambda _: torch.get_num_threads(), [0]) == [1]
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_end_when_their_parent_is_killed():
    call = "from tests.experiments.test_parallel import *; parallel(sleep_forever, [0, 1], jobs=2)"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\nif __name__ == '__main__':\n    {call}"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)

    def family() -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if os.getsid(process.pid) == parent.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    try:
        deadline = time.time() + 120
        while len(family()) < 4 and time.time() < deadline:  # parent, resource tracker, two workers
            time.sleep(0.3)
        assert len(family()) >= 4
        time.sleep(8)  # the workers import PyTorch before they watch
        parent.kill()
        parent.wait()
        deadline = time.time() + 60
        while family() and time.time() < deadline:
            time.sleep(0.3)
        assert family() == []
    finally:
        for pid in family():
            os.kill(pid, signal.SIGKILL)
