"""Training the zoo: grouped convolutions against a plain loop and against ``torch.func.vmap``; and a widget's answer.

20 episodes of 100 images, ConvNet-3 of width 8, two epochs of Adam; on a GPU as well where there is one. The widget's
answer is the time from a moved control to the new picture of notebook 01, on a cell that is already in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from timing import alternate, row
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.lr_scheduler import CosineAnnealingLR

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.model import seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.studies.zoo import (
    ZooTraining,
    image_orders,
    initial_parameters,
    train_networks,
)

EPISODES, WAYS, PER_CLASS = 20, 5, 20
TRAINING = ZooTraining(width=8, epochs=2)
LIMIT = 0.3  # seconds
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_parameter_correlations.ipynb"


class Network(nn.Module):
    """The zoo's network as a module, its batch norms without running statistics, so that vmap takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = build_target(TargetConfig("convnet3", TRAINING.width)).blocks
        self.head = nn.Linear(TRAINING.width, WAYS)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = False, None, None
                module.num_batches_tracked = None

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K)."""
        for block in self.blocks:
            images = block(images)
        return self.head(images.mean((2, 3)))


def train_vmap(images: Tensor, labels: Tensor, seeds: list[int]) -> dict[str, Tensor]:
    """The same training with ``torch.func.vmap`` over stacked parameters."""
    device = images.device
    network, drawn = Network().to(device), initial_parameters(TRAINING, WAYS, images.shape[2], seeds)
    parameters = {name: t.to(device).requires_grad_() for name, t in drawn.items()}
    orders = image_orders(TRAINING, images.shape[1], seeds).to(device)
    optimiser = torch.optim.Adam(parameters.values(), TRAINING.learning_rate)
    pixels = normalise(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    rows, labels = torch.arange(len(images), device=device)[:, None], labels.to(device)

    def loss(weights: dict[str, Tensor], batch: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (batch,)), target)

    parts = [part for epoch in orders.unbind(1) for part in epoch.split(TRAINING.batch_size, 1)]
    schedule = CosineAnnealingLR(optimiser, len(parts))
    for part in parts:
        losses = torch.vmap(loss)(parameters, pixels[rows, part], labels[part])
        optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimiser.step()
        schedule.step()
    return parameters


def train_one(
    images: Tensor, labels: Tensor, config: ZooTraining, seed: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Train one network the plain way."""
    with seeded(seed):
        backbone = build_target(TargetConfig("convnet3", config.width, images.shape[1]))
        head = nn.Linear(config.width, int(labels.max()) + 1)
    network = nn.Sequential(backbone, head).to(dtype).train()
    optimiser = torch.optim.Adam(network.parameters(), config.learning_rate)
    schedule = CosineAnnealingLR(optimiser, config.epochs * -(-len(images) // config.batch_size))
    pixels = normalise(images).to(dtype)
    for order in image_orders(config, len(images), [seed])[0]:
        for part in order.split(config.batch_size):
            loss = F.cross_entropy(network(pixels[part]), labels[part])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    modules = {"": backbone, "head.": head}
    return {p + n: t.detach() for p, m in modules.items() for n, t in m.named_parameters()}


def timed(device: str) -> dict[str, np.ndarray]:
    """Seconds of the three ways."""
    images = torch.randint(0, 256, (EPISODES, WAYS * PER_CLASS, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.arange(WAYS).repeat_interleave(PER_CLASS)
    seeds = [0] * EPISODES

    ours, theirs = train_networks(images, labels, TRAINING, seeds).parameters, train_vmap(images, labels, seeds)
    off = max(float((ours[name] - theirs[name].detach()).abs().max()) for name in ours)
    if off > 0.05:
        raise RuntimeError(f"the two ways train different networks: parameters differ by up to {off:.3f}")

    def waiting(call: Callable[[], Any]) -> Callable[[], None]:
        def timed_call() -> None:
            call()
            if device != "cpu":
                torch.cuda.synchronize()

        return timed_call

    calls: dict[str, Callable[[], Any]] = {
        "grouped": waiting(lambda: train_networks(images, labels, TRAINING, seeds)),
        "vmap": waiting(lambda: train_vmap(images, labels, seeds)),
    }
    if device == "cpu":
        calls["loop"] = lambda: [train_one(episode, labels, TRAINING, 0) for episode in images]
    return alternate(calls, repeats=7, warm=1)


def widget_row() -> dict[str, Any]:
    from pudnet_lib.studies.study import Study

    names: dict[str, Any] = {"np": np, "pd": pd, "torch": torch}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if "tested" in cell["metadata"].get("tags", ()):
            exec("".join(cell["source"]), names)  # the project's own notebook
    panel = names["ExplorePanel"](Study(("fashion", "emoji", "glyphs"), ("same",), 120, 60))
    source = panel.controls["source"]

    def move() -> None:  # a change that needs the kernel; hovering, selecting and the choice of a cell do not
        source.value = "glyphs" if source.value == "emoji" else "emoji"  # without a running loop it answers at once

    seconds = alternate({"move": move}, repeats=15, warm=2)["move"]
    return row("notebook 01, a moved widget on cached results", seconds, f"{LIMIT} s", np.full(15, LIMIT), 1, True)


def run() -> list[dict[str, Any]]:
    rows = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        seconds = timed(device)
        name = f"training {EPISODES} ConvNet-3 of width {TRAINING.width} side by side, {device}"
        if "loop" in seconds:
            rows.append(row(name, seconds["grouped"], "a plain loop", seconds["loop"], 2, False))
        rows.append(row(name, seconds["grouped"], "torch.func.vmap", seconds["vmap"], 1, False))
    return [*rows, widget_row()]


if __name__ == "__main__":
    for line in run():
        print(line)
