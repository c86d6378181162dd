"""What makes the dataset matter? One variant after the other, all at the same number of meta-training steps.

    python scripts/search_conditioning.py                          # all variants, three seeds; hours on one core
    python scripts/search_conditioning.py --seeds 0 -- kit kit-3   # some; what has been trained is found again
    python scripts/search_conditioning.py --table                  # only the result file, from what has been trained

ConvNet-3 of width 16, the training classes of the embedded packs. Selection looks at the column "validation" (held-out
training classes); unseen classes only tell how it went. Writes reports/results/conditioning_search.json
and the table in docs/conditioning.md; variants that this folder has not trained keep the rows that stand there, each
with the commit that measured it.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.model import SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.supervised import ScratchConfig, finetune
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.evaluate import Interval, Swap, Swapper, difference, evaluate_episodes, evaluate_fits
from pudnet_lib.images.pool import Pool
from pudnet_lib.methods.contenders import CLASS_LOSS_ALONE, REFINED
from pudnet_lib.methods.refined import refined
from pudnet_lib.methods.run import TrainConfig, build_model, train_run
from pudnet_lib.profiles import replace_fields
from pudnet_lib.results import atomic_write, git_commit, provenance, read_result, write_result
from pudnet_lib.studies.ablations import effects

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "conditioning"
RESULT = ROOT / "reports" / "results" / "conditioning_search.json"
DOCS = ROOT / "docs" / "conditioning.md"
#: Between these the table stands in the docs.
BEGIN, END = "<!-- the search's table: begin -->", "<!-- the search's table: end -->"
STEPS, EPISODES = 3000, 60

#: A residual on a learned base, both meta-trained together; the base starts and learns like a shared network.
JOINT: dict[str, Any] = {
    "pudnet.residual": True,
    "pudnet.generator_width": 32,
    "meta.learning_rate": 1e-3,
    "meta.direct_learning_rate": 2e-2,
}
#: The last steps for the residual, after its base.
STAGED: dict[str, Any] = {
    **JOINT,
    "meta.steps": 500,
    "meta.direct_learning_rate": 2e-3,
    "base_steps": STEPS - 500,
    "base_learning_rate": 2e-2,
}
PLAIN: dict[str, Any] = {
    "pudnet.generator_width": 32,
    "pudnet.filter_norm": "standardise",
    "meta.learning_rate": 1e-2,
}
#: Twelve more kinds of images and five times as many classes, made of the same images.
KINDS: dict[str, Any] = {"pool.variations": ("turned 90°", "turned 180°", "turned 270°", "inverted")}
ALONE: dict[str, Any] = {"meta.weights": asdict(CLASS_LOSS_ALONE)}
VARIANTS: dict[str, dict[str, Any]] = {
    "shared network, lr 1e-2": {"kind": "shared", "meta.learning_rate": 1e-2},
    "shared network, lr 2e-2": {"kind": "shared", "meta.learning_rate": 2e-2},
    "shared network, lr 4e-2": {"kind": "shared", "meta.learning_rate": 4e-2},
    "shared network, refined": {"kind": "shared", "meta.learning_rate": 2e-2, **REFINED},
    "constant embedding, lr 3e-3": {**PLAIN, "pudnet.embedding": "constant", "meta.learning_rate": 3e-3},
    "constant embedding, lr 1e-2": {**PLAIN, "pudnet.embedding": "constant"},
    "constant embedding, lr 2e-2": {**PLAIN, "pudnet.embedding": "constant", "meta.learning_rate": 2e-2},
    "constant embedding, lr 4e-2": {**PLAIN, "pudnet.embedding": "constant", "meta.learning_rate": 4e-2},
    "plain": PLAIN,
    "plain, lr 3e-3": {**PLAIN, "meta.learning_rate": 3e-3},
    "plain, lr 2e-2": {**PLAIN, "meta.learning_rate": 2e-2},
    "plain, α = 0.5": {**PLAIN, "pudnet.alpha": 0.5},
    "plain, class pooling": {**PLAIN, "pudnet.pooling": "class"},
    "plain, refined": {**PLAIN, **REFINED},
    "constant embedding, refined": {**PLAIN, "pudnet.embedding": "constant", **REFINED},
    "residual": JOINT,
    "residual, refined": {**JOINT, **REFINED},
    "residual after its base": STAGED,
    "residual after its base, 5 learned steps": {
        **STAGED,
        **REFINED,
        "pudnet.refine": 5,
        "pudnet.refine_decay": 0.7,
        "pudnet.refine_learned": True,
    },
    "residual after its base, refined": {**STAGED, **REFINED},
    "residual after its base, refined on the sketch alone": {**STAGED, **REFINED, "pudnet.refine_support": False},
    "residual after its base, refined in 5 steps": {
        **STAGED,
        **REFINED,
        "pudnet.refine": 5,
        "pudnet.refine_decay": 0.7,
    },
    "residual after its base, refined in 20 steps": {
        **STAGED,
        **REFINED,
        "pudnet.refine": 20,
        "pudnet.refine_decay": 0.9,
    },
    "shared network, more kinds": {"kind": "shared", "meta.learning_rate": 2e-2, **KINDS},
    "shared network, more kinds, refined": {"kind": "shared", "meta.learning_rate": 2e-2, **KINDS, **REFINED},
    "plain, more kinds": {**PLAIN, **KINDS},
    "shared network, class loss alone": {"kind": "shared", "meta.learning_rate": 2e-2, **ALONE},
    "shared network, class loss alone, refined": {"kind": "shared", "meta.learning_rate": 2e-2, **ALONE, **REFINED},
    "shared network, lr 1e-2, class loss alone": {"kind": "shared", "meta.learning_rate": 1e-2, **ALONE},
    "shared network, lr 4e-2, class loss alone": {"kind": "shared", "meta.learning_rate": 4e-2, **ALONE},
    "constant embedding, lr 1e-2, class loss alone": {**PLAIN, "pudnet.embedding": "constant", **ALONE},
    "constant embedding, lr 2e-2, class loss alone": {
        **PLAIN,
        "pudnet.embedding": "constant",
        "meta.learning_rate": 2e-2,
        **ALONE,
    },
    "plain, class loss alone": {**PLAIN, **ALONE},
    "plain, lr 2e-2, class loss alone": {**PLAIN, "meta.learning_rate": 2e-2, **ALONE},
    "residual after its base, class loss alone": {**STAGED, **ALONE},
    "residual after its base, class loss alone, refined": {**STAGED, **ALONE, **REFINED},
    "residual after its base, class loss alone, refined in 20 steps": {
        **STAGED,
        **ALONE,
        **REFINED,
        "pudnet.refine": 20,
        "pudnet.refine_decay": 0.9,
    },
    "residual, class loss alone": {**JOINT, **ALONE},
    "residual, class loss alone, refined": {**JOINT, **ALONE, **REFINED},
    "residual, more kinds": {**JOINT, **KINDS},
    "residual, more kinds, refined": {**JOINT, **KINDS, **REFINED},
}
REFERENCE = "shared network, lr 2e-2"
TUNED = "shared network, fine-tuned (ceiling)"


@dataclass(frozen=True)
class SearchConfig:
    """What was searched, for the result's provenance."""

    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int = STEPS
    episodes: int = EPISODES
    seed: int = 0


def train_config(variant: str, seed: int) -> TrainConfig:
    base = TrainConfig(
        pudnet=PudNetConfig(TargetConfig(width=16), seed=seed),
        meta=MetaConfig(steps=STEPS, seed=seed, validate_every=0, accelerator="cpu"),
        episode_seed=seed,
    )
    return replace_fields(base, VARIANTS[variant])


def unrefined(config: TrainConfig) -> TrainConfig:
    """The training that a variant shares with its like without refinement, where that takes no part in training."""
    if not config.pudnet.refine or config.pudnet.refine_learned:
        return config
    plain = PudNetConfig()
    kept = {n: getattr(plain, n) for n in ("refine", "refine_rate", "refine_decay", "refine_learned", "refine_support")}
    return replace(config, pudnet=replace(config.pudnet, **kept))


def folder(variant: str, seed: int) -> Path:
    return RUNS / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in variant)}-{seed}"


def measure(variant: str, seed: int, pool: Pool) -> pd.DataFrame:
    """Meta-train a variant, or find it again, and let it classify validation and unseen episodes."""
    path, config = folder(variant, seed) / "rows.csv", train_config(variant, seed)
    if path.is_file():
        return pd.read_csv(path)
    config, wanted = unrefined(config), config.pudnet
    same = next(v for v in VARIANTS if unrefined(train_config(v, seed)) == config)  # trained once for all of them
    run = folder(same, seed)
    losses = "-class_loss_alone" if config.meta.weights == CLASS_LOSS_ALONE else ""
    base = RUNS / f"base-{config.base_steps}-{config.base_learning_rate}{losses}-{seed}"  # the same for many variants
    if config.base_steps and base.is_dir() and not run.exists():
        shutil.copytree(base, run / "base")
    own = pool if config.pool == pool.config else Pool(config.pool)
    outcome = train_run(config, run, progress=False, pool=own)
    if config.base_steps and not base.is_dir():
        shutil.copytree(run / "base", base)
    model = outcome.model
    if isinstance(model, SharedNetwork):
        model = refined(model, wanted) if wanted.refine else model
    elif wanted != config.pudnet:  # a refiner with fixed steps has no trained state
        model = build_model(replace(config, pudnet=wanted)).eval()
        model.load_state_dict(outcome.model.state_dict(), strict=False)
    blind = not wanted.refine and (config.kind == "shared" or wanted.embedding == "constant")
    swapper, tables = Swapper(pool.train, EpisodeConfig().sketch_per_class), []
    for classes in ("validation", "unseen"):
        sampler = getattr(pool, f"{classes}_episodes")(EpisodeConfig())
        swaps: tuple[Swap, ...] = ("own",) if blind or classes == "validation" else ("own", "far", "near")
        tables.append(evaluate_episodes(model, sampler, EPISODES, swapper, swaps).assign(classes=classes))
        if variant == REFERENCE and classes == "unseen":
            tuning = ScratchConfig(
                learning_rate=0.03, epochs=30, batch_size=32, evaluations=1, accelerator="cpu", seed=seed,
                gradient_centralization=False,
            )  # fmt: skip
            fit = partial(fine_tuned, outcome.model, tuning)
            tables.append(evaluate_fits(fit, sampler, 20).assign(classes=classes, swap="own", method=TUNED))
    table = pd.concat(tables, ignore_index=True).rename(columns={"seconds": "prediction_seconds"})
    names = table["method"].fillna(variant) if "method" in table else variant
    table = table.assign(method=names, seed=seed, metric="accuracy", meta_training_seconds=outcome.seconds)
    atomic_write(path, table.to_csv(index=False))
    return table


def fine_tuned(model: Any, tuning: ScratchConfig, data: Any) -> torch.nn.Module:
    return finetune(predict(model, data), data, None, tuning).network


def rows_to_publish(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, validation, difference from the reference, far and near gain; over all sources and for each."""
    tables = [effects(table, REFERENCE).assign(dataset="all sources")]
    tables += [effects(part, REFERENCE).assign(dataset=name) for name, part in table.groupby("dataset")]
    costs = table[table["swap"] == "own"].groupby("method")[["prediction_seconds", "meta_training_seconds"]].median()
    chance = table["chance"].groupby(table["dataset"]).mean()
    found = pd.concat(tables, ignore_index=True).join(costs, on="method")
    return found.assign(chance=found["dataset"].map(chance).fillna(chance.mean()))


def with_earlier(rows: pd.DataFrame, commit: str) -> pd.DataFrame:
    """Add the rows of variants that were measured elsewhere, as the result file has them, in the variants' order."""
    rows, order = rows.assign(commit=commit), [REFERENCE, TUNED, *(v for v in VARIANTS if v != REFERENCE)]
    if RESULT.is_file():
        old = read_result(RESULT)
        kept = pd.DataFrame(old["rows"])
        kept = kept[~kept["method"].isin(set(rows["method"])) & kept["method"].isin(order)]
        since = kept["commit"] if "commit" in kept else old["provenance"]["commit"]
        rows = pd.concat([rows, kept.assign(commit=since)], ignore_index=True)
    return rows.sort_values("method", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def answer(table: pd.DataFrame) -> str:
    """Name the best design and the best blind rival on held-out training classes, and what lies between them."""
    found = effects(table, REFERENCE)
    chosen = found[(found["metric"] == "validation") & (found["method"] != TUNED)].set_index("method")["mean"]
    rivals = [m for m in chosen.index if m.startswith(("shared", "constant"))]
    blind, ours = [m for m in rivals if "refined" not in m], [m for m in chosen.index if m not in rivals]
    rival, best = str(chosen[blind].idxmax()), str(chosen[ours].idxmax())
    own = table[(table["classes"] == "unseen") & (table["swap"] == "own")]
    mine = table[(table["classes"] == "unseen") & (table["method"] == best)]
    swapped = mine.assign(method=mine["swap"])
    gain = difference(own, best, rival)
    ceiling = (
        f", the fine-tuned ceiling by {difference(own, TUNED, rival).signed()}" if TUNED in set(own["method"]) else ""
    )
    return (
        f"Chosen on held-out training classes, “{best}” differs from the best blind rival, “{rival}”, by "
        f"{gain.signed()} points on unseen classes (n = {gain.n}, {gain.seeds} seeds){ceiling}; its far gain is "
        f"{difference(swapped, 'own', 'far').signed()}, its near gain {difference(swapped, 'own', 'near').signed()}."
    )


def markdown(rows: pd.DataFrame) -> str:
    """The table that stands in docs/conditioning.md: one line a variant, over all sources."""
    everywhere = rows[rows["dataset"] == "all sources"]
    quantities = {"validation": "validation, %", "accuracy": "unseen, %", "effect": "against the reference"}
    quantities |= {"far gain": "far gain", "near gain": "near gain"}
    lines = [f"| variant | seeds | {' | '.join(quantities.values())} |", "|---" * (len(quantities) + 2) + "|"]
    for method, part in everywhere.groupby("method", sort=False):
        found = {r["metric"]: Interval(r["mean"], r["low"], r["high"], r["n"]) for r in part.to_dict(orient="records")}
        cells = [
            "" if q not in found else str(found[q]) if q in ("validation", "accuracy") else found[q].signed()
            for q in quantities
        ]
        name = f"{method} (the reference)" if method == REFERENCE else str(method)
        lines.append(f"| {name} | {part['seeds'].max()} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, []], help="which; all of them by default")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--table", action="store_true", help="train nothing; tabulate what has been measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, began = [int(s) for s in options.seeds.split(",")], time.perf_counter()
    wanted = [(v, s) for s in seeds for v in options.variants or VARIANTS]
    pool = None if options.table else Pool()
    for variant, seed in wanted if pool is not None else []:
        found_now = measure(variant, seed, pool)  # type: ignore[arg-type]
        means = found_now.groupby(["method", "classes", "swap", "dataset"])["value"].mean().unstack()
        print(means.assign(mean=means.mean(axis=1)).round(1).to_string(header=seed == seeds[0]), flush=True)
    found = [(v, s) for v in VARIANTS for s in seeds if (folder(v, s) / "rows.csv").is_file()]
    table = pd.concat([pd.read_csv(folder(v, s) / "rows.csv") for v, s in found], ignore_index=True)
    config = SearchConfig(tuple(dict.fromkeys(v for v, _ in found)), tuple(sorted({s for _, s in found})))
    rows = with_earlier(rows_to_publish(table), git_commit())
    write_result(
        RESULT,
        "conditioning_search",
        "Which design makes predicted parameters fit the dataset they were predicted for?",
        answer(table),
        rows,
        provenance(config, time.perf_counter() - began),
        title="The search for what makes the dataset matter",
        profile="laptop",
    )
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    text = f"{before}{BEGIN}\n\n{markdown(rows)}\n\n{END}{rest.partition(END)[2]}"
    atomic_write(DOCS, text)
    print(answer(table))


if __name__ == "__main__":
    main()
