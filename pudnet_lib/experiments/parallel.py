"""Run one function over many items, side by side in processes: small networks use one core each best. Our choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import torch
from tqdm.auto import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int = 1, description: str = ""
) -> list[Result]:
    """Map a function over items.

    Args:
        function: A function of a module (processes are started anew), free of side effects on this process.
        items: Its arguments, picklable.
        jobs: Processes; each gets its share of the threads. 1 runs everything in this process.
        description: Shown beside the progress bar.

    Returns:
        The results in the items' order.
    """
    if jobs == 1 or len(items) < 2:
        return [function(item) for item in tqdm(items, desc=description, leave=False)]
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as executor:
        return list(tqdm(executor.map(function, items), total=len(items), desc=description, leave=False))
