"""All benchmarks, one command: ratios side by side in one run, medians and spread, to reports/results/benchmarks.json.

make bench
"""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pudnet_lib.experiments.record import provenance, write_result

HERE = Path(__file__).parent


@dataclass(frozen=True)
class BenchmarkConfig:
    """Which benchmarks ran."""

    names: tuple[str, ...]
    seed: int = 0


def main() -> None:
    sys.path.insert(0, str(HERE))
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("bench_*.py"))
    began, rows = time.perf_counter(), []
    for name in names:
        print(f"{name} …", flush=True)
        for row in importlib.import_module(name).run():
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
