"""Run one function over many items, side by side: in processes of this machine, or on a dask cluster. Our choice.

Networks as small as the kit's are fastest with one thread each: two threads took eight times as long while other
programs ran. Workers end when their parent does, however it ended. One bar shows what is done and the time left.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from pudnet_lib.errors import PudNetError

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[..., Result],
    items: Sequence[Item],
    jobs: int = 1,
    description: str = "",
    scheduler: str = "",
    labels: Sequence[str] = (),
    threads: int = 1,
    on_result: Callable[[int, Result], None] | None = None,
    shared: Any = None,
) -> list[Result]:
    """Map a function over items."""
    bar = tqdm(total=len(items), leave=False, disable=not items or not description, delay=1)
    results: dict[int, Result] = {}

    def begin(place: int) -> None:
        name = f": {labels[place]}" if labels else ""
        bar.set_description_str(f"{description} {place + 1} of {len(items)}{name}")

    def keep(place: int, result: Result) -> None:
        results[place] = result
        bar.update()
        if on_result is not None:
            on_result(place, result)

    with bar:
        if scheduler:
            with dask_client(scheduler) as client:
                call = function if shared is None else partial(_with, function, client.scatter(shared, broadcast=True))
                futures = client.map(call, items, pure=False)  # impure: a second run does again what failed
                for place, future in enumerate(futures):
                    keep(place, future.result())
        elif jobs == 1 or len(items) < 2:
            with thread_count(threads):
                for place, item in enumerate(items):
                    begin(place)
                    keep(place, function(item) if shared is None else function(item, shared))
        else:
            call = function if shared is None else partial(_with_shared, function)
            begun = (threads, shared)
            with ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), _begin, begun) as executor:
                places = {executor.submit(call, item): place for place, item in enumerate(items)}
                try:
                    for future in as_completed(places):
                        begin(min(len(items) - 1, len(results) + 1))
                        keep(places[future], future.result())
                except BaseException:
                    executor.shutdown(wait=False, cancel_futures=True)
                    raise
    return [results[place] for place in range(len(items))]


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Compute with so many threads, and with the old number afterwards; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def end_with_parent() -> None:
    """End this worker when the process that started it ends, even if that one was killed."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_SHARED: Any = None  # of a worker


def _begin(threads: int, shared: Any = None) -> None:
    global _SHARED
    end_with_parent()
    _SHARED = shared
    if threads:
        torch.set_num_threads(threads)


def _with_shared(function: Callable[..., Result], item: Any) -> Result:
    return function(item, _SHARED)


def _with(function: Callable[..., Result], shared: Any, item: Any) -> Result:
    return function(item, shared.result() if hasattr(shared, "result") else shared)


def dask_client(scheduler: str) -> Any:
    """Connect to a dask scheduler."""
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
