"""What the metric-based rivals share: a meta-trained backbone, and a rule from labelled features to class logits.

Paper, Section 4.1 lists MatchingNet, ProtoNet, Meta-Baseline and Meta-DeepBDC as baselines [rec]. Our choice: each is a
``ParameterModel`` whose ``class_logits`` is its rule, so that PudNet's trainer trains all of them on the same episodes,
and each learns an episode from the same images, batch norm recalibrated on them as for a prediction.
"""

from typing import Any

from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, extract_features, predict_backbone
from pudnet_lib.supervised import ImageClassifier

#: First a classifier over all training classes, then episodes; half of the steps each.
CLASSES_THEN_EPISODES = (LossWeights(0, 1, 0), LossWeights(1, 0, 0))


class Rule(nn.Module):
    """A head: a model's rule, and the labelled features that it compares with."""

    support: Tensor
    labels: Tensor

    def __init__(self, model: ParameterModel, support: Tensor, labels: Tensor, num_classes: int) -> None:
        super().__init__()
        self._model, self.num_classes = (model,), num_classes  # in a tuple: its parameters are no part of this network
        self.register_buffer("support", support)
        self.register_buffer("labels", labels)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, F) to logits (N, K)."""
        return self._model[0].class_logits(self.support, self.labels, features, self.num_classes)


def fit(dataset: ImageDataset, model: ParameterModel, **_: Any) -> nn.Module:
    """Let a meta-trained rival learn a dataset: batch norm and labelled features, no gradient step."""
    config = PredictConfig()
    sketch, sketch_labels = dataset.sketch_with_labels(config.sketch_per_class, config.seed)
    backbone = predict_backbone(model, sketch, sketch_labels, dataset.images, config)[0]
    support = extract_features(backbone, dataset.images, config.batch_size)  # (M, F)
    rule = Rule(model, support, dataset.labels.to(model.device), dataset.num_classes)
    return ImageClassifier(backbone, rule).eval()
