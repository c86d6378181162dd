"""One engine for sweeps and single runs: this process, processes, dask."""

import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.parallel import parallel


def test_in_this_process():
    assert parallel(abs, [-1, 2, -3]) == [1, 2, 3]


def test_on_a_dask_cluster_in_order_and_errors_come_back():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(1, processes=False, threads_per_worker=2, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        assert parallel(abs, list(range(-5, 0)), scheduler=address) == [5, 4, 3, 2, 1]
        with pytest.raises(TypeError):
            parallel(abs, ["no number"], scheduler=address)


def test_no_scheduler_is_a_clear_error(monkeypatch):
    distributed = pytest.importorskip("distributed")

    def unreachable(*args, **kwargs):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", unreachable)
    with pytest.raises(PudNetError, match=r"No dask scheduler answers at tcp://nowhere:1 \(Timed out\)"):
        parallel(abs, [1], scheduler="tcp://nowhere:1")
