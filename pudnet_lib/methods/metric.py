"""What the metric-based rivals share: a meta-trained backbone, and a rule from labelled features to class logits.

Paper, Section 4.1 lists MatchingNet, ProtoNet, Meta-Baseline and Meta-DeepBDC as baselines [rec]. Our choice: each is a
``ParameterModel`` whose ``class_logits`` is its rule, so that PudNet's trainer trains all of them on the same episodes,
and each learns an episode from the same images, batch norm recalibrated on them as for a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, extract_features, recalibrate


class MetricClassifier(nn.Module):
    """A backbone with a rule and the labelled features that the rule compares with.

    Args:
        backbone: Normalised images to features.
        model: Owner of the rule.
        support: (M, F) features of the labelled images.
        labels: (M,) in 0..K-1.
        num_classes: K.
    """

    support: Tensor
    labels: Tensor

    def __init__(
        self, backbone: nn.Module, model: ParameterModel, support: Tensor, labels: Tensor, num_classes: int
    ) -> None:
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self._model = (model,)  # in a tuple: its parameters are no part of this network
        self.register_buffer("support", support)
        self.register_buffer("labels", labels)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W), uint8 or floating point in [0, 1], to logits (N, K)."""
        query = self.backbone(normalise(images))  # (N, F)
        return self._model[0].class_logits(self.support, self.labels, query, self.num_classes)


@dataclass(frozen=True)
class MetricFit:
    """A meta-trained rival learns a dataset: batch norm and labelled features, no gradient step.

    Attributes:
        model: The rival, on the device that shall compute.
        config: How batch norm is recalibrated; its sketch is what a model that looks at data sees (MUSML).
    """

    model: ParameterModel
    config: PredictConfig = field(default_factory=PredictConfig)

    def __call__(self, dataset: ImageDataset) -> nn.Module:
        """Learn a dataset.

        Args:
            dataset: Training images.

        Returns:
            uint8 images (N, C, H, W) to logits (N, K).
        """
        device = self.model.device
        sketch, sketch_labels = dataset.sketch_with_labels(self.config.sketch_per_class, self.config.seed)
        self.model.eval()
        with torch.no_grad():
            parameters = self.model(sketch.to(device), sketch_labels.to(device))
        backbone = self.model.materialise({name: tensor.detach().clone() for name, tensor in parameters.items()})
        recalibrate(backbone, dataset.images, self.config.batch_size, self.config.seed)
        support = extract_features(backbone, dataset.images, self.config.batch_size)  # (M, F)
        return MetricClassifier(backbone, self.model, support, dataset.labels.to(device), dataset.num_classes)
