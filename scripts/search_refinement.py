"""How long may the refinement's steps be on a ResNet-18? Chosen on held-out training classes of Tiny-ImageNet.

    python scripts/search_refinement.py             # both seeds; about a quarter of an hour on one core
    python scripts/search_refinement.py --seeds 0   # one; what has been measured is found again
    python scripts/search_refinement.py --table     # only the result file, from what has been measured

The kit's ten steps were chosen for a ConvNet-3 (``scripts/search_conditioning.py``); a ResNet-18 has seven times as
many layers in a row, all of which a step changes. Here the first step's length is multiplied by a factor; 0 is the
network without refinement. The network is the shared one: a residual that is trained after its base is blind, so that
what suits the base suits the kit. The best factor stands in ``REFINE_FACTORS`` of
``pudnet_lib.methods.contenders``. The unseen classes take no part. Needs Tiny-ImageNet (``pudnet datasets``).
Writes reports/results/refinement_search.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from search_rates import VALIDATION

from pudnet_lib.core.model import SharedNetwork
from pudnet_lib.evaluate import difference, evaluate_episodes
from pudnet_lib.images.pool import Pool
from pudnet_lib.methods.contenders import REFINE_FACTORS, REFINED, kit_config, train, train_config
from pudnet_lib.methods.refined import refined
from pudnet_lib.results import atomic_write, provenance, write_result
from pudnet_lib.studies import imagenet

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "refinement"


@dataclass(frozen=True)
class SearchConfig:
    """What was searched, for the result's provenance."""

    factors: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0)
    seeds: tuple[int, ...] = (0, 1)
    episodes: int = 10
    seed: int = 0


def measure(seed: int, config: SearchConfig, pool: Pool) -> pd.DataFrame:
    """Let one shared network classify held-out training classes, refined with steps of all lengths."""
    path, contest = RUNS / f"{seed}-{config.episodes}.csv", imagenet.PROFILES["laptop"].contest
    if path.is_file():
        return pd.read_csv(path)
    outcome = train(train_config(contest, "shared network", seed), pool)
    assert isinstance(outcome.model, SharedNetwork)
    sampler, tables = pool.validation_episodes(VALIDATION, config.seed), []
    for factor in config.factors:
        steps = replace(kit_config(contest.target), refine_rate=factor * REFINED["pudnet.refine_rate"])
        model = refined(outcome.model, steps) if factor else outcome.model
        table = evaluate_episodes(model, sampler, config.episodes)
        tables.append(table.assign(method=f"steps × {factor:g}", seed=seed, meta_training_seconds=outcome.seconds))
        print(f"seed {seed}, steps × {factor:<5g} {table['value'].mean():5.1f} %", flush=True)
    rows = pd.concat(tables, ignore_index=True)
    atomic_write(path, rows.to_csv(index=False))
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a factor: accuracy, and the difference from the network without refinement, paired."""
    zero, rows = table[table["method"] == "steps × 0"], []
    both = pd.concat([table, zero.assign(method="none", value=0.0)])
    for method, part in table.groupby("method", sort=False):
        facts = {"method": str(method), "dataset": "tiny-imagenet"}
        costs = {"prediction_seconds": part["seconds"].median(), "chance": part["chance"].iloc[0]}
        rows.append(facts | {"metric": "validation"} | vars(difference(both, str(method), "none")) | costs)
        if method != "steps × 0":
            rows.append(facts | {"metric": "gain"} | vars(difference(table, str(method), "steps × 0")))
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--table", action="store_true", help="train nothing; tabulate what has been measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config, began = SearchConfig(), time.perf_counter()
    if not options.table:
        pool = Pool(imagenet.PROFILES["laptop"].contest.pool())
        for seed in options.seeds.split(","):
            measure(int(seed), config, pool)
    paths = sorted(RUNS.glob(f"*-{config.episodes}.csv"))
    rows = summary(pd.concat([pd.read_csv(path) for path in paths], ignore_index=True))
    found = rows[rows["metric"] == "validation"].set_index("method")["mean"]
    best = float(str(found.drop("steps × 0").idxmax()).rpartition(" ")[2])
    gain = rows[(rows["metric"] == "gain") & (rows["method"] == f"steps × {best:g}")].iloc[0]
    agreed = REFINE_FACTORS.get("resnet18", 1.0) == best
    answer = (
        f"The best steps of a ResNet-18 are those of a ConvNet-3 × {best:g}: {gain['mean']:+.1f} "
        f"[{gain['low']:+.1f}, {gain['high']:+.1f}] points over no refinement on held-out training classes "
        f"(n = {gain['n']}, {gain['seeds']} seeds); the experiments {'take' if agreed else 'do not take'} them."
    )
    write_result(
        ROOT / "reports" / "results" / "refinement_search.json",
        "refinement_search",
        "How long may the refinement's steps be on a ResNet-18 of width 16?",
        answer,
        rows,
        provenance(config, time.perf_counter() - began),
        title="The refinement's steps for the ResNet-18",
        profile="laptop",
    )
    print(answer)


if __name__ == "__main__":
    main()
