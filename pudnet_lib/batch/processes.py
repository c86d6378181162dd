"""Processes, locks and temporary folders of batches: whatever ends, and however, nothing stays behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from pudnet_lib.errors import PudNetError

PREFIX, SWEPT_AFTER = "pudnet-", 24 * 3600.0
#: An environment variable that all descendants of a job carry, so that also its orphans are found.
JOB_VARIABLE = "PUDNET_JOB"


def end_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` in a thread once this process's parent has died, by whatever signal."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        stop()

    threading.Thread(target=watch, daemon=True).start()


def tree(pid: int, tag: str = "") -> list[psutil.Process]:
    """List a process and its descendants; with a tag also those whose parents have died."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        found = {p.pid: p for p in (top, *top.children(recursive=True))}
    for process in psutil.process_iter() if tag else ():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(JOB_VARIABLE) == tag:
                found[process.pid] = process
    return list(found.values())


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes that may be gone already."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@contextlib.contextmanager
def lock(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, which a killed process releases; where it is held: wait after saying so, or raise ``busy``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise PudNetError(busy) from None
            print(busy, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sweep(*folders: Path) -> None:
    """Remove temporary folders, and half-written files in these folders, that a killed process left over a day ago."""
    levels = ("", "*/", "*/*/")  # no deeper: a folder of data sets has millions of files
    found = [p for folder in folders for level in levels for p in folder.glob(f"{level}.{PREFIX}*")]
    for place in [*Path(tempfile.gettempdir()).glob(f"{PREFIX}*"), *found]:
        with contextlib.suppress(OSError, PudNetError):
            facts = place.lstat()
            if time.time() - facts.st_mtime < SWEPT_AFTER or facts.st_uid != os.getuid() or place.is_symlink():
                continue
            if place.is_file():
                place.unlink()
                continue
            with lock(place / ".lock", "in use"):
                shutil.rmtree(place)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder that is locked as long as it is in use."""
    with (
        tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name,
        lock(Path(name) / ".lock", "in use"),
    ):
        yield Path(name)


def own_kernel(folder: Path) -> dict[str, str]:
    """Write a ``python3`` kernel that is this interpreter; return the variables that make Jupyter prefer it."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3 (PudNet Kit)",
        "language": "python",
        "metadata": {"debugger": True},
    }
    (folder / "kernels" / "python3").mkdir(parents=True, exist_ok=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec, indent=1), encoding="utf-8")
    searched = [str(folder.resolve()), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return {"JUPYTER_PATH": os.pathsep.join(searched)}
