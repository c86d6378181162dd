"""Pretrained: the shared network's features, and a new linear head trained on the episode.

A baseline of paper Section 4 [rec]. The head is trained by the loop of training from scratch, the backbone held fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import ParameterModel, seeded
from pudnet_lib.core.predict import PredictConfig, predict
from pudnet_lib.supervised import ImageClassifier, ScratchConfig, train_network


@dataclass(frozen=True)
class PretrainedFit:
    """Trains a linear head on a meta-trained network's features.

    Attributes:
        model: The shared network.
        training: How the head is trained; ``trainable="full"`` trains the backbone too.
        config: How batch norm is recalibrated.
    """

    model: ParameterModel
    training: ScratchConfig = field(
        default_factory=lambda: ScratchConfig(trainable="probe", learning_rate=0.03, batch_size=32)
    )
    config: PredictConfig = field(default_factory=PredictConfig)

    def __call__(self, dataset: ImageDataset) -> nn.Module:
        """Learn a dataset.

        Args:
            dataset: Training images.

        Returns:
            uint8 images (N, C, H, W) to logits (N, K).
        """
        backbone = predict(self.model, dataset, self.config).backbone
        with seeded(self.training.seed), torch.device(self.model.device):
            head = nn.Linear(self.model.feature_dim, dataset.num_classes)
        return train_network(ImageClassifier(backbone, head), dataset, None, self.training).network
