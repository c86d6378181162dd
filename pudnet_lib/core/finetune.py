"""Fine-tuning: predicted parameters as an initialisation.

Paper, Section 4.4 [rec]: θ̂ as initialisation against random and pretrained ones. Our choice: the head starts at the
class means, so that step 0 is the prediction itself; the loop is that of training from scratch.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import seeded
from pudnet_lib.core.predicted_network import PredictedNetwork
from pudnet_lib.core.scratch import ImageClassifier, ScratchConfig, ScratchResult, train_network
from pudnet_lib.errors import PudNetError, unknown_name

Head = Literal["means", "random"]


class CosineHead(nn.Module):
    """Cosine to class vectors times τ, both trainable; starts as the predicted network's head.

    Args:
        means: (K, F) class means.
        scale: τ.
    """

    def __init__(self, means: Tensor, scale: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(F.normalize(means.detach().clone(), dim=1))
        self.scale = nn.Parameter(torch.tensor(scale, device=means.device))

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, F) to logits (N, K)."""
        return self.scale * F.normalize(features, dim=1) @ F.normalize(self.vectors, dim=1).T


def finetune(
    network: PredictedNetwork,
    train: ImageDataset,
    test: ImageDataset | None = None,
    config: ScratchConfig | None = None,
    noise: float = 0.0,
    head: Head = "means",
    progress: bool = False,
) -> ScratchResult:
    """Train on from a predicted network, which itself is not changed.

    Args:
        network: The predicted network.
        train: Training images.
        test: Test images for the curve; None measures nothing.
        config: How; by default three times the learning rate from scratch, since meta-trained weights are larger and
            batch norm makes their scale idle, so that a step changes less. ``target`` is not used; ``trainable`` is
            ``"probe"`` for the head alone; with ``evaluate_start`` row 0 of the curve is the prediction itself.
        noise: Add noise of this share of each convolution's spread, to break ties between equal filters.
        head: ``"means"`` starts as the predicted network's head, ``"random"`` as a linear one.
        progress: Show a progress bar.

    Returns:
        Network, curve, seconds.

    Raises:
        PudNetError: If ``head`` is unknown, the classes are other ones, or the loss is not finite.
    """
    if head not in get_args(Head):
        raise unknown_name("head", head, get_args(Head))
    config = config or ScratchConfig()
    if not config.learning_rate:
        config = replace(config, learning_rate=3 * config.peak_rate)
    backbone = copy.deepcopy(network.backbone)
    with seeded(config.seed), torch.no_grad():
        for layer in backbone.modules() if noise else ():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                spread = noise * layer.weight.std()
                layer.weight.add_(torch.randn(layer.weight.shape).to(layer.weight) * spread)
        classes, features = network.means.shape
        if head == "random":
            start: nn.Module = nn.Linear(features, train.num_classes).to(network.means.device)
        elif classes != train.num_classes:
            raise PudNetError(
                f"The network tells {classes} classes apart and {train.name} has {train.num_classes}; predict a "
                'network for these images, or pass head="random".'
            )
        else:
            start = CosineHead(network.means, float(network.scale))
    return train_network(ImageClassifier(backbone, start), train, test, config, progress)
