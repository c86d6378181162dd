"""A scikit-learn estimator: ``PudNetClassifier().fit(X, y).predict(X)``. Our choice."""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from pudnet_lib.auto import SIZE, Choice, at_size, choose_predictor
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork
from pudnet_lib.face import predict, to_images
from pudnet_lib.images import as_dataset
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.trust import classify_logits


class PudNetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts a ConvNet's parameters for labelled images instead of training one.

    Args:
        predictor: ``"auto"`` (the best on these images, see ``choose_predictor``), the name of a predictor that comes
            with the kit, or a file of one.
        seconds: With ``"auto"``: about how long the comparison may take.
        size: Pixels to which pictures and paths are brought; by default what the predictor was trained with.
        batch_size: Images per forward pass.
        random_state: Seed of sketches and folds, a whole number.

    Attributes:
        classes_: The K labels, sorted.
        network_: The predicted network.
        choice_: With ``"auto"``: all numbers of the comparison.
    """

    classes_: np.ndarray
    network_: PredictedNetwork
    choice_: Choice

    def __init__(
        self, predictor: str = "auto", *, seconds: float = 20.0, size: int | None = None, batch_size: int = 256,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.predictor, self.seconds, self.size = predictor, seconds, size
        self.batch_size, self.random_state = batch_size, random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Predict a network for labelled images.

        Args:
            X: (N, H, W, C) or (N, C, H, W) uint8 or floats in [0, 1]; or N arrays, Pillow pictures or paths.
            y: N labels, of any kind.

        Returns:
            Itself.

        Raises:
            ValueError: If lengths differ, there is one class only, or an image can't be read.
        """
        check_consistent_length(X, y)
        labels = np.asarray(y)
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(classes)} class")
        config = PredictConfig(seed=self.random_state, batch_size=self.batch_size)
        model = None if self.predictor == "auto" else load_pudnet(self.predictor)
        size = self.size or (SIZE if model is None else None)
        data = to_images(X, numbers.tolist(), model, size)
        if model is None:
            self.choice_ = choose_predictor(data, self.seconds, config, self.random_state)
        self.network_ = self.choice_.network if model is None else predict(model, data, config=config)
        self.classes_ = classes
        return self

    def _logits(self, X: Any) -> torch.Tensor:  # noqa: N803
        check_is_fitted(self, "network_")
        if len(X) == 0:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        network, names = self.network_, [str(c) for c in range(len(self.classes_))]
        data = as_dataset(X, [0] * len(X), names, size=network.image_size)
        images = at_size(data.with_channels(network.channels), network.image_size).images
        return classify_logits(network, images, self.batch_size)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Most probable label of each image, (N,)."""
        best = self._logits(X).argmax(1).numpy()
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities (N, K), in the order of ``classes_``."""
        return np.asarray(self._logits(X).softmax(1).numpy())

    def __reduce__(self) -> Any:
        """Pickle the parameters alone: a network is kept with ``pudnet_lib.save(estimator.network_, path)``."""
        return partial(type(self), **self.get_params(deep=False)), ()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        tags.no_validation = True
        return tags
