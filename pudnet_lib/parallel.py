"""Run one function over many items, side by side in processes. Our choice.

Networks as small as the kit's are fastest with one thread each: two took eight times as long while other programs ran.
"""

import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

Result = TypeVar("Result")


def parallel(
    function: Callable[..., Result], items: Sequence[Any], jobs: int = 1, description: str = "",
    labels: Sequence[str] = (), shared: Any = None,
) -> list[Result]:  # fmt: skip
    """Map a function over items; what is ``shared`` is its second argument, and goes to each process once."""

    def begin(place: int) -> None:
        name = f": {labels[place]}" if labels else ""
        bar.set_description_str(f"{description} {place + 1} of {len(items)}{name}")

    with tqdm(total=len(items), leave=False, disable=not items or not description, delay=1) as bar:
        if jobs == 1 or len(items) < 2:
            results, before = [], torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for place, item in enumerate(items):
                    begin(place)
                    results.append(function(item) if shared is None else function(item, shared))
                    bar.update()
            finally:
                torch.set_num_threads(before)
            return results
        # As bytes: multiprocessing would move tensors into shared memory, and leave all views of them dangling.
        work = pickle.dumps((function, shared))
        with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), _begin, (work,)) as executor:
            futures = [executor.submit(_call, pickle.dumps(item)) for item in items]
            try:
                for done, future in enumerate(as_completed(futures), 1):
                    begin(min(len(items) - 1, done))
                    future.result()
                    bar.update()
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]


def end_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` in a thread once the process that started this one has ended, by whatever signal."""
    started_by = parent_process()  # it may have ended before this one got here
    parent = started_by.pid if started_by else os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        stop()

    threading.Thread(target=watch, daemon=True).start()


_WORK: Any = None  # of a worker: function, and what is shared


def _begin(work: bytes) -> None:
    global _WORK
    end_with_parent(lambda: os._exit(1))
    _WORK = pickle.loads(work)  # from the process that started this one
    torch.set_num_threads(1)


def _call(item: bytes) -> Any:
    function, shared = _WORK
    return function(pickle.loads(item)) if shared is None else function(pickle.loads(item), shared)
