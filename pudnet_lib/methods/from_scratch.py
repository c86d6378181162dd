"""Training from scratch on the episode: Adam, SGD, and gradient centralization (GC).

The rival of paper Section 4 [rec], GC in its abstract [abs]. Same ConvNet, same images; batches of 32, because an
episode holds a hundred images, not thousands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.supervised import ScratchConfig, train_from_scratch

Optimiser = Literal["Adam", "SGD", "GC"]


@dataclass(frozen=True)
class ScratchFit:
    """Trains the target network from random parameters.

    Attributes:
        target: The target network.
        optimiser: ``"Adam"``, ``"SGD"``, or ``"GC"`` (SGD with gradient centralization).
        epochs: Passes over the images.
        batch_size: Images a step.
        seed: Seed of initial weights, order and augmentation.
        accelerator: Lightning Fabric's.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    optimiser: Optimiser = "GC"
    epochs: int = 30
    batch_size: int = 32
    seed: int = 0
    accelerator: str = "auto"

    def __call__(self, dataset: ImageDataset) -> nn.Module:
        """Learn a dataset.

        Args:
            dataset: Training images.

        Returns:
            uint8 images (N, C, H, W) to logits (N, K).
        """
        config = ScratchConfig(
            target=self.target,
            optimiser="adam" if self.optimiser == "Adam" else "sgd",
            gradient_centralization=self.optimiser == "GC",
            epochs=self.epochs,
            batch_size=self.batch_size,
            evaluations=1,
            seed=self.seed,
            accelerator=self.accelerator,
        )
        return train_from_scratch(dataset, None, config).network
