"""Run one notebook in this process's child kernel: ``python -m pudnet_lib.batch.execute JOB.json``, for runner.py.

Progress goes to stdout, one JSON line a cell; the outcome into ``outcome.json``. A process whose parent has died ends
itself and its kernel, so that a killed batch leaves nothing running.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from pudnet_lib.batch.processes import JOB_VARIABLE, end_with_parent, kill, tree
from pudnet_lib.files import write_atomically


def execute(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run ``source.ipynb`` of a folder with papermill."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    started = time.monotonic()

    def left(cell: Any) -> int:
        return max(1, int(job["time_limit"] - (time.monotonic() - started)))

    def cell_started(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code":
            print(json.dumps({"cell": cell_index}), flush=True)

    outcome = {"status": "ok", "error": ""}
    try:
        execute_notebook(
            str(folder / "source.ipynb"),
            str(folder / "executed.ipynb"),
            parameters=job["parameters"],
            kernel_name="python3",
            progress_bar=False,
            cwd=job["cwd"],
            start_timeout=120,
            execution_timeout=int(job["time_limit"]),
            timeout_func=left,
            on_cell_start=cell_started,
        )
    except PapermillExecutionError as error:
        outcome = {"status": "failed", "error": f"{error.ename}: {error.evalue}"}
    except (CellTimeoutError, TimeoutError):
        outcome = {"status": "timeout", "error": f"not done after {job['time_limit']:g} s"}
    except DeadKernelError:
        outcome = {"status": "failed", "error": "the kernel died; was there enough memory?"}
    return {**outcome, "seconds": round(time.monotonic() - started, 2)}


def _stop() -> None:
    kill([p for p in tree(os.getpid(), os.environ.get(JOB_VARIABLE, "")) if p.pid != os.getpid()])
    os._exit(1)


def main(job_file: str) -> None:
    """Run the job that a file describes."""
    end_with_parent(_stop)
    folder = Path(job_file).parent
    outcome = execute(json.loads(Path(job_file).read_text(encoding="utf-8")), folder)
    # The kernel is this process's only child, and it has ended.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6
    write_atomically(folder / "outcome.json", json.dumps({**outcome, "peak_memory_mb": round(peak, 1)}).encode())


if __name__ == "__main__":
    main(sys.argv[1])
