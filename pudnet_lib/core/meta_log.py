"""The log of a meta-training run: rows in memory, ``log.csv``, TensorBoard events, what the progress bar shows.

Our choice. A resumed run drops the rows behind its checkpoint, so that no step stands in the log twice.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FIELDS = ("step", "loss", "cosine", "auxiliary", "consistency", "accuracy", "rate", "seconds", "validation")


class MetaLog:
    """Collects one row a step.

    Args:
        run_dir: Where ``log.csv`` and the events go; None keeps rows in memory only.
        done: Steps that the checkpoint holds.
    """

    def __init__(self, run_dir: Path | None, done: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.validation_seconds = 0.0
        self._path = None if run_dir is None else run_dir / "log.csv"
        self._writer: Any = None
        self._written = 0
        if self._path is None:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed with a folder

        self._path.parent.mkdir(parents=True, exist_ok=True)
        if done and self._path.is_file():
            with self._path.open(newline="") as file:
                old = [row for row in csv.DictReader(file) if int(float(row["step"])) <= done]
            self.rows = [{k: float(v) for k, v in row.items() if v} for row in old]
        self._rewrite()
        self._writer = SummaryWriter(str(self._path.parent), purge_step=done + 1)

    def _rewrite(self) -> None:
        assert self._path is not None
        with self._path.open("w", newline="") as file:
            csv.DictWriter(file, FIELDS).writeheader()
        self._written = 0
        self.flush()

    def add(self, step: int, row: dict[str, float], seconds: float) -> None:
        """Add a step's row."""
        self.rows.append({"step": step, **row, "seconds": seconds})
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"meta/{name}", value, step)
        if len(self.rows) - self._written >= 100:
            self.flush()

    def timed(self, call: Callable[[], float]) -> float:
        """Run a validation outside the training clock."""
        began = time.perf_counter()
        value = call()
        self.validation_seconds += time.perf_counter() - began
        return value

    def shown(self) -> dict[str, str]:
        """Recent mean loss and last validation accuracy, for the progress bar."""
        recent = self.rows[-50:]
        shown = {"loss": f"{sum(r['loss'] for r in recent) / len(recent):.3f}"}
        validation = next((r["validation"] for r in reversed(self.rows) if "validation" in r), None)
        if validation is not None:
            shown["val"] = f"{100 * validation:.1f}%"
        return shown

    def flush(self) -> None:
        """Append the new rows to ``log.csv``."""
        if self._path is None:
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerows(self.rows[self._written :])
        self._written = len(self.rows)

    def close(self) -> None:
        """Write everything out."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
