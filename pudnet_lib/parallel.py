"""Run one function over many items, side by side: in processes of this machine, or on a dask cluster. Our choice.

Small networks use one core each best. The cluster is the one that ``pudnet reproduce --engine dask`` runs notebooks on;
networks trained from scratch and meta-training runs go there as single tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from pudnet_lib.errors import PudNetError

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int = 1,
    description: str = "",
    scheduler: str = "",
) -> list[Result]:
    """Map a function over items.

    Args:
        function: A function of a module (processes are started anew), free of side effects on this process.
        items: Its arguments, picklable.
        jobs: Processes; each gets its share of the threads. 1 runs everything in this process.
        description: Shown beside the progress bar.
        scheduler: Address of a dask scheduler, such as "tcp://head:8786"; its workers take the place of processes, and
            ``jobs`` is not used. Caches must be on a file system that all workers share.

    Returns:
        The results in the items' order.

    Raises:
        PudNetError: If dask is not installed, or the scheduler does not answer.
    """
    if scheduler:
        with dask_client(scheduler) as client:
            futures = client.map(function, items, pure=False)  # impure: a second run does again what failed
            return [future.result() for future in tqdm(futures, desc=description, leave=False)]
    if jobs == 1 or len(items) < 2:
        return [function(item) for item in tqdm(items, desc=description, leave=False)]
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as executor:
        return list(tqdm(executor.map(function, items), total=len(items), desc=description, leave=False))


def dask_client(scheduler: str) -> Any:
    """Connect to a dask scheduler.

    Args:
        scheduler: Its address.

    Returns:
        The client, a context manager.

    Raises:
        PudNetError: If dask is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise PudNetError("The dask engine needs the package distributed: pip install 'pudnet-kit[dask]'.") from None
    try:
        return Client(scheduler, timeout=15)
    except (OSError, ValueError) as error:
        raise PudNetError(
            f"No dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler`."
        ) from None
