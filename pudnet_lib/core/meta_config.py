"""The meta-trainer's configuration: optimiser, schedule, validation, device.

Paper, Section 3.3; Adam with β₁ 0.5 and learning rate 1e-3 are [code], the rest is our choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pudnet_lib.core.heads import LossWeights
from pudnet_lib.errors import PudNetError, unknown_name

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class MetaConfig:
    """Meta-training's configuration; the defaults run on a CPU.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Peak learning rate of Adam.
        direct_learning_rate: Peak learning rate of the tensors that stand in the target network as they are (a shared
            network's weights, learned bases, batch norm); 0 takes ``learning_rate``. They want more: batch norm makes a
            convolution's scale idle, so that what a step changes is relative to a weight that grows.
        beta1: Adam's β₁ ([code]: 0.5).
        schedule: ``"cosine"`` to zero, or ``"constant"``.
        warmup: Steps over which the learning rate rises linearly.
        clip_norm: Largest gradient norm; 0 switches clipping off.
        episodes_per_step: Episodes whose losses are averaged in a step, over all ranks; a multiple of their number.
        Each rank takes its episodes one after the other.
        weights: Weights of the three losses.
        seed: Seed of the auxiliary classifier's initial weights (episodes have the sampler's seed).
        validate_every: Steps between validations; 0 for none.
        validation_episodes: Episodes a validation.
        checkpoint_every: Steps between checkpoints; 0 for one at the end only.
        accelerator: Lightning Fabric's: ``"auto"``, ``"cpu"``, ``"gpu"``.
        devices: Number of devices; more than one uses DDP. Under ``torchrun`` it is not used: all ranks take part.
        precision: Lightning Fabric's: ``"32-true"``, ``"bf16-mixed"``, …
    """

    steps: int = 1500
    learning_rate: float = 1e-3
    direct_learning_rate: float = 0.0
    beta1: float = 0.5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0
    clip_norm: float = 10.0
    episodes_per_step: int = 1
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0
    validate_every: int = 250
    validation_episodes: int = 20
    checkpoint_every: int = 250
    accelerator: str = "auto"
    devices: int = 1
    precision: Precision = "32-true"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.episodes_per_step < 1 or self.devices < 1:
            raise PudNetError("MetaConfig: steps, episodes_per_step and devices must be at least 1.")
        if not self.learning_rate > 0:
            raise PudNetError(f"MetaConfig.learning_rate is {self.learning_rate}; expected a positive number.")
        if self.schedule not in ("cosine", "constant"):
            raise unknown_name("schedule", self.schedule, ("cosine", "constant"))

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, …, steps - 1."""
        return self.learning_rate * self.share(step)

    def share(self, step: int) -> float:
        """Share of the peak learning rate in step 0, 1, …, steps - 1."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return warm * decay
