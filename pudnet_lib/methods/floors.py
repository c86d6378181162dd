"""Floors: 1-nearest neighbour and logistic regression on raw pixels and on HOG, which a reviewer tries in ten lines.

Our choice; scikit-learn and scikit-image do the work. On four unseen Fashion classes the nearest pixels are right nine
times in ten, above many a meta-trained network: so they stand in every table.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import unknown_name
from pudnet_lib.methods.registry import register


def pixels(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) to (N, C·H·W) in [0, 1]."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return scaled.flatten(1).cpu().numpy()


def hog(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) to histograms of oriented gradients (N, F), on gray values."""
    from skimage.feature import hog as histogram  # slow to import

    gray = pixels(images).reshape(images.shape).mean(1)
    side = max(2, min(8, gray.shape[1] // 4))
    cells = {"pixels_per_cell": (side, side), "cells_per_block": (2, 2), "orientations": 9}
    return np.stack([histogram(picture, **cells) for picture in gray])


FEATURES = {"pixels": pixels, "HOG": hog}


class Classical(nn.Module):
    """A scikit-learn classifier of features, as a network from images to logits (N, K)."""

    scale: Tensor

    def __init__(self, features: str, classifier: Any, num_classes: int) -> None:
        super().__init__()
        self.features, self.classifier, self.num_classes = features, classifier, num_classes
        self.register_buffer("scale", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W), uint8 or in [0, 1]; logits are logarithms of probabilities."""
        found = self.classifier.predict_proba(FEATURES[self.features](images))  # (N, classes seen)
        logits = torch.full((len(images), self.num_classes), -torch.inf)
        logits[:, torch.from_numpy(self.classifier.classes_)] = torch.from_numpy(np.log(found + 1e-12)).float()
        return logits.to(self.scale.device)


def floor(dataset: ImageDataset, classifier: str, features: str = "pixels", seed: int = 0, **_: Any) -> nn.Module:
    """Fit 1-NN, or logistic regression on standardised features, to a dataset's images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if features not in FEATURES:
        raise unknown_name("features", features, FEATURES)
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200, random_state=seed))
    chosen = KNeighborsClassifier(1) if classifier == "1-NN" else regression
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a solver that stops at max_iter is good enough for a floor
        chosen.fit(FEATURES[features](dataset.images), dataset.labels.numpy())
    return Classical(features, chosen, dataset.num_classes).eval()


for _name in ("1-NN", "logistic regression"):
    register(_name, partial(floor, classifier=_name), options=("features",))
