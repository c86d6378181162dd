"""Does conditioning come with longer meta-training? Near gain, far gain and gain over the shared network by steps.

    nice -n 10 python scripts/conditioning_curves.py             # resumes where it was cut off; hours on one core
    python scripts/conditioning_curves.py --steps 8 --widths 4   # a minute, to try it

ConvNet-3 of widths 8 and 16, one run of 10,000 steps each (cosine schedule over all of them, so that earlier points
have not settled): the plain design at three rates of its hypernetwork, the shared network, one label-aware one. Every
point is measured on the same unseen episodes with both swaps, beside four numbers that tell a dead recurrence from a
living one. ``reports/curves/conditioning_curves.json`` is written anew after each point; notebooks 02 and 06 show it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import pudnet_lib.runs  # noqa: F401  (its hooks register themselves)
from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaConfig, meta_train
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.evaluate import Swapper, difference, evaluate_fits, interval_of
from pudnet_lib.files import write_atomically
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.class_attention import ClassAttention, ClassAttentionConfig
from pudnet_lib.results import device_name, git_commit

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "reports" / "curves" / "conditioning_curves.json"
POINTS = (100, 300, 1000, 2000, 3000, 5000, 7000, 10_000)
#: Design → rate of its own modules, and of the tensors that stand in the target; the class loss alone for all.
DESIGNS = {
    "plain, 1e-3": (1e-3, 2e-2),
    "shared network": (2e-2, 2e-2),
    "plain, 3e-3": (3e-3, 2e-2),
    "class attention": (1e-3, 2e-2),
    "plain, 2e-2": (2e-2, 2e-2),
}


def build(design: str, width: int, seed: int) -> ParameterModel:
    target = TargetConfig(width=width)
    if design == "shared network":
        return SharedNetwork(SharedConfig(target, seed))
    if design == "class attention":
        return ClassAttention(ClassAttentionConfig(target, seed=seed))
    return PudNet(PudNetConfig(target, generator_width=32, filter_norm="standardise", seed=seed))


@torch.no_grad()
def liveness(model: PudNet, sampler: EpisodeSampler, episodes: int = 3) -> dict[str, float]:
    """Spread of the weights between sources over their length, share of dead a_t, and the norms of a_t and α·ē."""
    model.eval()
    embeddings = [
        torch.stack([model.embed(sampler.episode(i, s).sketch) for i in range(episodes)])
        for s in range(len(sampler.pool))
    ]
    codes = torch.stack(model.ahru._steps(torch.cat(embeddings)), 1)  # (B, L, D), the a_t
    weights = model.generate(torch.cat(embeddings))
    flat = torch.cat([w.flatten(1) for w in weights.values()], 1).unflatten(0, (-1, episodes)).mean(1)  # (sources, P)
    spread = (flat - flat.mean(0)).norm(dim=1).mean() / flat.norm(dim=1).mean()
    mixed = model.config.alpha * torch.cat(embeddings).mean(1)
    return {
        "spread": float(spread),
        "dead": float((codes == 0).float().mean()),
        "norm_a": float(codes.norm(dim=2).mean()),
        "norm_e": float(mixed.norm(dim=1).mean()),
    }


def measured(model: ParameterModel, pool: Pool, episodes: int) -> list[dict[str, Any]]:
    """Accuracy per source, episode and swap."""
    swaps = ("own",) if isinstance(model, SharedNetwork) else ("own", "far", "near")
    sampler, swapper = pool.unseen_episodes(EpisodeConfig()), Swapper(pool.train, 10)
    table = evaluate_fits(partial(predict, model), sampler, episodes, None, model, swapper, swaps)
    wide = table.pivot(index=["dataset", "episode"], columns="swap", values="value").reset_index()
    return json.loads(wide.round(2).to_json(orient="records"))


def run(design: str, width: int, seed: int, steps: int, episodes: int, pool: Pool, folder: Path) -> None:
    """Train one design, measuring at the points; what a cut-off run has measured stays."""
    rate, direct = DESIGNS[design]
    name = f"{design.replace(', ', '-').replace(' ', '-')}-{width}-{seed}"
    notes = folder / f"{name}.json"
    rows = json.loads(notes.read_text()) if notes.is_file() else []
    if any(row["step"] == steps for row in rows):
        return
    model = build(design, width, seed)
    meta = MetaConfig(
        steps=steps, learning_rate=rate, direct_learning_rate=direct, weights=LossWeights(1, 0, 0), seed=seed,
        validate_every=0, checkpoint_every=500, accelerator="cpu",
    )  # fmt: skip
    unseen = pool.unseen_episodes(EpisodeConfig())

    def at(step: int) -> None:
        if (step not in POINTS and step != steps) or any(row["step"] == step for row in rows):
            return
        row: dict[str, Any] = {"design": design, "width": width, "seed": seed, "step": step, "rate": rate}
        row["values"] = measured(model, pool, episodes)
        if isinstance(model, PudNet):
            row |= liveness(model, unseen)
        rows.append(row)
        write_atomically(notes, json.dumps(rows).encode())
        model.train()
        print(time.strftime("%H:%M:%S"), name, step, {k: round(row[k], 3) for k in ("spread", "dead") if k in row})

    meta_train(model, pool.training_episodes(EpisodeConfig(), seed), meta, None, folder / name, False, at)


def collect(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.json")) for row in json.loads(path.read_text())]


def rows_of(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy, gains and liveness of every design, width and step; intervals are crossed over seeds and episodes."""
    rows: list[dict[str, Any]] = []
    frame = pd.DataFrame(points)
    for (width, step), part in frame.groupby(["width", "step"]):
        long = pd.DataFrame(
            [
                {"method": f"{p.design}, {swap}", "seed": p.seed, "dataset": v["dataset"], "episode": v["episode"],
                 "value": v[swap]}
                for p in part.itertuples() for v in p.values for swap in ("own", "far", "near") if swap in v
            ]
        )  # fmt: skip
        for design, mine in part.groupby("design", sort=False):
            own = f"{design}, own"
            found = {"accuracy": interval_of(long[long["method"] == own])}
            rivals = {"far gain": f"{design}, far", "near gain": f"{design}, near"}
            rivals |= {"gain over shared": "shared network, own"} if design != "shared network" else {}
            for metric, rival in rivals.items():
                if rival in set(long["method"]):
                    found[metric] = difference(long, own, rival)
            for metric, value in found.items():
                rows.append({"method": design, "width": width, "step": step, "metric": metric, **vars(value)})
            for metric, column, factor in (("spread, %", "spread", 100), ("dead, %", "dead", 100),
                                           ("|a_t|", "norm_a", 1), ("|α e|", "norm_e", 1)):  # fmt: skip
                if column in mine and mine[column].notna().any():
                    mean = factor * float(mine[column].mean())
                    rows.append({"method": design, "width": width, "step": step, "metric": metric, "mean": mean})
    return rows


def write(folder: Path, path: Path, device: str = "") -> None:
    """Put all points that are there into the result file."""
    facts = {
        "device": device or device_name(),
        "commit": git_commit(),
        "episodes": "5-way, 10 + 10 labelled images per class",
    }
    text = json.dumps({"study": "conditioning_curves", "provenance": facts, "rows": rows_of(collect(folder))}, indent=1)
    write_atomically(path, f"{text.replace('NaN', 'null')}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=POINTS[-1])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--episodes", type=int, default=30, help="unseen episodes a source")
    parser.add_argument("--collect", action="store_true", help="write the result file from the points that are there")
    parser.add_argument("--device", default="", help="with --collect: the machine that measured them, if another one")
    parser.add_argument("--folder", type=Path, default=ROOT / "reports" / "runs" / "conditioning_curves")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.collect:
        write(options.folder, options.out, options.device)
        return 0
    pool = Pool(PoolConfig())
    for seed in options.seeds:
        for width in options.widths:
            for design in DESIGNS:
                run(design, width, seed, options.steps, options.episodes, pool, options.folder)
                write(options.folder, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
