"""When not to trust a prediction: cross-validated accuracy, distance to the meta-training pool, and advice in words.

Our choice; the paper has no counterpart. Three measurements, all on the dataset's own training images: the accuracy of
the whole prediction under cross-validation; that of class means of raw pixels, which any useful network must beat; how
far the dataset's embedding is from those of the pool. The thresholds of the advice are ours; the inter-dataset
experiment measures how often the advice was right, and how well the estimate agrees with test images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork, extract_features, predict
from pudnet_lib.errors import PudNetError
from pudnet_lib.pool_distance import PoolDistance, pool_distance

Advice = Literal["use it as it is", "fine-tune it", "train from scratch", "collect more images"]


@dataclass(frozen=True)
class TrustConfig:
    """How a trust report is made.

    Attributes:
        folds: Folds of the cross-validation.
        max_images: At most so many images take part in it, the same number of each class.
        fine_tune_from: Images a class from which fine-tuning is advised.
        scratch_from: Images a class from which training from scratch is advised where the prediction fails.
        far: Distance to the pool, in medians of the pool's own, from which a dataset counts as far.
        good: Accuracy in % from which nothing more is advised.
        seed: Seed of the folds.
        predict: How the network is predicted in each fold.
    """

    folds: int = 5
    max_images: int = 1000
    fine_tune_from: int = 20
    scratch_from: int = 100
    far: float = 3.0
    good: float = 95.0
    seed: int = 0
    predict: PredictConfig = field(default_factory=PredictConfig)

    def __post_init__(self) -> None:
        if self.folds < 2 or self.max_images < 2:
            raise PudNetError(f"{self}: folds and max_images must be at least 2.")


@dataclass(frozen=True)
class TrustReport:
    """What ``trust_report`` found; accuracies in %.

    Attributes:
        accuracy: Cross-validated accuracy of the prediction.
        low: Lower end of its 95 % interval (Wilson).
        high: Upper end.
        images: Images that were classified under cross-validation.
        chance: Share of the largest class among them: what a constant answer reaches.
        pixel_accuracy: Accuracy of class means of raw pixels on the same images.
        images_per_class: Median number of images a class.
        distance: To the pool, in medians of the pool's own; None where the model does not look at images.
        nearest: The pool's source that is nearest; empty where there is no distance.
        whole: True if each fold was predicted anew; False if only class means were taken anew.
        advice: The better choice.
        reasons: Why, one sentence each.
    """

    accuracy: float
    low: float
    high: float
    images: int
    chance: float
    pixel_accuracy: float
    images_per_class: int
    distance: float | None
    nearest: str
    whole: bool
    advice: Advice
    reasons: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as sentences, for the command line and the model card."""
        method = "predicted anew in each fold" if self.whole else "class means without the image itself"
        lines = [
            f"Estimated accuracy: {self.accuracy:.1f} % [{self.low:.1f}, {self.high:.1f}] on {self.images} of its own "
            f"training images under cross-validation ({method}); always the largest class: {self.chance:.1f} %; class "
            f"means of raw pixels: {self.pixel_accuracy:.1f} %."
        ]
        if self.distance is not None:
            lines.append(
                f"Distance to the meta-training pool: {self.distance:.1f} times the usual distance within it; nearest "
                f"source: {self.nearest}."
            )
        return [*lines, f"Advice: {self.advice}. {' '.join(self.reasons)}"]

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return asdict(self) | {"reasons": list(self.reasons)}


def trust_report(
    model: ParameterModel | None,
    network: PredictedNetwork,
    dataset: ImageDataset,
    config: TrustConfig | None = None,
    pool: tuple[ImageDataset, ...] | None = None,
) -> TrustReport:
    """Estimate how far to trust a predicted network. Model, network and global generators don't change.

    Args:
        model: What predicted it; each fold is then predicted anew, and the distance measured. None: class means of the
            network's own features, each without the image itself, which is optimistic where the sketch's labels went
            into the network.
        network: The predicted network.
        dataset: The images for which it was predicted.
        config: How.
        pool: The training classes of the sources of the meta-training; by default the embedded packs'.

    Returns:
        The report.

    Raises:
        PudNetError: If the dataset's classes are not the network's, or no class has two images (items).
    """
    config = config or TrustConfig()
    if dataset.class_names != network.class_names:
        raise PudNetError(
            f"{dataset.name} has classes {list(dataset.class_names[:3])}… and the network "
            f"{list(network.class_names[:3])}…; give the dataset for which it was predicted."
        )
    some = dataset.at_most(max(2, config.max_images // dataset.num_classes), config.seed)
    usable = _spread_over_items(some)
    if not bool(usable.any()):
        raise PudNetError(f"{dataset.name}: no class has two images to tell apart; cross-validation needs two a class.")
    if model is None:
        features = extract_features(network.backbone, some.images).cpu()
        right = leave_one_item_out(features, some.labels, some.items, some.num_classes)
    else:
        right = cross_validate(model, some, config)
    pixels = (some.images.float() / 255 - 0.5).flatten(1)  # (N, C·H·W), as dark as bright, for the cosine
    pixel_right = leave_one_item_out(pixels, some.labels, some.items, some.num_classes)
    hits, count = int(right[usable].sum()), int(usable.sum())
    bounds = stats.binomtest(hits, count).proportion_ci(method="wilson")
    distance = None if model is None else pool_distance(model, dataset, config.predict, pool)
    facts: dict[str, Any] = {
        "accuracy": 100 * hits / count,
        "low": 100 * float(bounds.low),
        "high": 100 * float(bounds.high),
        "images": count,
        "chance": 100 * float(torch.bincount(some.labels[usable]).max()) / count,
        "pixel_accuracy": 100 * float(pixel_right[usable].float().mean()),
        "images_per_class": int(dataset.class_counts().median()),
    }
    advice, reasons = advise(facts, distance, config)
    far = (None, "") if distance is None else (distance.ratio, distance.nearest)
    return TrustReport(
        **facts, distance=far[0], nearest=far[1], whole=model is not None, advice=advice, reasons=reasons
    )


def advise(facts: dict[str, Any], distance: PoolDistance | None, config: TrustConfig) -> tuple[Advice, tuple[str, ...]]:
    """Turn measurements into advice.

    Args:
        facts: accuracy, low, chance, pixel_accuracy, images_per_class, as in ``TrustReport``.
        distance: To the pool; None where there is none.
        config: The thresholds.

    Returns:
        The advice and its reasons.
    """
    reasons = []
    good = facts["accuracy"] >= config.good and facts["low"] > facts["chance"]
    failed = not good and facts["low"] <= max(facts["chance"], facts["pixel_accuracy"])
    if facts["low"] <= facts["chance"]:
        reasons.append("The prediction is not reliably better than guessing.")
    elif failed:
        reasons.append("Its features are not reliably better than raw pixels.")
    if distance is not None and distance.ratio > config.far:
        reasons.append("The images are unlike all that the predictor was trained with.")
    if good and facts["low"] <= facts["pixel_accuracy"]:
        reasons.append("Raw pixels do as well: these images are easy, and say little about the prediction.")
    per_class = facts["images_per_class"]
    if failed and per_class >= config.scratch_from:
        return "train from scratch", (*reasons, f"{per_class} images a class are enough to train on.")
    if failed and per_class < config.fine_tune_from:
        reasons.append(f"{per_class} images a class are few for fine-tuning (from {config.fine_tune_from} on).")
        return "collect more images", tuple(reasons)
    if failed or (facts["accuracy"] < config.good and per_class >= config.fine_tune_from):
        return "fine-tune it", (*reasons, f"{per_class} images a class are enough for fine-tuning.")
    if facts["accuracy"] < config.good:
        reasons.append(f"It makes errors, but {per_class} images a class are few for fine-tuning.")
    else:
        reasons.append("There is little left to gain.")
    return "use it as it is", tuple(reasons)


def _spread_over_items(data: ImageDataset) -> Tensor:
    """Which images (N,) belong to a class with another item: the only ones that can be left out of it."""
    pairs = torch.stack([data.labels, data.items], 1).unique(dim=0)  # each item of each class once
    return torch.bincount(pairs[:, 0], minlength=data.num_classes)[data.labels] >= 2


def leave_one_item_out(features: Tensor, labels: Tensor, items: Tensor, num_classes: int) -> Tensor:
    """Classify every image by the cosine to class means from which all images of its item are left out.

    Args:
        features: (N, F).
        labels: (N,) in 0..K-1.
        items: (N,) int64; images of one item are left out together, of their own class.
        num_classes: K.

    Returns:
        (N,) bool, whether the class was right; False where nothing is left of the class.
    """
    onehot = F.one_hot(labels, num_classes).to(features)  # (N, K)
    sums, counts = onehot.T @ features, onehot.sum(0)  # (K, F), (K,)
    _, episode = torch.stack([items, labels], 1).unique(dim=0, return_inverse=True)  # (N,) number of (item, class)
    item_sums = torch.zeros(int(episode.max()) + 1, features.shape[1]).to(features).index_add_(0, episode, features)
    left = counts[labels] - torch.bincount(episode).to(counts)[episode]  # (N,) images left of the own class
    own = sums[labels] - item_sums[episode]  # (N, F); a cosine needs no division by the count
    unit = F.normalize(features, dim=1)
    logits = unit @ F.normalize(sums, dim=1).T  # (N, K)
    own_logit = (unit * F.normalize(own, dim=1)).sum(1)
    logits = logits.scatter(1, labels[:, None], float("-inf"))  # the best of the other classes, and the own one
    return (own_logit > logits.max(1).values) & (left > 0)


def fold_of(data: ImageDataset, folds: int, seed: int = 0) -> Tensor:
    """Deal a dataset's images into folds: classes evenly, images of one item together.

    Args:
        data: The images.
        folds: How many.
        seed: Seed of the deal.

    Returns:
        (N,) int64 fold of each image; -1 for images of a class of one item, which is never left out.
    """
    generator, fold = torch.Generator().manual_seed(seed), torch.full((len(data),), -1)
    for ids in data.indices_by_class():
        items, inverse = data.items[ids].unique(return_inverse=True)
        if len(items) >= 2:
            fold[ids] = (torch.randperm(len(items), generator=generator) % folds)[inverse]
    return fold


def cross_validate(model: ParameterModel, data: ImageDataset, config: TrustConfig) -> Tensor:
    """Predict from all folds but one and classify that one, for each fold in turn.

    Args:
        model: The predictor.
        data: The images.
        config: Folds, seed, and how to predict.

    Returns:
        (N,) bool, whether the class was right; False for images that were never left out.
    """
    fold, right = fold_of(data, config.folds, config.seed), torch.zeros(len(data), dtype=torch.bool)
    for index in range(config.folds):
        held = torch.nonzero(fold == index).flatten()
        if len(held) == 0:
            continue
        network = predict(model, data.subset(torch.nonzero(fold != index).flatten()), config.predict)
        with torch.no_grad():
            for part in held.split(config.predict.batch_size):
                answers = network(data.images[part].to(network.means.device)).argmax(1).cpu()
                right[part] = answers == data.labels[part]
    return right
