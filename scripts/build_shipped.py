"""Meta-train the predictors that ship with the kit, evaluate them with all controls, and write their cards.

    python scripts/build_shipped.py          # resumes where it was cut off; about 25 minutes on 2 cores
    python scripts/build_shipped.py --cards  # evaluate and write the cards alone

They are contenders of ``pudnet reproduce intra_dataset --grid study=long``, the same runs in the same cache: what one
of the two has trained, the other finds. Seed 0 ships; the others are there so that the cards' intervals hold over seeds
of meta-training. Rates and losses were chosen on held-out training classes (see docs/conditioning.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.model import SharedNetwork
from pudnet_lib.evaluate import Swapper, compare_models, crossed_interval, difference
from pudnet_lib.images.pool import Pool
from pudnet_lib.methods.contenders import PAPER, REFINED_SHARED, TARGETS, Contest, kit_config, train, train_config
from pudnet_lib.methods.refined import refined
from pudnet_lib.methods.run import TrainOutcome
from pudnet_lib.parallel import parallel
from pudnet_lib.results import atomic_write, device_name, git_commit
from pudnet_lib.shipped import shipped_notes
from pudnet_lib.studies.intra_dataset import STUDIES

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "pudnet_lib" / "shipped"
EPISODES, SEEDS = 100, (0, 1, 2)
CONTEST = Contest(target=TARGETS["ConvNet-3, width 16"], steps=STUDIES["long"]["steps"])
KIT, PLAIN = "PudNet", "PudNet, plain design"
#: Row of the cards' tables → the file, the contender.
METHODS = {
    KIT: ("pudnet", "PudNet (kit)"),
    PLAIN: ("paper", PAPER),
    "constant embedding": ("constant", "constant embedding"),
    "shared network": ("shared", "shared network"),
}
TITLES = {
    "pudnet": "PudNet, the kit's design: predicts a ConvNet-3 of width 16 from a dataset's labelled images",
    "paper": "PudNet, the paper's plain design: predicts a ConvNet-3 of width 16 from the sketch of a dataset",
    "constant": "Constant embedding: a hypernetwork that sees no data (a rival)",
    "shared": "Shared network: the control without a hypernetwork, same episodes and steps, the kit's loss",
}


def run_of(method: str, seed: int) -> TrainOutcome:
    """A contender's meta-training, which is done now unless the cache has it."""
    return train(train_config(CONTEST, METHODS[method][1], seed))


def train_all() -> None:
    """Meta-train what the cache lacks, and put seed 0 into the package."""
    configs = [train_config(CONTEST, contender, seed) for seed in SEEDS for _, contender in METHODS.values()]
    parallel(train, configs, 2, "meta-training")
    for method, (name, _) in METHODS.items():
        path = run_of(method, SEEDS[0]).model_path
        assert path is not None
        shutil.copyfile(path, SHIPPED / f"{name}.safetensors")


def measure() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict for episodes of all embedded packs: unseen classes with both swaps, and held-out training classes."""
    pool = Pool(CONTEST.pool())
    swapper = Swapper(pool.train, EpisodeConfig().sketch_per_class)
    models = {method: [run_of(method, seed).model for seed in SEEDS] for method in METHODS}
    held_out = compare_models(models, pool.validation_episodes(EpisodeConfig()), EPISODES, swapper, swapped=())
    kit = kit_config(CONTEST.target)
    models[REFINED_SHARED] = [refined(m, kit) for m in models["shared network"] if isinstance(m, SharedNetwork)]
    return compare_models(
        models, pool.unseen_episodes(EpisodeConfig()), EPISODES, swapper, swapped=(KIT, PLAIN)
    ), held_out


def accuracy_of(table: pd.DataFrame, method: str, dataset: str) -> str:
    rows = table[(table["method"] == method) & (table["dataset"] == dataset)]
    return str(crossed_interval(rows.pivot_table(index="seed", columns="episode", values="value").to_numpy()))


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
    for method in (KIT, PLAIN):
        pairs = {
            "shared network": f"{method} − shared network",
            "constant embedding": f"{method} − constant embedding",
            REFINED_SHARED: f"{method} − {REFINED_SHARED}",
            f"{method}, far swap": f"{method}: far gain (own − another source's sketch)",
            f"{method}, near swap": f"{method}: near gain (own − other classes' sketch)",
        }
        for rival, title in pairs.items():
            cells = [difference(table, method, rival, d).signed() for d in data]
            lines.append(f"| {title} | " + " | ".join([*cells, difference(table, method, rival).signed()]) + " |")
    return lines


def card(method: str, unseen: pd.DataFrame, held_out: pd.DataFrame, commit: str) -> str:
    """A model card, whose configuration, steps and seconds are those that the file of seed 0 holds."""
    name = METHODS[method][0]
    notes = shipped_notes(name)
    validation = held_out[held_out["method"] == method].groupby("seed")["value"].mean()
    lines = [
        f"# {TITLES[name]}",
        "",
        "Made by `python scripts/build_shipped.py`.",
        "",
        f"- Data: the training classes of the embedded packs ({', '.join(sorted(set(unseen['dataset'])))}); validation",
        "  classes are held out of them; unseen classes take no part.",
        f"- Meta-training: {notes['steps']} steps, {notes['seconds']:.0f} seconds on {device_name()} (one core).",
        f"- Accuracy on held-out training classes, seeds {SEEDS}: {', '.join(f'{v:.1f}' for v in validation)} %. "
        f"Seed {SEEDS[0]} ships.",
        "",
        f"Results of commit {commit}: {EPISODES} episodes a source, 5 classes each (fashion has 4), 20 training",
        "images a class, 10 of them the plain design's sketch; the kit's design, and the control “shared network,",
        f"refined”, take ten gradient steps on all of them. {len(SEEDS)} seeds of meta-training; mean [95 % interval",
        "over episodes and seeds].",
        "Seconds are the median of a whole prediction, recalibration and class means included.",
        "",
    ]
    settings = json.dumps(notes["train"], indent=1)
    return "\n".join([*lines, *results(unseen), "", "Whole configuration:", "", "```json", settings, "```", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", action="store_true", help="evaluate and write the cards, without copying models")
    options = parser.parse_args()
    commit = git_commit()  # before files of the package change
    if not options.cards:
        train_all()
    unseen, held_out = measure()
    for method, (name, _) in METHODS.items():
        atomic_write(SHIPPED / f"{name}.md", card(method, unseen, held_out, commit))
    print("\n".join(results(unseen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
