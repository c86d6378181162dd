"""Choose rates, losses and the refinement on held-out base classes: one table of recipes, one run each.

    python scripts/search.py                                   # all recipes of a ConvNet-3; hours on one core
    python scripts/search.py "plain, lr 3e-3" --seeds 0 1      # some; what has been trained is found again
    python scripts/search.py --target resnet18 --width 16 --sources tiny-imagenet --steps 600

Selection looks at the column "validation" alone; unseen classes only tell how it went. Add a line to ``recipes`` to try
another design. Writes reports/curves/search.TARGET.json; docs/conditioning.md has what was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.evaluate import ALL, difference, measure, summarise
from pudnet_lib.files import write_atomically
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods import PAPER_LOSSES, Recipe
from pudnet_lib.methods.training import meta_train
from pudnet_lib.results import device_name, git_commit

RESULTS = Path(__file__).parents[1] / "reports" / "curves"  # beside the results that the report shows
REFERENCE = "shared network, lr 2e-2"


def recipes(deep: bool) -> dict[str, Recipe]:
    """Every design that is tried, its rates as they are used; a deep target has a tenth of them."""
    share = 0.1 if deep else 1.0
    plain = Recipe("pudnet", lr=share * 1e-3, target_lr=share * 2e-2, generator_width=32, filter_norm="standardise")
    joint = Recipe("pudnet", lr=share * 1e-3, target_lr=share * 2e-2, generator_width=32, residual=True)
    staged = joint.but(target_lr=share * 2e-3, base=5 / 6, base_lr=share * 2e-2)
    blind = plain.but(embedding="constant")
    found = {f"shared network, lr {r:g}e-2": Recipe("shared", lr=share * r * 1e-2) for r in (1, 2, 4)}
    found |= {f"plain, lr {r:g}e-3": plain.but(lr=share * r * 1e-3) for r in (1, 3, 20)}
    found |= {f"constant embedding, lr {r:g}e-3": blind.but(lr=share * r * 1e-3) for r in (3, 10, 20)}
    found |= {
        "plain, three losses": plain.but(losses=PAPER_LOSSES),
        "shared network, three losses": Recipe("shared", lr=share * 2e-2, losses=PAPER_LOSSES),
        "plain, α = 0.5": plain.but(alpha=0.5),
        "plain, codes normalised, lr 3e-3": plain.but(lr=share * 3e-3, normalise_codes=True),
        "plain, class pooling": plain.but(pooling="class"),
        "class attention": Recipe("class attention", lr=share * 1e-3, target_lr=share * 2e-2),
        "residual": joint,
        "residual after its base": staged,
    }
    ways = {f"refined in {n} steps": LastBlock(n, share * 0.1, 0.85) for n in (5, 10, 20, 40)}
    ways["refined in 5 longer steps"] = LastBlock(5, share * 0.2, 0.7)
    ways["all layers refined"] = LastBlock(10, share * 0.1, 0.85, layers="all")
    for title, way in ways.items():
        found[f"shared network, {title}"] = Recipe("refined", start=REFERENCE, refine=way)
        found[f"residual after its base, {title}"] = staged.but(refine=way)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which recipes; by default all")
    parser.add_argument("--target", default="convnet3")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=60, help="episodes a source")
    parser.add_argument("--sources", nargs="+", default=["fashion", "emoji", "glyphs"])
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = recipes(options.target != "convnet3")
    chosen = {REFERENCE: known[REFERENCE]} | {n: known[n] for n in options.names or known}
    pool, drawn = Pool(PoolConfig(tuple(options.sources))), EpisodeConfig()
    target = TargetConfig(options.target, options.width)  # type: ignore[arg-type]
    runs = meta_train(chosen, pool, options.steps, options.seeds, target, jobs=options.jobs)
    controls = ("far swap", "near swap") if len(options.sources) > 1 else ("near swap",)
    unseen = measure(
        runs, pool.unseen_episodes(drawn), options.episodes, controls, swap_from=pool.train, jobs=options.jobs
    )
    held_out = measure(runs, pool.validation_episodes(drawn), options.episodes, (), jobs=options.jobs)
    rows = []
    for part, table in (("validation", held_out), ("unseen", unseen)):
        found = summarise(table)
        found = found[found["dataset"] == ALL] if ALL in set(found["dataset"]) else found
        rows += found.assign(metric=part).to_dict(orient="records")
    for name in chosen:
        for metric, rival in {"far gain": f"{name}, far swap", "near gain": f"{name}, near swap",
                              "against the reference": REFERENCE}.items():  # fmt: skip
            if rival in set(unseen["method"]) and rival != name:
                rows.append({"method": name, "metric": metric, **vars(difference(unseen, name, rival))})
    facts = {"device": device_name(), "commit": git_commit(), "steps": options.steps, "seeds": options.seeds}
    text = json.dumps({"study": "search", "provenance": facts, "rows": rows}, indent=1).replace("NaN", "null")
    write_atomically(RESULTS / f"search.{options.target}.json", f"{text}\n".encode())
    for row in rows:
        print(f"{row['method']:50} {row['metric']:22} {row['mean']:+6.1f} [{row['low']:+.1f}, {row['high']:+.1f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
