"""When not to trust a prediction: accuracy, distance to the meta-training pool, and advice in words.

The accuracy is measured on the user's own test part where there is one, else by cross-validation in which *each fold is
predicted anew*: a refined network has been fitted to its images' labels, and any estimate from it would praise itself
(random labels give 100 %). Beside it: class means of raw pixels, which any useful network must beat, and how far the
images' embedding is from those of pool episodes of that size. The thresholds of the advice are our choice.
"""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.heads import class_means, cosine_logits
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork, extract_features, predict
from pudnet_lib.core.pudnet import PudNet
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.named import pack_names
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.images.sources import load_images
from pudnet_lib.methods.pretrained_features import lda
from pudnet_lib.shipped import load_shipped, shipped_models
from pudnet_lib.supervised import classify_logits

Advice = Literal["use it as it is", "fine-tune it", "train from scratch", "collect more images"]
Pool = tuple[ImageDataset, ...]
Fit = Callable[[ImageDataset], PredictedNetwork]
NEIGHBOURS = 5  # nearest pool episodes, over which a distance is averaged
PRETRAINED = "ImageNet-pretrained features"  # the predictor that needs no predicting


@dataclass(frozen=True)
class TrustConfig:
    """How a trust report is made."""

    folds: int = 5
    max_images: int = 1000  # at most so many take part in the cross-validation, the same number of each class
    fine_tune_from: int = 20  # images per class from which fine-tuning is advised
    scratch_from: int = 100  # and training from scratch, where the prediction fails
    far: float = 3.0  # distance to the pool, in medians of the pool's own, from which images count as far
    good: float = 95.0  # accuracy in % from which nothing more is advised
    seed: int = 0  # of the folds
    predict: PredictConfig = field(default_factory=PredictConfig)  # how the network is predicted in each fold

    def __post_init__(self) -> None:
        if self.folds < 2 or self.max_images < 2:
            raise PudNetError(f"{self}: folds and max_images must be at least 2.")


class TrustReport(NamedTuple):
    """What ``trust_report`` found; accuracies in %."""

    accuracy: float  # of the prediction, on images that it did not learn from
    low: float  # lower end of its 95 % interval (Wilson)
    high: float
    images: int  # that were classified
    balanced: float  # mean of the classes' accuracies
    balanced_low: float  # lower end of its 95 % interval
    per_class: dict[str, float]
    chance: float  # share of the largest class among them: what a constant answer reaches
    pixel_accuracy: float  # balanced accuracy of class means of raw pixels
    images_per_class: int  # median number of labelled images per class
    distance: float | None  # to the pool, in medians of the pool's own; None where the model does not look at images
    nearest: str  # the pool's nearest source; empty where there is no distance
    measured: Literal["test part", "cross-validation"]
    advice: Advice
    reasons: tuple[str, ...]  # of the advice, one sentence each

    def lines(self, escape: Callable[[object], str] = str) -> list[str]:
        """The report as sentences, for the command line and the card, which gives a function to escape names."""
        how = f"on {self.images} of its own images under cross-validation (each fold predicted anew)"
        if self.measured == "test part":
            how = f"on the {self.images} images of its own test part"
        weakest = sorted(self.per_class, key=self.per_class.__getitem__)[:3]
        worst = ", ".join(f"{escape(name)} {self.per_class[name]:.0f} %" for name in weakest)
        lines = [
            f"Estimated accuracy: {self.accuracy:.1f} % [{self.low:.1f}, {self.high:.1f}] {how}; always the largest "
            f"class: {self.chance:.1f} %; class means of raw pixels: {self.pixel_accuracy:.1f} %.",
            f"Each class alone, the mean (balanced accuracy): {self.balanced:.1f} %; the weakest: {worst}.",
        ]
        if self.distance is not None:
            away = f"{self.distance:.1f} times the usual distance within it; nearest source: {escape(self.nearest)}"
            lines.append(f"Distance to the meta-training pool: {away}.")
        return [*lines, f"Advice: {self.advice}. {' '.join(self.reasons)}"]


class PoolDistance(NamedTuple):
    """Mean distance of images' embedding to the nearest pool episodes, in units of what pool episodes have."""

    ratio: float  # the distance over the pool's own median
    nearest: str  # the source of the nearest episode
    share: float  # of the pool's episodes that are as far or farther from the others


def trust_report(
    network: PredictedNetwork, images: ImageDataset, model: ParameterModel | None = None,
    config: TrustConfig | None = None, pool: Pool | None = None, test: ImageDataset | None = None,
) -> TrustReport:  # fmt: skip
    """Estimate how far to trust a predicted network. Model, network and global generators don't change.

    Args:
        network: The predicted network.
        images: The images for which it was predicted.
        model: What predicted it; by default the shipped predictor that the network's origin names.
        config: How.
        pool: The training classes of the sources of the meta-training; by default what the model's notes say.
        test: Images of the same classes that it was not predicted from, to be measured instead of a cross-validation.

    Raises:
        PudNetError: If the model is not known and there are no test images, the images' classes are not the network's,
            or no class has two images (items).
    """
    config = config or TrustConfig()
    for data in (images, test or images):
        if data.class_names != network.class_names:
            theirs, ours = list(data.class_names[:3]), list(network.class_names[:3])
            what = f"{data.name} has classes {theirs}… and the network {ours}…"
            raise PudNetError(f"{what}; give the images for which it was predicted.")
    if test is not None:  # pictures that the network was fitted to measure nothing, and copies count as one
        known = {image.numpy().tobytes() for image in images.images.cpu()}
        first = {image.numpy().tobytes(): i for i, image in reversed([*enumerate(test.images.cpu())])}
        fresh = sorted(i for picture, i in first.items() if picture not in known)
        test = test.subset(torch.tensor(fresh)) if fresh else None
    name = network.origin.get("predictor", "")
    if model is None and name in shipped_models():
        model = load_shipped(name)
    elif model is None and test is None and name != PRETRAINED:  # whose features were fitted to none of these images
        what = "This network was fitted to these very images, and its origin names no predictor of the kit"
        remedy = "Pass model=, what predicted it, or test=, labelled images that it has not seen."
        raise PudNetError(f"{what}: an estimate from it would only praise itself. {remedy}")
    if test is not None:
        labels, logits = test.labels, classify_logits(network, test.images, config.predict.batch_size)
        right = logits.argmax(1) == labels
        means = class_means(_pixels(images), images.labels, images.num_classes)
        pixels = cosine_logits(_pixels(test), means, 1.0).argmax(1) == labels
    else:
        some = images.at_most(max(2, config.max_images // images.num_classes), config.seed)
        usable = fold_of(some, config.folds) >= 0
        labels = some.labels[usable]
        head = "LDA" if hasattr(network, "bias") else "class means"
        fixed = extract_features(network.backbone, some.images, 50).cpu() if model is None else None
        fit = partial(predict, cast(ParameterModel, model), config=config.predict)
        right = cross_validate(fit, some, config.folds, config.seed, fixed=fixed, heads=[head])[0][head][usable]
        pixels = cross_validate(fit, some, config.folds, config.seed, fixed=_pixels(some))[0]["class means"][usable]
    distance = None if model is None else pool_distance(model, images, config.predict, pool)
    facts = _facts(labels, right, images.class_names)
    facts["pixel_accuracy"] = _facts(labels, pixels, images.class_names)["balanced"]
    facts["images_per_class"] = int(images.class_counts().median())
    advice, reasons = advise(facts, distance, config)
    away, nearest = (None, "") if distance is None else distance[:2]
    measured: Any = "cross-validation" if test is None else "test part"
    return TrustReport(**facts, distance=away, nearest=nearest, measured=measured, advice=advice, reasons=reasons)


def _pixels(data: ImageDataset) -> Tensor:
    """Raw pixels (N, C·H·W), as dark as bright, for the cosine."""
    return (data.images.float() / 255 - 0.5).flatten(1)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in %."""
    low, high = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return 100 * float(low), 100 * float(high)


def _facts(labels: Tensor, right: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, balanced accuracy and chance in %, from which images (N,) bool were right."""
    hits, count = int(right.sum()), len(labels)
    counts = torch.bincount(labels, minlength=len(names)).double()
    known = counts > 0
    per_class, counts = torch.bincount(labels, right.double(), minlength=len(names))[known], counts[known]
    share, smooth = per_class / counts, (per_class + 2) / (counts + 4)  # Agresti and Coull: no class is certain
    half = 1.96 * float((smooth * (1 - smooth) / (counts + 4)).sum().sqrt()) / len(counts)
    kept = [name for name, there in zip(names, known.tolist(), strict=True) if there]
    low, high = wilson(hits, count)
    return {
        "accuracy": 100 * hits / count, "low": low, "high": high, "images": count,
        "balanced": 100 * float(share.mean()), "balanced_low": 100 * max(0.0, float(share.mean()) - half),
        "per_class": {name: 100 * value for name, value in zip(kept, share.tolist(), strict=True)},
        "chance": 100 * float(counts.max()) / count,
    }  # fmt: skip


def advise(facts: dict[str, Any], distance: PoolDistance | None, config: TrustConfig) -> tuple[Advice, tuple[str, ...]]:
    """Turn measurements into advice."""
    reasons = []
    guessing = facts["balanced_low"] <= 100 / len(facts["per_class"])
    good = min(facts["accuracy"], facts["balanced"]) >= config.good and not guessing
    failed = not good and (guessing or facts["balanced_low"] <= facts["pixel_accuracy"])
    if guessing:
        reasons.append("The prediction is not reliably better than guessing.")
    elif failed:
        reasons.append("Its features are not reliably better than raw pixels.")
    if distance is not None and distance.ratio > config.far and distance.share == 0:
        reasons.append("The images are unlike all that the predictor was trained with.")
    if good and facts["balanced_low"] <= facts["pixel_accuracy"]:
        reasons.append("Raw pixels do as well: these images are easy, and say little about the prediction.")
    per_class = facts["images_per_class"]
    if failed and per_class >= config.scratch_from:
        return "train from scratch", (*reasons, f"{per_class} images per class are enough to train on.")
    if failed and per_class < config.fine_tune_from:
        reasons.append(f"{per_class} images per class are few for fine-tuning (from {config.fine_tune_from} on).")
        return "collect more images", tuple(reasons)
    if not good and per_class >= config.fine_tune_from:
        return "fine-tune it", (*reasons, f"{per_class} images per class are enough for fine-tuning.")
    few = f"It makes errors, but {per_class} images per class are few for fine-tuning."
    return "use it as it is", (*reasons, "There is little left to gain." if good else few)


def fold_of(data: ImageDataset, folds: int, seed: int = 0) -> Tensor:
    """Deal images into folds (N,): classes evenly, items together; -1 for a class of one item, never left out."""
    generator, fold = torch.Generator().manual_seed(seed), torch.full((len(data),), -1)
    for ids in data.indices_by_class():
        items, inverse = data.items[ids].unique(return_inverse=True)
        if len(items) >= 2:
            fold[ids] = (torch.randperm(len(items), generator=generator) % folds)[inverse]
    if not bool((fold >= 0).any()):
        raise PudNetError(f"{data.name}: no class has two images to tell apart; cross-validation needs two per class.")
    return fold


def cross_validate(
    fit: Fit, data: ImageDataset, folds: int = 5, seed: int = 0, seconds: float = float("inf"),
    fixed: Tensor | None = None, heads: Sequence[str] = ("class means",),
) -> tuple[dict[str, Tensor], Tensor, list[float]]:  # fmt: skip
    """Learn from all folds but one and classify that one, for each fold while there are seconds (two at least)."""
    # Which images (N,) each head had right, which were left out, each fit's seconds; of ``fixed`` features heads alone.
    fold, count = fold_of(data, folds, seed), data.num_classes
    right = {head: torch.zeros(len(data), dtype=torch.bool) for head in heads}
    done, took, began = torch.zeros(len(data), dtype=torch.bool), [], time.perf_counter()
    for index in range(folds):
        left, held, start = fold != index, fold == index, time.perf_counter()
        if not bool(held.any()) or (index >= 2 and fixed is None and start - began > seconds):
            continue
        features = fixed
        if features is None:
            network = fit(data.subset(torch.nonzero(left).flatten()))
            images = data.at_size(network.image_size).with_channels(network.channels).images
            features = extract_features(network.backbone, images).cpu()
            took.append(time.perf_counter() - start)
        known, labels, new = features[left], data.labels[left], features[held]
        means = class_means(known, labels, count)
        for head in heads:
            logits = F.linear(new, *lda(known, labels, count)) if head == "LDA" else cosine_logits(new, means, 1.0)
            right[head][held] = logits.argmax(1) == data.labels[held]
        done |= held
    return right, done, took


class _Embedded(NamedTuple):
    """Pool episodes: vectors (M, G·D) standardised by centre and spread, their sources, their own distances (M,)."""

    vectors: Tensor
    centre: Tensor
    spread: Tensor
    sources: tuple[str, ...]
    own: Tensor


_CACHE: weakref.WeakKeyDictionary[PudNet, dict[Any, _Embedded]] = weakref.WeakKeyDictionary()


def default_pool(notes: Mapping[str, Any] | None = None, size: int = 32, channels: int = 3) -> Pool | None:
    """The training classes of a predictor's sources; None where one of them does not come with the kit."""
    known = (notes or {}).get("train", {}).get("pool", {})
    names, size = known.get("sources", pack_names()), known.get("size", size)
    if not set(names) <= set(pack_names()):
        return None
    data = [load_images(name, "train", size, channels) for name in names]
    return tuple(d.select_classes(default_class_split(d.name, d.num_classes).train) for d in data)


def _embed(model: PudNet, sketch: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return model.embed(sketch.to(model.device), labels.to(model.device)).flatten().cpu()  # (G·D,)


def _nearest(distances: Tensor) -> Tensor:  # mean of the smallest few of each row
    return distances.topk(min(NEIGHBOURS, distances.shape[-1]), largest=False).values.mean(-1)


def pool_embeddings(model: PudNet, pool: Pool, ways: int = 5, per_class: int = 10, episodes: int = 32) -> _Embedded:
    """Embed each source's episodes of so many classes (at most all) and sketch images; kept until weights change."""
    weights = tuple(p._version for p in model.parameters())
    key = (tuple((d.name, len(d), d.class_names) for d in pool), ways, per_class, episodes, weights)
    kept = _CACHE.setdefault(model, {})
    if key not in kept:
        drawn = []
        for source, data in enumerate(pool):
            how = EpisodeConfig(min(ways, data.num_classes), per_class, support_per_class=1, query_per_class=1)
            sampler = EpisodeSampler([data], how, seed=source)
            drawn += [(sampler.episode(i), data.name) for i in range(episodes)]
        raw = torch.stack([_embed(model, e.sketch, e.sketch_labels) for e, _ in drawn])  # (M, G·D)
        centre, spread = raw.mean(0), raw.std(0).clamp_min(1e-6)
        vectors = (raw - centre) / spread
        own = _nearest(torch.cdist(vectors, vectors).fill_diagonal_(float("inf")))
        if any(k[-1] != weights for k in kept) or len(kept) > 8:
            kept.clear()  # a model that is still being trained would fill the memory
        kept[key] = _Embedded(vectors, centre, spread, tuple(name for _, name in drawn), own)
    return kept[key]


def pool_distance(
    model: ParameterModel, images: ImageDataset, config: PredictConfig | None = None, pool: Pool | None = None
) -> PoolDistance | None:
    """Measure how far images are from the pool's episodes of the same number of classes and images."""
    if not isinstance(model, PudNet) or model.config.embedding == "constant":
        return None
    config = config or PredictConfig()
    if not (pool := pool or default_pool(model.notes, images.size, images.channels)):
        return None
    sketch, labels = images.sketch_with_labels(config.sketch_per_class, config.seed)
    per_class = max(1, round(float(np.median(torch.bincount(labels).numpy()))))
    known = pool_embeddings(model, pool, images.num_classes, per_class)
    distances = torch.cdist(((_embed(model, sketch, labels) - known.centre) / known.spread)[None], known.vectors)[0]
    here, usual = float(_nearest(distances)), max(float(known.own.median()), 1e-6)
    nearest = known.sources[int(distances.argmin())]
    return PoolDistance(here / usual, nearest, float((known.own >= here).float().mean()))
