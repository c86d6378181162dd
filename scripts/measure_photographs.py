"""Measure the predictor for photographs beside what a user would pick instead: reports/results/photographs.json.

    python scripts/measure_photographs.py DIR       # half an hour on one core

DIR holds base-0.safetensors, which ships, and base-1 and base-2 (``scripts/train_photographs.py``), whose training left
Tiny-ImageNet's 40 novel classes out; Tiny-ImageNet and CIFAR-10 must lie below PUDNET_DATA. Every method learns the
same 5-way episodes with 20 labelled images per class through the kit's own code, at the size that the networks read,
and they at larger ones if asked to; what takes long learns fewer of them. Rows are kept in DIR/rows as they come; a
second start goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from pudnet_lib.auto import with_lda
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.evaluate import difference, evaluate_fits, summarise
from pudnet_lib.export.models import load_model, trained_size
from pudnet_lib.images import load_images
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.registry import Recipe
from pudnet_lib.results import project_root, provenance, write_result
from pudnet_lib.trust import PRETRAINED

PACKS, WAYS = ("emoji", "fashion", "glyphs"), EpisodeConfig(5, 10, 10, 15)
KIT, MEANS, LDA = "photographs, last convolution refined", "photographs, class means", "photographs, LDA"
GC, FEATURES = "GC, 30 epochs", PRETRAINED
QUESTION = "How far does a predictor for photographs come, beside what a user would pick instead?"


def samplers(seed: int, size: int) -> Iterator[tuple[str, EpisodeSampler, int]]:
    """Name, episodes of classes that no training has seen, and the source's place among them."""
    yield "tiny-imagenet", Pool(PoolConfig(("tiny-imagenet",), size=size)).unseen_episodes(WAYS, seed), 0
    cifar = [load_images("cifar10", split=part, size=size, channels=3) for part in ("train", "test")]
    yield "cifar10", EpisodeSampler(cifar[:1], WAYS, seed, query_pool=cifar[1:], classes=[tuple(range(10))]), 0
    packs = Pool(PoolConfig(PACKS, size=size)).unseen_episodes(WAYS, seed)
    yield from ((name, packs, place) for place, name in enumerate(PACKS))


def predicted(model: ParameterModel, refine: LastBlock | None, lda: bool, data: ImageDataset) -> nn.Module:
    """Predict with this refinement or none; LDA takes the place of class means."""
    kept = model.refine
    model.refine = refine
    network = predict(model, data)
    model.refine = kept
    return with_lda(network, data) if lda else network


def recipe(data: ImageDataset, made: Recipe, model: ParameterModel) -> nn.Module:
    """Fit a method of the registry."""
    return made.kind.fit(
        data, target=model.config.target, seed=0, **made.options, **({"lr": made.lr} if made.lr else {})
    )


def methods(models: list[ParameterModel]) -> Iterator[tuple[str, int, bool, Callable[[ImageDataset], nn.Module]]]:
    """Name, seed, whether it takes long, and what fits it."""
    for seed, model in enumerate(models):
        yield MEANS, seed, False, partial(predicted, model, None, False)
        yield LDA, seed, False, partial(predicted, model, None, True)
        yield KIT, seed, False, partial(predicted, model, model.refine, False)
    others = {
        "1-NN on pixels": Recipe("1-NN", features="pixels", lr=0),
        f"{FEATURES}, class means": Recipe(FEATURES, head="means", lr=0),
        f"{FEATURES}, LDA": Recipe(FEATURES, head="LDA", lr=0),
        GC: Recipe("scratch", optimiser="GC", lr=0.1, epochs=30),
    }
    for name, made in others.items():
        yield name, 0, name == GC, partial(recipe, made=made, model=models[0])


def measured(folder: Path, count: int, slow: int, only: list[str], scratch: int, size: int) -> pd.DataFrame:
    """All rows, an episode each; what an earlier start measured is read. Of another size, the networks' alone."""
    models = [load_model(path)[0] for path in sorted(folder.glob("base-?.safetensors"))]
    tables, usual = [], size == trained_size(models[0])
    for dataset, sampler, place in (found for found in samplers(0, size) if found[0] in only):
        for name, seed, long, fit in methods(models):
            if (name == GC and (dataset in PACKS or not scratch)) or not (usual or "photographs" in name):
                continue
            title = name if usual else f"{name}, {size} px"
            file = folder / "rows" / f"{dataset}, {title}, {seed}, {slow if long else count}.csv"
            if not file.is_file():
                began = time.perf_counter()
                rows = evaluate_fits(fit, sampler, slow if long else count, [place])
                file.parent.mkdir(exist_ok=True)
                rows.assign(method=title, seed=seed, dataset=dataset).to_csv(file, index=False)
                print(f"{file.stem}: {rows['value'].mean():.1f} %, {time.perf_counter() - began:.0f} s", flush=True)
            tables.append(pd.read_csv(file))
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--slow", type=int, default=6, help="episodes of what takes long")
    parser.add_argument("--scratch", type=int, default=1, help="0 leaves GC from scratch out: minutes an episode")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64], help="sides to which pictures are brought")
    parser.add_argument("--only", nargs="+", default=["tiny-imagenet", "cifar10", *PACKS], help="datasets")
    given = parser.parse_args(arguments)
    began, chosen = time.perf_counter(), (given.folder, given.episodes, given.slow, given.only, given.scratch)
    table = pd.concat([measured(*chosen, size) for size in given.sizes], ignore_index=True)
    if not {"tiny-imagenet", "cifar10"} <= set(given.only):
        print("The rows are kept; the result is written when both collections of photographs are among the datasets.")
        return 0
    gains = []
    for dataset, own in table.groupby("dataset", sort=False):
        if GC in set(own["method"]):  # on the same images
            facts = {"metric": "gain over GC, 30 epochs", "dataset": dataset}
            gains.append({"method": KIT, **facts, **vars(difference(own, KIT, GC))})
    rows = pd.concat([summarise(table, ("method",), over_all=False), pd.DataFrame(gains)])
    found = rows[rows["metric"] == "accuracy"].set_index(["method", "dataset"])

    def said(method: str, dataset: str) -> str:
        row = found.loc[(method, dataset)]
        return f"{row['mean']:.1f} [{row['low']:.1f}, {row['high']:.1f}] %"

    tiny, cifar = said(KIT, "tiny-imagenet"), said(KIT, "cifar10")
    larger = ""
    for size in (s for s in given.sizes if (f"{KIT}, {s} px", "cifar10") in found.index):
        both = (said(f"{KIT}, {size} px", dataset) for dataset in ("tiny-imagenet", "cifar10"))
        larger += f"Enlarged to {size} pixels: {' and '.join(both)}. "
    over = " and ".join(f"{row['mean']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}] points" for row in gains)
    over = f"Over GC from scratch with 30 epochs on the same images it gains {over}. " if over else ""
    pretrained = [said(f"{FEATURES}, class means", dataset) for dataset in ("tiny-imagenet", "cifar10")]
    answer = (
        f"5-way with 20 labelled images per class: {tiny} on 40 novel classes of Tiny-ImageNet and {cifar} on "
        f"CIFAR-10. {larger}{over}ImageNet-pretrained features with class means have {pretrained[0]} "
        f"(they were trained on these classes) and {pretrained[1]}."
    )
    facts = {"episodes": given.episodes, "slow": given.slow, "ways": 5, "labelled_per_class": 20, "sizes": given.sizes}
    write_result(
        project_root() / "reports" / "results" / "photographs.json", "photographs", QUESTION, answer,
        rows.reset_index(drop=True), provenance(facts, time.perf_counter() - began, threads=torch.get_num_threads()),
        title="A predictor for photographs",
    )  # fmt: skip
    print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
