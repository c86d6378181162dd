"""What a profile of the large-scale experiment costs, before it starts: work, memory, hours here and on GPUs.

Our choice. Work is counted, not guessed: a step runs on PyTorch's ``meta`` device, where shapes are real and numbers
are not, under a counter of multiplications and additions. Seconds come from a short run on the machine at hand, and for
GPUs from assumptions that the tables state.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pudnet_lib.core.episodes import Episode, EpisodeConfig
from pudnet_lib.core.meta import MetaConfig, MetaStep, make_optimiser
from pudnet_lib.core.targets import build_target
from pudnet_lib.methods.rivals import RivalConfig
from pudnet_lib.methods.run import TrainConfig, build_model
from pudnet_lib.studies.imagenet import Config, scratch_methods, trainings
from pudnet_lib.studies.imagenet_data import MADE_UP

#: Training images of the unseen classes, as the datasets are published.
UNSEEN_IMAGES = {"imagenet": 256_233, "tiny-imagenet": 20_000, MADE_UP: 72}
#: Training classes, for the auxiliary classifier.
TRAINING_CLASSES = 720


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it, and what it costs to rent; prices are assumptions.

    Attributes:
        name: Its name.
        peak: Dense bf16 operations a second, in 10¹².
        memory: In GB.
        dollars: Rent an hour, in US dollars.
    """

    name: str
    peak: float
    memory: float
    dollars: float


GPUS = (Gpu("H100 SXM", 989, 80, 3.0), Gpu("A100 SXM", 312, 80, 1.8), Gpu("L4", 121, 24, 0.8))
#: Share of the peak that is reached: assumed, with a good and a bad case. Images are small, and a rank has one episode.
UTILISATION = {"expected": 0.15, "good": 0.30, "bad": 0.05}
#: Share of the ideal speed that eight GPUs reach together: assumed.
EIGHT = 0.85


@dataclass(frozen=True)
class StepCost:
    """What one episode of meta-training costs.

    Attributes:
        flops: Floating-point operations, forward and backward.
        images: Images that go through the target network (sketch not counted).
        activation_bytes: What the forward pass keeps for the backward pass, in 32-bit precision.
        parameters: Scalars that are trained.
    """

    flops: float
    images: int
    activation_bytes: int
    parameters: int

    @property
    def memory(self) -> float:
        """Bytes a rank: weights, gradients, Adam's two moments, DDP's buckets, activations."""
        return (4 + 4 + 8 + 4) * self.parameters + self.activation_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte of memory traffic.

        A lower bound of the traffic: activations are written once and read twice; of each parameter, weight, gradient
        and moments are read and written, ten times 4 bytes in all.
        """
        return self.flops / (3 * self.activation_bytes + 40 * self.parameters)


def made_up_episode(episodes: EpisodeConfig, size: int, channels: int, device: str) -> Episode:
    """An episode of gray images."""

    def images(per_class: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(episodes.ways).repeat_interleave(per_class).to(device)
        return torch.full((len(labels), channels, size, size), 128, dtype=torch.uint8, device=device), labels

    parts = [images(n) for n in (episodes.sketch_per_class, episodes.support_per_class, episodes.query_per_class)]
    classes = torch.arange(episodes.ways).to(device)
    return Episode("made up", 0, classes, classes, *(tensor for part in parts for tensor in part))


def step_cost(run: TrainConfig, episodes: EpisodeConfig | None = None) -> StepCost:
    """Count one episode of a run; nothing is computed.

    Args:
        run: PudNet or the shared network.
        episodes: Other sizes than the run's.

    Returns:
        The costs.
    """
    episodes = episodes or run.episodes
    step = MetaStep(build_model(run), TRAINING_CLASSES, run.meta.weights).to("meta")
    episode = made_up_episode(episodes, run.pool.size, run.pudnet.target.channels, "meta")
    # The refinement counts the classes in the labels that it sees, which must therefore be real numbers.
    real = made_up_episode(episodes, 1, 1, "cpu")
    episode = episode._replace(sketch_labels=real.sketch_labels, support_labels=real.support_labels)
    own = {p.untyped_storage()._cdata for p in step.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = step(episode).total
        saved = sum(t.untyped_storage().nbytes() for t in kept.values())
        loss.backward()
    parameters = sum(p.numel() for p in step.parameters())
    return StepCost(float(counter.get_total_flops()), len(episode.support) + len(episode.query), saved, parameters)


def image_flops(config: Config) -> float:
    """Operations of one image's forward pass through the target network."""
    target = build_target(config.target).eval().to("meta")
    with FlopCounterMode(display=False) as counter:
        target(torch.empty(1, config.target.channels, config.size, config.size, device="meta"))
    return float(counter.get_total_flops())


def work(config: Config) -> pd.DataFrame:
    """Count a profile's work, a row a run.

    Args:
        config: The profile.

    Returns:
        run (a meta-training run, or "from scratch, all"), steps, flops, and for meta-training memory in GB a rank and
        intensity. A metric rival is counted as the shared network: its backbone is the same, its head small.
    """
    rows: list[dict[str, Any]] = []
    costs: dict[Any, StepCost] = {}
    runs = trainings(config)
    shared = next((r for r in runs if isinstance(r, TrainConfig) and r.kind == "shared"), None)
    template = shared or replace(next(r for r in runs if isinstance(r, TrainConfig)), kind="shared", base_steps=0)

    def cost(run: TrainConfig) -> StepCost:
        key = str(replace(run, meta=MetaConfig(), episode_seed=0, pudnet=replace(run.pudnet, seed=0)))
        costs.setdefault(key, step_cost(run))
        return costs[key]

    for run in runs:
        if isinstance(run, RivalConfig):
            found, name, base = cost(template), run.method, 0
        else:
            found, base = cost(run), run.base_steps
            name = "shared network" if run.kind == "shared" else _design(run)
        episodes = run.meta.episodes_per_step
        flops = episodes * (run.meta.steps * found.flops + base * cost(template).flops)
        row = {"run": f"{name}, seed {run.meta.seed}", "steps": run.meta.steps + base, "flops": flops}
        rows.append(row | {"memory_gb": found.memory / 1e9, "intensity": found.intensity})
    epochs = sum(count for _, count in scratch_methods(config).values()) + config.tuned_epochs * len(config.seeds)
    count = UNSEEN_IMAGES.get(config.source, 0) if not config.per_class else config.per_class * 200
    passes = 3 * epochs * count + 2 * len(runs) * count  # backward counts twice; each model's features once or twice
    rows.append({"run": "from scratch and evaluation", "steps": epochs, "flops": passes * image_flops(config)})
    return pd.DataFrame(rows)


def _design(run: TrainConfig) -> str:
    if run.pudnet.embedding == "constant":
        return "constant embedding"
    return "PudNet (kit)" if run.pudnet.residual else "PudNet (paper)"


def measured_rate(config: Config, seconds: float = 3.0) -> float:
    """Measure operations a second of this machine on a small episode of the profile's own network and image size.

    Args:
        config: The profile.
        seconds: Go on until so many have passed; at least two steps.

    Returns:
        Floating-point operations a second, of the best step.
    """
    run = next(r for r in trainings(config) if isinstance(r, TrainConfig))
    device = "cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    episodes = EpisodeConfig(3, 2, 2, 2) if device == "cpu" else run.episodes
    flops = step_cost(run, episodes).flops
    step = MetaStep(build_model(run), TRAINING_CLASSES, run.meta.weights).to(device)
    optimiser = make_optimiser(step, run.meta)
    episode = made_up_episode(episodes, config.size, config.target.channels, device)
    best, began, steps = float("inf"), time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=run.meta.precision == "bf16-mixed" and device == "cuda"):
            loss = step(episode).total
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        best, steps = min(best, time.perf_counter() - start), steps + 1
    return flops / best


def hours(flops: float, rate: float, here: str) -> pd.DataFrame:
    """Turn work into hours: here as measured, on GPUs as assumed.

    Args:
        flops: All operations.
        rate: This machine's, a second.
        here: Its name.

    Returns:
        One row a machine: machine, hours, good_hours, bad_hours, dollars.
    """
    rows: list[dict[str, Any]] = [{"machine": f"{here} (measured)", "hours": flops / rate / 3600}]
    for gpu in GPUS:
        for count, share in ((1, 1.0), (8, 8 * EIGHT)):
            took = {case: flops / (gpu.peak * 1e12 * u * share) / 3600 for case, u in UTILISATION.items()}
            row = {"machine": f"{count} × {gpu.name}", "hours": took["expected"], "good_hours": took["good"]}
            rows.append(row | {"bad_hours": took["bad"], "dollars": took["expected"] * count * gpu.dollars})
    return pd.DataFrame(rows)
