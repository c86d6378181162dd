"""Meta-training runs by their configuration: trained once, found again, resumed if they were cut off.

Our choice. A run's folder is named by a hash of everything that it depends on: configuration and the pool's images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm.auto import tqdm

from pudnet_lib.core.meta import ScaleConfig
from pudnet_lib.images.packs import manifest
from pudnet_lib.images.pool import Pool
from pudnet_lib.methods.run import TrainConfig, TrainOutcome, train_run


def cache_folder() -> Path:
    """Where meta-trained models are kept: ``PUDNET_CACHE``, else the user's cache folder."""
    base = os.environ.get("PUDNET_CACHE") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return (root if os.environ.get("PUDNET_CACHE") else root / "pudnet") / "models"


def run_folder(config: TrainConfig) -> Path:
    """The folder of a run; its name depends on the configuration and on the embedded images' checksums."""
    images = {name: entry["sha256"] for name, entry in manifest().items() if name in config.pool.sources}
    identity = json.dumps([asdict(config), images], sort_keys=True)
    return cache_folder() / hashlib.sha256(identity.encode()).hexdigest()[:20]


def trained(
    config: TrainConfig, progress: bool = True, pool: Pool | None = None, scale: ScaleConfig | None = None
) -> TrainOutcome:
    """Give a meta-trained model, from the cache if it was trained before.

    Args:
        config: Everything that the run depends on.
        progress: Show a progress bar while training.
        pool: ``config.pool``, if it is loaded already.
        scale: How the work is compiled and spread.

    Returns:
        The model and what it cost when it was trained.
    """
    return train_run(config, run_folder(config), progress, pool, scale)


def train_many(configs: Sequence[TrainConfig], jobs: int = 1) -> None:
    """Train what the cache lacks, several runs side by side.

    Args:
        configs: The runs.
        jobs: Processes; each gets its share of the cores.
    """
    missing = [c for c in configs if not (run_folder(c) / "model.safetensors").is_file()]
    missing = list({run_folder(c): c for c in missing}.values())
    if jobs == 1 or len(missing) < 2:
        for config in tqdm(missing, desc="meta-training runs", disable=not missing):
            trained(config, progress=False)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        list(tqdm(pool.map(_train, missing, [threads] * len(missing)), total=len(missing), desc="meta-training runs"))


def _train(config: TrainConfig, threads: int) -> None:
    torch.set_num_threads(threads)
    trained(config, progress=False)
