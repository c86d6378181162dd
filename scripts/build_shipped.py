"""Meta-train the predictors that ship with the kit, evaluate them with all controls, and write their cards.

    nice -n 10 python scripts/build_shipped.py             # resumes where it was cut off; 25 minutes on one idle core
    nice -n 10 python scripts/build_shipped.py --seeds 0   # a third of it: only the networks that ship
    python scripts/build_shipped.py --cards                # evaluate and write the cards alone

The recipes are those of notebook 02, on a ConvNet-3 of width 16 for 3,500 steps. Seed 0 ships; the others are there so
that the cards' intervals hold over seeds of meta-training. The plain predictor must be alive: its predictions for the
three sources have to differ by at least 5 % of their length.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.pudnet import PudNet, liveness
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.evaluate import ALL, difference, interval_of, measure, summarise
from pudnet_lib.export.models import load_model, save
from pudnet_lib.files import write_atomically
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods import Recipe, recipe_table
from pudnet_lib.methods.training import Runs, meta_train
from pudnet_lib.results import device_name, git_commit

SHIPPED = Path(__file__).parents[1] / "pudnet_lib" / "shipped"
STEPS, EPISODES, WIDTH = 3500, 100, 16
REFINED = LastBlock(steps=5, rate=0.2, decay=0.7)
KIT, PLAIN, SHARED, CONSTANT = "PudNet (kit)", "PudNet (paper)", "shared network", "constant embedding"
REFINED_SHARED = "shared network, refined"
WIDE = dict(generator_width=32, filter_norm="standardise")
METHODS = {
    KIT: Recipe(
        "pudnet", lr=1e-3, target_lr=2e-3, base=5 / 6, base_lr=2e-2, residual=True, generator_width=32, refine=REFINED
    ),
    PLAIN: Recipe("pudnet", lr=1e-3, target_lr=2e-2, **WIDE),
    CONSTANT: Recipe("pudnet", lr=1e-2, target_lr=1e-2, embedding="constant", **WIDE),
    SHARED: Recipe("shared", lr=2e-2),
    REFINED_SHARED: Recipe("refined", start=SHARED, refine=REFINED),
}
#: Method → its file, and the title of its card.
FILES = {
    KIT: ("pudnet", "PudNet, the kit's design: predicts a ConvNet-3 of width 16 from a dataset's labelled images"),
    PLAIN: ("paper", "PudNet, the paper's plain design: predicts a ConvNet-3 of width 16 from the sketch of a dataset"),
    CONSTANT: ("constant", "Constant embedding: a hypernetwork that sees no data (a rival)"),
    SHARED: ("shared", "Shared network: the control without a hypernetwork, same episodes, steps and loss"),
}


def ship(runs: Runs, pool: Pool, seed: int) -> None:
    """Put one seed's networks into the package; a collapsed plain design is refused."""
    for method, (name, _) in FILES.items():
        run = runs[method, seed]
        outcome, path = run.outcome(pool), SHIPPED / f"{name}.safetensors"
        assert outcome is not None
        assert outcome.model_path is not None
        _, notes = load_model(outcome.model_path)
        if method == PLAIN:
            assert isinstance(outcome.model, PudNet)
            drawn = [pool.unseen_episodes(EpisodeConfig()).episode(0, s) for s in range(len(pool.train))]
            alive = liveness(outcome.model, [(e.sketch, e.sketch_labels) for e in drawn])
            assert alive.spread >= 0.05, f"the plain design has collapsed: {alive}"
            notes = notes | {"liveness": alive._asdict()}
        outcome.model.notes = notes
        save(outcome.model, path)


def results(table: pd.DataFrame) -> list[str]:
    """The tables that stand in every card."""
    found, data = summarise(table), sorted(set(table["dataset"]))
    lines = [
        "| accuracy on unseen classes, % | " + " | ".join(data) + " | seconds |",
        "|---|" + "---|" * (len(data) + 1),
    ]
    for method, rows in found.groupby("method", sort=False):
        cells = [str(interval_of(table[(table["method"] == method) & (table["dataset"] == d)])) for d in data]
        lines.append(f"| {method} | " + " | ".join(cells) + f" | {rows['seconds'].median():.3f} |")
    chance = [f"{table[table['dataset'] == d]['chance'].mean():.1f}" for d in data]
    lines += ["| chance | " + " | ".join(chance) + " | |", ""]
    lines += ["| difference, points | " + " | ".join([*data, ALL]) + " |", "|---|" + "---|" * (len(data) + 1)]
    for method in (KIT, PLAIN):
        pairs = {rival: f"{method} − {rival}" for rival in (SHARED, CONSTANT, REFINED_SHARED)}
        pairs |= {
            f"{method}, far swap": f"{method}: far gain (own − another source's sketch)",
            f"{method}, near swap": f"{method}: near gain (own − other classes' sketch)",
        }
        for rival, title in pairs.items():
            cells = [difference(table, method, rival, d).signed() for d in (*data, None)]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def card(
    method: str, unseen: pd.DataFrame, held_out: pd.DataFrame, commit: str, seeds: Sequence[int], episodes: int
) -> str:
    """A model card; its configuration, steps and seconds are those in the file."""
    name, title = FILES[method]
    _, notes = load_model(SHIPPED / f"{name}.safetensors")
    validation = held_out[held_out["method"] == method].groupby("seed")["value"].mean()
    lines = [
        f"# {title}",
        "",
        "Made by `python scripts/build_shipped.py`.",
        "",
        f"- Data: the training classes of the embedded packs ({', '.join(sorted(set(unseen['dataset'])))}); validation",
        "  classes are held out of them; unseen classes take no part.",
        f"- Meta-training: {notes['steps']} steps, {notes['seconds']:.0f} seconds on one core ({device_name()}).",
        f"- Accuracy on held-out training classes, seeds {list(seeds)}: "
        f"{', '.join(f'{v:.1f}' for v in validation)} %. Seed {seeds[0]} ships.",
    ]
    if "liveness" in notes:
        alive = notes["liveness"]
        lines.append(
            f"- Alive: predictions for the three sources lie {100 * alive['spread']:.0f} % of their length apart; "
            f"{100 * alive['dead']:.0f} % of the recurrence's outputs are zero."
        )
    lines += [
        "",
        f"Results of commit {commit}: {episodes} episodes a source, 5 classes each (fashion has 4), 20 training",
        "images a class, 10 of them the plain design's sketch; the kit's design, and the control “shared network,",
        "refined”, take five gradient steps of the last block on all of them. Seeds of meta-training: "
        f"{len(seeds)}; mean",
        "[95 % interval over episodes and seeds]. Seconds are the median of a whole prediction.",
        "",
        *results(unseen),
        "",
        "Every number as it is used:",
        "",
        "```",
        recipe_table({method: METHODS[method]}),
        "```",
        "",
        "Whole configuration:",
        "",
        "```json",
        json.dumps(notes["train"], indent=1),
        "```",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cards", action="store_true", help="evaluate and write the cards, without copying models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=EPISODES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    commit = git_commit()  # before files of the package change
    pool, drawn = Pool(PoolConfig()), EpisodeConfig()
    runs = meta_train(METHODS, pool, STEPS, options.seeds, TargetConfig(width=WIDTH))
    if not options.cards:
        ship(runs, pool, options.seeds[0])
    unseen = measure(runs, pool.unseen_episodes(drawn), options.episodes, swap_from=pool.train)
    held_out = measure(runs, pool.validation_episodes(drawn), options.episodes, ())
    for method, (name, _) in FILES.items():
        write_atomically(
            SHIPPED / f"{name}.md", card(method, unseen, held_out, commit, options.seeds, options.episodes).encode()
        )
    print("\n".join(results(unseen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
