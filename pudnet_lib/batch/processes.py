"""Processes and temporary folders of batches: whatever ends, and however, nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from ipykernel.kernelspec import write_kernel_spec

from pudnet_lib.files import PREFIX, lock

#: An environment variable that all descendants of a job carry, so that also its orphans are found.
JOB_VARIABLE = "PUDNET_JOB"


def tree(pid: int, tag: str = "") -> list[psutil.Process]:
    """List a process and its descendants; with a tag also those whose parents have died."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        found = {p.pid: p for p in (top, *top.children(recursive=True))}
    for process in psutil.process_iter() if tag else ():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_VARIABLE) == tag:
                found[process.pid] = process
    return list(found.values())


def kill(pid: int, tag: str) -> None:
    """Kill a process's tree, and whatever else carries the tag; not this process."""
    for process in tree(pid, tag):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid != os.getpid():
                process.kill()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder that is locked as long as it is in use."""
    made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    with made as name, lock(Path(name) / ".lock", "in use"):
        yield Path(name)


def own_kernel(folder: Path) -> dict[str, str]:
    """Write a ``python3`` kernel that is this interpreter; return the variables that make Jupyter prefer it."""
    write_kernel_spec(folder / "kernels" / "python3", {"display_name": "Python 3 (PudNet Kit)"})
    searched = [str(folder.resolve()), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return {"JUPYTER_PATH": os.pathsep.join(searched)}
