"""Live progress of a batch: one line a notebook on a terminal, one line an event where the output goes to a file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pudnet_lib.batch.engines import Progress as Callback


@contextlib.contextmanager
def show_progress(names: list[str]) -> Iterator[Callback]:
    """Show where each of some jobs is.

    Args:
        names: The jobs' names.

    Yields:
        The function to call with a job's name and a word.
    """
    console, started = Console(stderr=True), time.monotonic()
    if not console.is_terminal:
        yield lambda name, word: print(f"[{time.monotonic() - started:5.0f} s] {name}: {word}", flush=True)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[word]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks = {name: bar.add_task(name, start=False, total=1, word="waiting") for name in names}

        def tell(name: str, word: str) -> None:
            bar.start_task(tasks[name])
            over = word.startswith(("done", "FAILED"))
            bar.update(tasks[name], word=word, completed=int(over))
            if over:
                bar.stop_task(tasks[name])

        yield tell
