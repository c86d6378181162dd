"""Meta-train the predictors that ship with the kit, evaluate them with all controls, and write their cards.

    python scripts/build_shipped.py              # resumes where it was cut off; about 25 minutes on 2 cores
    python scripts/build_shipped.py --train 0    # meta-train one seed only
    python scripts/build_shipped.py --cards      # evaluate what has been trained, without training

Seed 0 ships; seeds 1 and 2 are trained as well, so that the cards' intervals hold over seeds of meta-training.
Learning rates were chosen on held-out training classes (see docs/conditioning.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from pudnet_lib.baselines.refined import refined
from pudnet_lib.baselines.shared import SharedNetwork
from pudnet_lib.datasets import GroupConfig
from pudnet_lib.datasets.pool import Pool
from pudnet_lib.evaluation import Swapper, compare_models, crossed_interval, difference
from pudnet_lib.experiments.contenders import REFINED
from pudnet_lib.experiments.profiles import replace_fields
from pudnet_lib.experiments.record import atomic_write, device_name, git_commit
from pudnet_lib.hypernetwork import PudNetConfig
from pudnet_lib.targets import TargetConfig
from pudnet_lib.training.meta import MetaConfig
from pudnet_lib.training.models import load_model
from pudnet_lib.training.run import TrainConfig, train_run

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "pudnet_lib" / "shipped"
RUNS = ROOT / "runs" / "shipped"
GROUPS, SEEDS = 100, (0, 1, 2)
TARGET = TargetConfig("convnet3", 16)
META = MetaConfig(steps=3500, learning_rate=1e-2, validate_every=500, validation_groups=60, accelerator="cpu")
PAPER = PudNetConfig(TARGET, generator_width=32, filter_norm="standardise")
CONFIGS = {
    # The base is a shared network; the hypernetwork learns what differs, and the prediction refines itself.
    "pudnet": replace_fields(
        TrainConfig(
            pudnet=dataclasses.replace(PAPER, residual=True, filter_norm="none"),
            meta=dataclasses.replace(META, steps=500, learning_rate=1e-3, direct_learning_rate=2e-3),
            base_steps=3000,
            base_learning_rate=2e-2,
        ),
        REFINED,
    ),
    "paper": TrainConfig(pudnet=PAPER, meta=META),
    "constant": TrainConfig(pudnet=dataclasses.replace(PAPER, embedding="constant"), meta=META),
    "shared": TrainConfig("shared", PudNetConfig(TARGET), meta=dataclasses.replace(META, learning_rate=2e-2)),
}
METHODS = {
    "PudNet": "pudnet",
    "PudNet, plain design": "paper",
    "constant embedding": "constant",
    "shared network": "shared",
}
TITLES = {
    "pudnet": "PudNet, the kit's design: predicts a ConvNet-3 of width 16 from a dataset's labelled images",
    "paper": "PudNet, the paper's plain design: predicts a ConvNet-3 of width 16 from the sketch of a dataset",
    "constant": "Constant embedding: a hypernetwork that sees no data (a rival)",
    "shared": "Shared network: the control without a hypernetwork, same groups, losses and steps",
}


def config(name: str, seed: int) -> TrainConfig:
    base = CONFIGS[name]
    return dataclasses.replace(
        base,
        pudnet=dataclasses.replace(base.pudnet, seed=seed),
        meta=dataclasses.replace(base.meta, seed=seed),
        group_seed=seed,
    )


def train(name: str, seed: int, threads: int) -> None:
    torch.set_num_threads(threads)
    outcome = train_run(config(name, seed), RUNS / f"{name}-{seed}", progress=False)
    assert outcome.model_path is not None
    assert outcome.validation is not None
    print(f"{name}, seed {seed}: {outcome.seconds:.0f} s, validation {100 * outcome.validation:.1f} %", flush=True)
    if seed == 0:
        shutil.copyfile(outcome.model_path, SHIPPED / f"{name}.safetensors")


def measure() -> pd.DataFrame:
    """Predict for unseen groups of all embedded packs: own sketch and both swaps, and the rivals that see no data."""
    pool = Pool(CONFIGS["pudnet"].pool)
    swapper = Swapper(pool.train, GroupConfig().sketch_per_class)
    models = {
        method: [load_model(RUNS / f"{name}-{seed}" / "model.safetensors")[0] for seed in SEEDS]
        for method, name in METHODS.items()
    }
    models["shared network, refined"] = [
        refined(model, CONFIGS["pudnet"].pudnet)
        for model in models["shared network"]
        if isinstance(model, SharedNetwork)
    ]
    swapped = ("PudNet", "PudNet, plain design")
    return compare_models(models, pool.unseen_groups(GroupConfig()), GROUPS, swapper, swapped=swapped)


def accuracy_of(table: pd.DataFrame, method: str, dataset: str) -> str:
    rows = table[(table["method"] == method) & (table["dataset"] == dataset)]
    return str(crossed_interval(rows.pivot_table(index="seed", columns="group", values="value").to_numpy()))


def results(table: pd.DataFrame) -> list[str]:
    """The tables that stand in every card."""
    data = sorted(set(table["dataset"]))
    lines = [
        "| accuracy on unseen classes, % | " + " | ".join(data) + " | seconds |",
        "|---|" + "---|" * (len(data) + 1),
    ]
    for method in dict.fromkeys(table["method"]):
        cells = [accuracy_of(table, method, d) for d in data]
        seconds = table[table["method"] == method]["seconds"].median()
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {seconds:.3f} |")
    chance = [f"{table[table['dataset'] == d]['chance'].mean():.1f}" for d in data]
    lines += ["| chance | " + " | ".join(chance) + " | |", ""]
    lines += ["| difference, points | " + " | ".join(data) + " | all |", "|---|" + "---|" * (len(data) + 1)]
    for method in ("PudNet", "PudNet, plain design"):
        pairs = {
            "shared network": f"{method} − shared network",
            "constant embedding": f"{method} − constant embedding",
            "shared network, refined": f"{method} − shared network, refined",
            f"{method}, far swap": f"{method}: far gain (own − another source's sketch)",
            f"{method}, near swap": f"{method}: near gain (own − other classes' sketch)",
        }
        for rival, title in pairs.items():
            cells = [difference(table, method, rival, d).signed() for d in data]
            lines.append(f"| {title} | " + " | ".join([*cells, difference(table, method, rival).signed()]) + " |")
    return lines


def card(name: str, table: pd.DataFrame) -> str:
    notes = [load_model(RUNS / f"{name}-{seed}" / "model.safetensors")[1] for seed in SEEDS]
    validation = ", ".join(f"{100 * n['validation']:.1f}" for n in notes)
    lines = [
        f"# {TITLES[name]}",
        "",
        "Made by `python scripts/build_shipped.py`.",
        "",
        f"- Data: the training classes of the embedded packs ({', '.join(sorted(set(table['dataset'])))}); validation",
        "  classes are held out of them; unseen classes take no part.",
        f"- Meta-training: {notes[0]['steps']} steps, {notes[0]['seconds']:.0f} seconds on {device_name()} (one core).",
        f"- Accuracy on held-out training classes, seeds {SEEDS}: {validation} %. Seed {SEEDS[0]} ships.",
        "",
        f"Results of commit {git_commit()}: {GROUPS} groups a source, 5 classes each (fashion has 4), 20 training",
        "images a class, 10 of them the plain design's sketch; the kit's design, and the control “shared network,",
        f"refined”, take ten gradient steps on all of them. {len(SEEDS)} seeds of meta-training; mean [95 % interval",
        "over groups and seeds].",
        "Seconds are the median of a whole prediction, recalibration and class means included.",
        "",
    ]
    settings = json.dumps(notes[0]["train"], indent=1)
    return "\n".join([*lines, *results(table), "", "Whole configuration:", "", "```json", settings, "```", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", action="store_true", help="evaluate and write the cards, without training")
    parser.add_argument("--train", type=int, choices=SEEDS, help="meta-train this seed only")
    options = parser.parse_args()
    if not options.cards:
        seeds = SEEDS if options.train is None else (options.train,)
        runs = [(name, seed) for seed in seeds for name in CONFIGS]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(train, name, seed, max(1, torch.get_num_threads() // 2)) for name, seed in runs]
            for job in jobs:
                job.result()
    if options.train is None:
        table = measure()
        for name in CONFIGS:
            atomic_write(SHIPPED / f"{name}.md", card(name, table))
        print("\n".join(results(table)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
