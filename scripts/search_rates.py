"""Which learning rates suit a ResNet-18 on Tiny-ImageNet? One factor a method, chosen on held-out training classes.

    python scripts/search_rates.py                    # all methods and factors; about an hour on one core
    python scripts/search_rates.py ProtoNet MUSML     # some; what has been measured is found again
    python scripts/search_rates.py --table            # only the result file, from what has been measured

At the laptop profile's number of steps, which decides much: with a few hundred steps hardly any rate is better than no
meta-training at all. The rates in ``pudnet_lib.methods.contenders`` were found for a ConvNet-3 on the embedded
packs. Here each method's rates are multiplied by a factor, all its rates by the same one; the best factors stand in
``RATE_FACTORS`` there. The unseen classes take no part. Needs Tiny-ImageNet (``pudnet datasets``). Writes
reports/results/rate_search.json.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch

from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.evaluate import evaluate_episodes, evaluate_fits, interval
from pudnet_lib.images.pool import Pool
from pudnet_lib.methods.contenders import PREDICTORS, RATE_FACTORS, train, unscaled_config, with_rates
from pudnet_lib.methods.metric import MetricFit
from pudnet_lib.methods.rivals import RIVALS, RivalConfig
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.results import atomic_write, provenance, write_result
from pudnet_lib.studies import imagenet

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "rates"
METHODS = (*PREDICTORS, *RIVALS)
FACTORS = (0.03, 0.1, 0.3)
#: Episodes of held-out training classes: more ways than in training, as the unseen classes have.
VALIDATION = EpisodeConfig(ways=20, sketch_per_class=10, support_per_class=10, query_per_class=10)


@dataclass(frozen=True)
class SearchConfig:
    """What was searched, for the result's provenance."""

    methods: tuple[str, ...] = METHODS
    factors: tuple[float, ...] = FACTORS
    steps: int = 1000
    episodes: int = 30
    seed: int = 0


def scaled(method: str, factor: float, config: SearchConfig) -> TrainConfig | RivalConfig:
    """The laptop profile's run of a method, with other rates."""
    contest = replace(imagenet.PROFILES["laptop"].contest, steps=config.steps)
    return with_rates(unscaled_config(contest, method, config.seed), factor)


def measure(method: str, factor: float, config: SearchConfig, pool: Pool, sampler: EpisodeSampler) -> pd.DataFrame:
    """Meta-train one method at one factor, or find it again, and let it classify the held-out training classes."""
    path = RUNS / f"{method.replace(' ', '_')}-{factor}-{config.steps}-{config.seed}.csv"
    if path.is_file():
        return pd.read_csv(path)
    outcome = train(scaled(method, factor, config), pool)
    if method in RIVALS:
        table = evaluate_fits(MetricFit(outcome.model), sampler, config.episodes)
    else:
        table = evaluate_episodes(outcome.model, sampler, config.episodes)
    table = table.assign(method=method, factor=factor, seed=config.seed, meta_training_seconds=outcome.seconds)
    atomic_write(path, table.to_csv(index=False))
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a method and factor: accuracy on held-out training classes, with its interval over episodes."""
    rows = []
    for (method, factor), part in table.groupby(["method", "factor"], sort=False):
        facts = {
            "method": f"{method}, rates × {factor:g}", "metric": "validation", "dataset": "tiny-imagenet",
            "chance": part["chance"].iloc[0], "prediction_seconds": part["seconds"].median(),
            "meta_training_seconds": part["meta_training_seconds"].iloc[0], "rates_of": method, "factor": factor,
        }  # fmt: skip
        rows.append(facts | vars(interval(part["value"].to_numpy())))
    return pd.DataFrame(rows)


def best_factors(rows: pd.DataFrame) -> dict[str, float]:
    """Method → factor of the highest accuracy."""
    return rows.loc[rows.groupby("rates_of", sort=False)["mean"].idxmax()].set_index("rates_of")["factor"].to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", choices=[*METHODS, []], help="which; all of them by default")
    parser.add_argument("--table", action="store_true", help="train nothing; tabulate what has been measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config, began = SearchConfig(), time.perf_counter()
    if not options.table:
        pool = Pool(imagenet.PROFILES["laptop"].contest.pool())
        sampler = pool.validation_episodes(VALIDATION, config.seed)
        for method in options.methods or config.methods:
            for factor in config.factors:
                mean = measure(method, factor, config, pool, sampler)["value"].mean()
                print(f"{method:20} × {factor:<5} {mean:5.1f} %", flush=True)
    rows = summary(pd.concat([pd.read_csv(path) for path in sorted(RUNS.glob(f"*-{config.steps}-{config.seed}.csv"))]))
    best = best_factors(rows)
    agreed = {method: RATE_FACTORS["resnet18"].get(method, 1.0) for method in best} == best
    answer = (
        "Best factors on the rates of a ConvNet-3, on held-out training classes: "
        + ", ".join(f"{method} × {factor:g}" for method, factor in best.items())
        + ("; the experiments take these." if agreed else "; the experiments do not take these yet.")
    )
    write_result(
        ROOT / "reports" / "results" / "rate_search.json",
        "rate_search",
        "Which learning rates suit a ResNet-18 of width 16 on Tiny-ImageNet?",
        answer,
        rows,
        provenance(config, time.perf_counter() - began),
        title="Learning rates for the ResNet-18",
        profile="laptop",
    )
    print(answer)


if __name__ == "__main__":
    main()
