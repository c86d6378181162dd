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

from pudnet_lib.batch.processes import JOB_VARIABLE, kill
from pudnet_lib.files import write_atomically
from pudnet_lib.parallel import end_with_parent


def execute(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run ``source.ipynb`` of a folder with papermill."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    started, limit = time.monotonic(), job["time_limit"]

    def cell_started(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code":
            print(json.dumps({"cell": cell_index}), flush=True)

    limits = {
        "start_timeout": 120, "execution_timeout": int(limit),
        "timeout_func": lambda cell: max(1, int(limit - (time.monotonic() - started))),
    }  # fmt: skip
    status, error = "ok", ""
    try:
        execute_notebook(
            str(folder / "source.ipynb"), str(folder / "executed.ipynb"), job["parameters"], kernel_name="python3",
            progress_bar=False, cwd=job["cwd"], on_cell_start=cell_started, **limits,
        )  # fmt: skip
    except PapermillExecutionError as failure:
        status, error = "failed", f"{failure.ename}: {failure.evalue}"
    except (CellTimeoutError, TimeoutError):
        status, error = "timeout", f"not done after {limit:g} s"
    except DeadKernelError:
        status, error = "failed", "the kernel died; was there enough memory?"
    return {"status": status, "error": error, "seconds": round(time.monotonic() - started, 2)}


def _stop() -> None:
    kill(os.getpid(), os.environ.get(JOB_VARIABLE, ""))
    os._exit(1)


if __name__ == "__main__":
    end_with_parent(_stop)
    place = Path(sys.argv[1])
    outcome = execute(json.loads(place.read_text(encoding="utf-8")), place.parent)
    # The kernel is this process's only child, and it has ended.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6
    write_atomically(
        place.with_name("outcome.json"), json.dumps({**outcome, "peak_memory_mb": round(peak, 1)}).encode()
    )
