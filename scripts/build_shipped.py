"""Meta-train the predictors that ship with the kit, evaluate them with all controls, and write their cards.

python scripts/build_shipped.py              # resumes where it was cut off; about 25 minutes on 2 cores
python scripts/build_shipped.py --cards      # evaluate and write the cards again, without training
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

from pudnet_lib.datasets import GroupConfig
from pudnet_lib.datasets.pool import Pool
from pudnet_lib.evaluation import Swapper, compare_models, difference, interval
from pudnet_lib.experiments.record import atomic_write, device_name, git_commit
from pudnet_lib.hypernetwork import PudNetConfig
from pudnet_lib.shipped import load_shipped, shipped_notes
from pudnet_lib.targets import TargetConfig
from pudnet_lib.training.meta import MetaConfig
from pudnet_lib.training.run import TrainConfig, train_run

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "pudnet_lib" / "shipped"
GROUPS = 200
TARGET = TargetConfig("convnet3", 32)
META = MetaConfig(steps=4000, validate_every=500, validation_groups=60, accelerator="cpu")
CONFIGS = {
    "pudnet": TrainConfig(
        pudnet=PudNetConfig(TARGET, generator_width=32, filter_norm="standardise"),
        meta=dataclasses.replace(META, learning_rate=1e-2),
    ),
    "shared": TrainConfig("shared", PudNetConfig(TARGET), meta=dataclasses.replace(META, learning_rate=2e-2)),
}
TITLES = {
    "pudnet": "PudNet: predicts a ConvNet-3 of width 32 from the sketch of a dataset",
    "shared": "Shared network: the control without a hypernetwork, same groups, losses and steps",
}


def train(name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    outcome = train_run(CONFIGS[name], ROOT / "runs" / "shipped" / name)
    assert outcome.model_path is not None
    shutil.copyfile(outcome.model_path, SHIPPED / f"{name}.safetensors")


def measure() -> pd.DataFrame:
    """Predict for unseen groups of all embedded packs: own sketch, far swap, near swap, shared network."""
    pool = Pool(CONFIGS["pudnet"].pool)
    sampler = pool.unseen_groups(GroupConfig())
    swapper = Swapper(pool.train, GroupConfig().sketch_per_class)
    models = {"PudNet": [load_shipped("pudnet")], "shared network": [load_shipped("shared")]}
    return compare_models(models, sampler, GROUPS, swapper)


def card(name: str, table: pd.DataFrame) -> str:
    notes = shipped_notes(name)
    data = sorted(set(table["dataset"]))
    lines = [f"# {TITLES[name]}", "", "Made by `python scripts/build_shipped.py`.", ""]
    lines += [
        f"- Data: the training classes of the embedded packs ({', '.join(data)}); validation classes held out of them.",
        f"- Meta-training: {notes['steps']} steps, {notes['seconds']:.0f} s on {device_name()} (one core).",
        f"- Accuracy on held-out training classes: {100 * notes['validation']:.1f} %.",
        f"- Results below: commit {git_commit()}, {GROUPS} groups a source, 5 classes each (4 of fashion), 20 training",
        "  images a class (10 of them the sketch), one seed of meta-training; mean [95 % interval over groups].",
        "",
        "| accuracy on unseen classes, % | " + " | ".join(data) + " |",
        "|---|" + "---|" * len(data),
    ]
    for method in dict.fromkeys(table["method"]):
        cells = [str(interval(part(table, method, d)["value"].to_numpy())) for d in data]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    chance = [f"{table[table['dataset'] == d]['chance'].mean():.1f}" for d in data]
    lines.append("| chance | " + " | ".join(chance) + " |")
    lines += ["", "| difference, points | " + " | ".join(data) + " | all |", "|---|" + "---|" * (len(data) + 1)]
    pairs = {
        "PudNet − shared network": "shared network",
        "far gain (own sketch − another source's)": "PudNet, far swap",
        "near gain (own sketch − other classes')": "PudNet, near swap",
    }
    for title, rival in pairs.items():
        cells = [difference(table, "PudNet", rival, d).signed() for d in data]
        lines.append(f"| {title} | " + " | ".join([*cells, difference(table, "PudNet", rival).signed()]) + " |")
    config = json.dumps(notes["train"], indent=1)
    return "\n".join([*lines, "", "Whole configuration:", "", "```json", config, "```", ""])


def part(table: pd.DataFrame, method: str, dataset: str) -> pd.DataFrame:
    return table[(table["method"] == method) & (table["dataset"] == dataset)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", action="store_true", help="evaluate and write the cards, without training")
    if not parser.parse_args().cards:
        threads = max(1, torch.get_num_threads() // len(CONFIGS))
        with ProcessPoolExecutor(len(CONFIGS), mp_context=get_context("spawn")) as pool:
            list(pool.map(train, CONFIGS, [threads] * len(CONFIGS)))
    table = measure()
    for name in CONFIGS:
        atomic_write(SHIPPED / f"{name}.md", card(name, table))
    print((SHIPPED / "pudnet.md").read_text().split("Whole")[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
