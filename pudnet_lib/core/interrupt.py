"""Ctrl-C that waits for a step to end, so that an interrupted run leaves whole steps behind. Our choice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back a first Ctrl-C until the block ends, then raise it; a second one is raised at once.

    Outside the main thread, where Python delivers no signals, the block runs as it is.

    Raises:
        KeyboardInterrupt: At the block's end, if Ctrl-C came while it ran.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True

    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous):  # ignored, or handled outside Python: not ours to change
        yield
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt
