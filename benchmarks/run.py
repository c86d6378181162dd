"""All benchmarks, one command: ratios side by side in one run, medians and spread, to reports/results/benchmarks.json.

make bench
"""

from __future__ import annotations

import importlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from pudnet_lib.results import provenance, write_result

HERE = Path(__file__).parent


@dataclass(frozen=True)
class BenchmarkConfig:
    """Which benchmarks ran."""

    names: tuple[str, ...]
    seed: int = 0


def measured(name: str) -> list[dict[str, Any]]:
    """Run one benchmark."""
    sys.path.insert(0, str(HERE))
    rows: list[dict[str, Any]] = importlib.import_module(name).run()
    return rows


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("bench_*.py"))
    began, rows = time.perf_counter(), []
    for name in names:
        print(f"{name} …", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:  # what one leaves behind, the next does not feel
            found = alone.submit(measured, name).result()
        for row in found:
            print(
                f"  {row['name']}: {row['ratio']:.2f} × against {row['rival']} ({row['goal']}: {row['met']})",
                flush=True,
            )
            rows.append({"benchmark": name, "metric": "ratio", "mean": row["ratio"], **row})
    table = pd.DataFrame(rows)
    with_goal = [r for r in rows if r["met"] is not None]
    missed = [
        f"{r['name']} ({r['ratio']:.2f} × against {r['rival']}, goal {r['goal']})" for r in with_goal if not r["met"]
    ]
    answer = f"{len(with_goal) - len(missed)} of {len(with_goal)} goals are met" + (
        f"; missed: {'; '.join(missed)}." if missed else "."
    )
    write_result(
        HERE.parent / "reports" / "results" / "benchmarks.json",
        "benchmarks",
        "How fast are prediction, meta-training and reading, against doing the same in the usual way?",
        answer,
        table,
        provenance(BenchmarkConfig(tuple(names)), time.perf_counter() - began, 0),
        title="Benchmarks",
        profile="laptop",
    )
    print(answer)


if __name__ == "__main__":
    main()
