"""What a user does: predict a network for images of any kind, for a folder with all that it needs, in scikit-learn."""

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from pudnet_lib.auto import choose_predictor
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork
from pudnet_lib.core.predict import predict as predict_dataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.export import program
from pudnet_lib.export.hub import END_NOTE, card
from pudnet_lib.export.models import save, trained_size
from pudnet_lib.files import write_atomically
from pudnet_lib.images import as_dataset, load_images
from pudnet_lib.images.folder import refuse_inside
from pudnet_lib.images.sources import load_quietly
from pudnet_lib.methods.pretrained_features import SIZE
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.supervised import classify_logits
from pudnet_lib.trust import TrustConfig, trust_report


def predict(
    model: ParameterModel | Path | str, images: Any, labels: Any = None, config: PredictConfig | None = None, *,
    size: int | None = None, seconds: float = 20.0,
) -> PredictedNetwork:  # fmt: skip
    """Predict a network for labelled images of any kind; its ``seconds`` are those of each part of the prediction.

    Args:
        model: A predictor, the name of one that comes with the kit, a file of one, or ``"auto"`` (the best for these).
        images: An ``ImageDataset``; a folder, zip or dataset's name (then without labels); or arrays (N, H, W, C) or
            (N, C, H, W), a list of arrays, of Pillow pictures or of paths.
        labels: N of them, of any kind, for arrays, pictures and paths.
        config: How.
        size: Pixels to which pictures are brought; by default what the predictor was trained with.
        seconds: With ``"auto"``: how long the choice may take.

    Raises:
        PudNetError: If images, labels and predictor don't go together; the message says what was expected.
    """
    if str(model) == "auto":
        return choose_predictor(to_images(images, labels, size=SIZE if size is None else size), seconds, config).network
    model = load_pudnet(model) if isinstance(model, str | Path) else model
    data = to_images(images, labels, model, size)
    if float(model.scale.detach()) == 10.0 and not model.notes:  # its first τ, which no training step leaves alone
        what = f"This {type(model).__name__} was never meta-trained: what it predicts is random"
        warnings.warn(f"{what}. Load a trained one (load_pudnet()), or train it (pudnet train).", stacklevel=2)
    return predict_dataset(model, data, config)


def to_images(images: Any, labels: Any, model: ParameterModel | None = None, size: int | None = None) -> ImageDataset:
    """Make a dataset of what ``predict`` takes, with the size and channels of a predictor's training images."""
    if isinstance(images, ImageDataset):
        return images
    channels = 3 if model is None else model.channels or 3
    size = size if size is not None else 32 if model is None else trained_size(model)
    if labels is not None:
        return as_dataset(images, labels, size=size, channels=channels).with_channels(channels)
    if not isinstance(images, str | Path):
        raise PudNetError("Labels are missing: predict(model, images, labels) for arrays, pictures and paths.")
    return load_images(images, split="auto", size=size, channels=channels)


def predict_folder(
    images: str | Path, out: Path, model: str | Path = "auto", config: PredictConfig | None = None, *,
    onnx: bool = False, export: bool = False, classify: Sequence[Path] = (), trust: bool = True, seconds: float = 20.0,
    on_error: Literal["raise", "skip"] = "skip",
) -> Iterator[str]:  # fmt: skip
    """Predict a network for a folder, zip or known name and write all that one needs to use it; lines to be printed."""
    refuse_inside(out, images)
    if onnx:
        program.require_onnx()  # before any work is done
    config, predictor, about = config or PredictConfig(), None, []
    if str(model) == "auto":
        data = load_quietly(images, "auto", SIZE, on_error=on_error)
        choice = choose_predictor(data, seconds, config)
        network, about = choice.network, choice.lines()
    else:
        predictor = load_pudnet(model)
        if predictor.config.target.name == "unet":
            raise PudNetError(f"{model} predicts denoisers; pass --task denoise with it.")
        size, channels = trained_size(predictor), predictor.config.target.channels
        data = load_quietly(images, "auto", size, channels, on_error=on_error)
        network = predict(predictor, data, config=config)
    file = save(network, out / "network.safetensors")
    parts = ", ".join(f"{part} {1000 * value:.0f}" for part, value in network.seconds.items())
    yield f"{data.name}: {len(data)} images, {data.num_classes} classes"
    yield from [f"Note: {line}" for line in (data.report.warnings if data.report is not None else ())]
    yield f"{file}: predicted in {1000 * sum(network.seconds.values()):.0f} ms ({parts})"
    yield from about
    report, test = None, None
    small = data.with_channels(network.channels).at_size(network.image_size)
    if trust:
        if data.report is not None and data.report.split.get("source") == "own":  # the folder's own test part
            test = load_quietly(images, "test", small.size, small.channels, progress=False)
            test = test if test.class_names == data.class_names else None
        report = trust_report(network, small, predictor, TrustConfig(predict=config), test=test)
        yield from report.lines()
    write_atomically(out / "README.md", card(network, report, data.licence, about).encode())
    if export:
        program.torch_export(network, out / "network.pt2")
        yield f"{out / 'network.pt2'}: the same logits as before to 1e-5"
    if onnx:
        difference = program.onnx(network, out / "network.onnx", small.images)
        program.onnx(network, out / "network_any_size.onnx", small.images, any_size=True)
        yield f"{out / 'network.onnx'}: onnxruntime's logits differ by {difference:.1e} at most"
        yield f"{out / 'network_any_size.onnx'}: the same for one picture of any size"
    for picture in classify:
        found = network.classify(picture)
        yield f"{picture}: {found.label} ({100 * found.probabilities[found.label]:.0f} %)"
    yield f"Next, in Python:\nimport pudnet_lib\n{END_NOTE}"


class PudNetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts a ConvNet's parameters for labelled images instead of training one.

    Args:
        predictor: ``"auto"`` (see ``choose_predictor``), the name of one that comes with the kit, or a file of one.
        seconds: With ``"auto"``: about how long the comparison may take.
        size: Pixels to which pictures and paths are brought; by default what the predictor was trained with.
        batch_size: Images per forward pass.
        random_state: Seed of sketches and folds, a whole number.

    Attributes:
        classes_: The K labels, sorted.
        network_: The predicted network.
        choice_: With ``"auto"``: all numbers of the comparison.
    """

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
        size = SIZE if model is None and self.size is None else self.size
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
        data = as_dataset(X, [0] * len(X), names, size=network.image_size).with_channels(network.channels)
        return classify_logits(network, data.at_size(network.image_size).images, self.batch_size)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Most probable label of each image, (N,)."""
        best = self._logits(X).argmax(1).numpy()  # says first that nothing was fitted
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
