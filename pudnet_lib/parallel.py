"""Run one function over many items, side by side in processes. Our choice.

Networks as small as the kit's are fastest with one thread each: two took eight times as long while other programs ran.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

Result = TypeVar("Result")


def parallel(
    function: Callable[..., Result], items: Sequence[Any], jobs: int = 1, description: str = "",
    labels: Sequence[str] = (), on_result: Callable[[int, Result], None] | None = None, shared: Any = None,
) -> list[Result]:  # fmt: skip
    """Map a function over items; what is ``shared`` is its second argument, and goes to each process once."""
    results: dict[int, Result] = {}

    def begin(place: int) -> None:
        name = f": {labels[place]}" if labels else ""
        bar.set_description_str(f"{description} {place + 1} of {len(items)}{name}")

    def keep(place: int, result: Result) -> None:
        results[place] = result
        bar.update()
        if on_result is not None:
            on_result(place, result)

    with tqdm(total=len(items), leave=False, disable=not items or not description, delay=1) as bar:
        if jobs == 1 or len(items) < 2:
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for place, item in enumerate(items):
                    begin(place)
                    keep(place, function(item) if shared is None else function(item, shared))
            finally:
                torch.set_num_threads(before)
        else:
            call = function if shared is None else partial(_with_shared, function)
            with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), _begin, (shared,)) as executor:
                places = {executor.submit(call, item): place for place, item in enumerate(items)}
                try:
                    for future in as_completed(places):
                        begin(min(len(items) - 1, len(results) + 1))
                        keep(places[future], future.result())
                except BaseException:
                    executor.shutdown(wait=False, cancel_futures=True)
                    raise
    return [results[place] for place in range(len(items))]


def end_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` in a thread once the process that started this one has ended, by whatever signal."""
    started_by = parent_process()  # it may have ended before this one got here
    parent = started_by.pid if started_by else os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        stop()

    threading.Thread(target=watch, daemon=True).start()


_SHARED: Any = None  # of a worker


def _begin(shared: Any) -> None:
    global _SHARED
    end_with_parent(lambda: os._exit(1))
    _SHARED = shared
    torch.set_num_threads(1)


def _with_shared(function: Callable[..., Result], item: Any) -> Result:
    return function(item, _SHARED)
