"""What notebook 04 trains and what it costs, for the command line: ``pudnet imagenet-train`` and ``pudnet plan``.

Our choice. The recipes are read from the notebook's cells with the tag ``plan``. A step on PyTorch's ``meta`` device
counts the work; seconds come from a short run on this machine, for an H100 from what ``scripts/on_gpu.py`` measured.
"""

import io
import json
import os
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pudnet_lib.core.episodes import Episode, EpisodeConfig
from pudnet_lib.core.meta import MetaStep, make_optimiser
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods.training import Run, Runs, TrainConfig, build_model
from pudnet_lib.profiles import PROFILE_VARIABLE
from pudnet_lib.results import project_root

TRAINING_CLASSES = 720  # ImageNet's base classes, for the auxiliary classifier
#: Operations a second that a ResNet-18 of width 64 reached on an H100 (gpu.json: 256 images of 64 pixels, forward and
#: backward, channels-last, bf16: 3.41e12 operations in 18.3 ms), 19 % of the data sheet's; one episode fills it less.
H100 = 186e12


def planned(profile: str) -> tuple[Runs, dict[str, Any]]:
    """The runs of notebook 04 in a profile, and its sizes; nothing is trained or loaded."""
    path = project_root() / "notebooks" / "04_imagenet.ipynb"
    if not path.is_file():
        raise PudNetError(f"There is no {path.name} in {path.parent}; start in a checkout of the project.")
    names: dict[str, Any] = {}
    with patch.dict(os.environ, {PROFILE_VARIABLE: profile}), redirect_stdout(io.StringIO()):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if {"plan", "parameters"} & set(cell["metadata"].get("tags", ())):
                exec("".join(cell["source"]), names)  # the project's own notebook
    return names["runs"], names["size"]


def trainings(runs: Sequence[Run]) -> dict[str, TrainConfig]:
    """The meta-training runs, each once: "name, seed 0" to its configuration."""
    found: dict[TrainConfig, str] = {}
    for run in runs:
        if run.training is not None:
            found.setdefault(run.training, f"{run.name}, seed {run.seed}")
    return {name: training for training, name in found.items()}


class StepCost(NamedTuple):
    """What one episode of meta-training costs: operations, bytes kept for the backward pass (32 bit), parameters."""

    flops: float
    activation_bytes: int
    parameters: int


def made_up_episode(episodes: EpisodeConfig, size: int, channels: int) -> Episode:
    """An episode of gray images."""

    def images(per_class: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(episodes.ways).repeat_interleave(per_class)
        return torch.full((len(labels), channels, size, size), 128, dtype=torch.uint8), labels

    numbers = episodes.sketch_per_class, episodes.support_per_class, episodes.query_per_class
    classes = torch.arange(episodes.ways)
    return Episode("made up", 0, classes, classes, *(tensor for number in numbers for tensor in images(number)))


def step_cost(run: TrainConfig, episodes: EpisodeConfig | None = None) -> StepCost:
    """Count one episode of a run; nothing is computed."""
    step = MetaStep(build_model(run).train(), TRAINING_CLASSES, run.meta.weights).to("meta")
    real = made_up_episode(episodes or run.episodes, run.pool.size, run.model.target.channels)
    episode = real.to("meta")  # but labels say which images a design looks at: they stay numbers
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
    return StepCost(float(counter.get_total_flops()), saved, sum(p.numel() for p in step.parameters()))


def work(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Count every meta-training run: run, steps, flops, memory in GB a rank."""
    rows, costs = [], dict[str, StepCost]()
    for name, run in trainings(runs).items():
        method = name.rpartition(", seed ")[0]  # seeds cost the same
        costs[method] = found = costs.get(method) or step_cost(run)
        steps = run.meta.steps + run.base_steps
        flops = run.meta.episodes_per_step * steps * found.flops
        memory = 20 * found.parameters + found.activation_bytes  # weights, gradients, Adam's moments, DDP's buckets
        rows.append({"run": name, "steps": steps, "flops": flops, "memory_gb": memory / 1e9})
    return rows


def measured_rate(run: TrainConfig, seconds: float = 3.0) -> float:
    """Operations a second of this machine, of the best of some small steps of a run's own network and image size."""
    device = "cuda" if run.meta.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    episodes = EpisodeConfig(3, 2, 2, 2) if device == "cpu" else run.episodes
    step = MetaStep(build_model(run), TRAINING_CLASSES, run.meta.weights).to(device)
    optimiser = make_optimiser(step, run.meta)
    episode = made_up_episode(episodes, run.pool.size, run.model.target.channels).to(device)
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
    return step_cost(run, episodes).flops / best
