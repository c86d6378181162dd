"""Training many small ConvNets at once, one an episode of classes: the networks whose parameters are correlated.

Paper, Section 1 [rec]: one ConvNet an episode, to see whether datasets and optimal parameters correlate. Our choice: a
linear head, Adam with a half-cosine schedule, no augmentation; each episode has a seed that fixes both initial weights
and order of images, so "same initialisation" is one seed for all episodes, "different" one seed each. G networks run as
one network with G-fold channels and grouped convolutions, channels last: faster on a processor than
``torch.func.vmap`` over stacked modules and than a loop (``benchmarks/bench_zoo.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.model import Parameters, seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError


class TrainingCancelledError(PudNetError):
    """The user stopped a long training; nothing is wrong."""


@dataclass(frozen=True)
class ZooTraining:
    """How every network is trained: ConvNet-3's width, epochs, images a step, Adam's peak rate (half a cosine to 0)."""

    width: int = 8
    epochs: int = 10
    batch_size: int = 20
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.width, self.epochs, self.batch_size) < 1 or self.learning_rate <= 0:
            raise PudNetError(f"{self}: width, epochs and batch_size must be at least 1, learning_rate above 0.")


class TrainedNetworks(NamedTuple):
    """G networks: name to (G, *shape) with the head's ``head.weight``, ``head.bias``; last loss; which are finite."""

    parameters: Parameters
    loss: Tensor
    finite: Tensor


def initial_parameters(config: ZooTraining, classes: int, channels: int, seeds: Sequence[int]) -> Parameters:
    """Draw (G, *shape) parameters as PyTorch initialises the modules; equal seeds give equal parameters."""
    drawn: dict[int, Parameters] = {}
    for seed in set(seeds):
        with seeded(seed):
            target = build_target(TargetConfig("convnet3", config.width, channels))
            modules = {"": target, "head.": nn.Linear(config.width, classes)}
        drawn[seed] = {p + n: t.detach() for p, m in modules.items() for n, t in m.named_parameters()}
    return {name: torch.stack([drawn[seed][name] for seed in seeds]) for name in drawn[seeds[0]]}


def image_orders(config: ZooTraining, images: int, seeds: Sequence[int]) -> Tensor:
    """Draw the order of images, a permutation an epoch, (G, epochs, M) int64; equal seeds give equal orders."""
    drawn: dict[int, Tensor] = {}
    for seed in set(seeds):
        generator = torch.Generator().manual_seed(seed)
        drawn[seed] = torch.stack([torch.randperm(images, generator=generator) for _ in range(config.epochs)])
    return torch.stack([drawn[seed] for seed in seeds])


def learning_rate(config: ZooTraining, step: int, steps: int) -> float:
    """Half a cosine from the peak rate to zero."""
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def grouped_logits(parameters: Parameters, images: Tensor) -> Tensor:
    """Run G ConvNet-3 with heads on (G, N, C, H, W) normalised images to (G, N, K); batch norms on own statistics."""
    g, n = images.shape[:2]
    maps = images.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)  # (N, G·C, H, W)
    for block in range(3):
        weight, scale, shift = (parameters[f"blocks.{block}.{t}"] for t in ("0.weight", "1.weight", "1.bias"))
        maps = F.conv2d(maps, weight.flatten(0, 1), padding=1, groups=g)  # (N, G·width, H, W)
        maps = F.batch_norm(maps, None, None, scale.flatten(), shift.flatten(), training=True)
        maps = F.relu(F.max_pool2d(maps, 2))  # this order: the same result, a quarter of the ReLUs
    features = maps.mean((2, 3)).view(n, g, -1).transpose(0, 1)  # (G, N, width)
    return torch.baddbmm(parameters["head.bias"][:, None], features, parameters["head.weight"].transpose(1, 2))


def train_networks(
    images: Tensor, labels: Tensor, config: ZooTraining, seeds: Sequence[int], dtype: torch.dtype = torch.float32,
    keep_going: Callable[[], bool] | None = None,  # asked before every epoch; False cancels
    start: Parameters | None = None,  # initial parameters for all episodes; what it lacks (the head) stays random
    at_once: int | None = None,  # side by side: five on a processor (more leave its cache), all on a GPU
) -> TrainedNetworks:  # fmt: skip
    """Train G networks on (G, M, C, H, W) uint8 images; each ends where a plain loop would have ended."""
    size = at_once or (5 if images.device.type == "cpu" else len(images))
    parts = [
        _train_side_by_side(block, labels, config, seeds[place : place + size], dtype, keep_going, start)
        for place, block in zip(range(0, len(images), size), images.split(size), strict=True)
    ]
    parameters = {name: torch.cat([part.parameters[name] for part in parts]) for name in parts[0].parameters}
    return TrainedNetworks(parameters, *(torch.cat([getattr(p, name) for p in parts]) for name in ("loss", "finite")))


def _train_side_by_side(
    images: Tensor, labels: Tensor, config: ZooTraining, seeds: Sequence[int], dtype: torch.dtype,
    keep_going: Callable[[], bool] | None, start: Parameters | None,
) -> TrainedNetworks:  # fmt: skip
    (episodes, m), device = images.shape[:2], images.device
    pixels = normalise(images.flatten(0, 1)).unflatten(0, (episodes, m)).to(dtype)
    initial = initial_parameters(config, int(labels.max()) + 1, images.shape[2], seeds)
    initial |= {name: t.expand(episodes, *t.shape).clone() for name, t in (start or {}).items()}
    parameters = {name: t.to(device, dtype).requires_grad_() for name, t in initial.items()}
    orders = image_orders(config, m, seeds).to(device)
    optimiser = torch.optim.Adam(parameters.values(), config.learning_rate)
    rows, labels = torch.arange(episodes, device=device)[:, None], labels.to(device)
    steps, step = config.epochs * math.ceil(m / config.batch_size), 0
    finite, loss = torch.ones(episodes, dtype=torch.bool, device=device), torch.zeros(episodes, device=device)
    for epoch in range(config.epochs):
        if keep_going is not None and not keep_going():
            raise TrainingCancelledError("Training of the zoo was cancelled.")
        loss = torch.zeros(episodes, device=device, dtype=dtype)
        for part in orders[:, epoch].split(config.batch_size, 1):  # (G, B)
            optimiser.param_groups[0]["lr"] = learning_rate(config, step, steps)
            logits = grouped_logits(parameters, pixels[rows, part])
            losses = F.cross_entropy(logits.transpose(1, 2), labels[part], reduction="none").mean(1)  # (G,)
            optimiser.zero_grad(set_to_none=True)
            losses.sum().backward()  # an episode's loss reaches its own parameters only
            optimiser.step()
            loss += losses.detach() * part.shape[1] / m
            step += 1
        finite &= loss.isfinite()
    trained = {name: t.detach() for name, t in parameters.items()}
    for tensor in trained.values():
        finite &= tensor.flatten(1).isfinite().all(1)
    return TrainedNetworks(trained, loss, finite)


def accuracies(parameters: Parameters, images: Tensor, labels: Tensor) -> Tensor:
    """Accuracy of G networks on (G, N, C, H, W) uint8 in %, (G,); batch norms on these images' own statistics."""
    pixels = normalise(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    with torch.no_grad():
        guesses = grouped_logits(parameters, pixels.to(parameters["head.bias"].dtype)).argmax(2)
    return 100 * (guesses == labels.to(images.device)).float().mean(1)
