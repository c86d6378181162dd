"""Quick start: predict a ConvNet for one dataset and compare it with networks that learn from the same images.

Paper, Section 4.2 [rec], at the scale of a first look: one source, its unseen classes (of a folder: all classes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pandas as pd
from scipy import stats
from torch import nn

from pudnet_lib.core import ParameterModel
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork, predict
from pudnet_lib.evaluate import Swap, Swapper, compare_models, difference, evaluate_fits
from pudnet_lib.images import load_images
from pudnet_lib.images.packs import pack_names
from pudnet_lib.images.splits import default_class_split
from pudnet_lib.methods.contenders import REFINED_SHARED
from pudnet_lib.methods.refined import refined
from pudnet_lib.results import Headline
from pudnet_lib.shipped import load_pudnet, load_shipped, shipped_notes
from pudnet_lib.supervised import ScratchConfig, accuracy, finetune, train_from_scratch

TITLE = "Predict your own images"
QUESTION = "Does a ConvNet that was predicted, not trained, match one that is trained on the same images?"
#: Method to the shipped model behind it; the last one is derived from it.
SHIPPED = {"PudNet": "pudnet", "PudNet, plain": "paper", "shared network": "shared", REFINED_SHARED: "shared"}


@dataclass(frozen=True)
class Config:
    """The quick start's configuration.

    Attributes:
        images: An embedded pack (then its unseen classes are used), any other dataset's name, or an image folder.
        max_per_class: At most so many training images a class.
        episodes: Unseen episodes for the table with the controls.
        fit_episodes: Episodes on which networks are trained from scratch and fine-tuned (slow, so fewer).
        ways: K, classes an episode.
        scratch_epochs: Epochs from scratch on the whole dataset (the curve).
        episode_epochs: Epochs from scratch and of fine-tuning on an episode.
        fits: Seeds of the curve.
        seed: Seed of sketches, episodes and trainings.
        predict: How networks are predicted.
    """

    images: str = "fashion"
    max_per_class: int = 500
    episodes: int = 100
    fit_episodes: int = 20
    ways: int = 5
    scratch_epochs: int = 15
    episode_epochs: int = 30
    fits: tuple[int, ...] = (0, 1, 2)
    seed: int = 0
    predict: PredictConfig = field(default_factory=PredictConfig)


PROFILES = {
    "smoke": Config(max_per_class=40, episodes=4, fit_episodes=2, scratch_epochs=2, episode_epochs=2, fits=(0, 1)),
    "laptop": Config(),
    "paper": Config(max_per_class=0, episodes=600, fit_episodes=100, scratch_epochs=50, fits=(0, 1, 2, 3, 4)),
}


def load(config: Config) -> tuple[ImageDataset, ImageDataset]:
    """Load the dataset: training and test images of the classes that no meta-training has seen.

    Args:
        config: Which images.

    Returns:
        Training and test images, RGB, 32 pixels.
    """
    train, test = load_images(config.images, split="train"), load_images(config.images, split="test")
    if train.name in pack_names():
        unseen = default_class_split(train.name, train.num_classes).unseen
        train, test = train.select_classes(unseen), test.select_classes(unseen)
    return (train.at_most(config.max_per_class, config.seed) if config.max_per_class else train), test


def load_named(name: str, config: Config) -> tuple[ImageDataset, ImageDataset]:
    """Load another dataset under the same config, for the notebook's panel."""
    return load(replace(config, images=name))


def predict_network(train: ImageDataset, config: Config) -> PredictedNetwork:
    """Predict the network for the whole dataset with the shipped predictor."""
    return predict(load_pudnet(), train, config.predict)


def random_network(train: ImageDataset, config: Config) -> PredictedNetwork:
    """Recalibrate the same network with random parameters: what filters and features look like before."""
    return predict(SharedNetwork(SharedConfig(load_pudnet().config.target, config.seed)), train, config.predict)


def curves(train: ImageDataset, test: ImageDataset, config: Config) -> pd.DataFrame:
    """Train from scratch (GC) and fine-tune the prediction on the whole dataset, accuracy against seconds.

    Args:
        train: Training images.
        test: Test images.
        config: Epochs and seeds.

    Returns:
        Columns method, seed, step, seconds, value (accuracy in %).
    """
    network, tables = predict_network(train, config), []
    before = {"from scratch": 0.0, "fine-tuned": sum(network.seconds.values())}  # the prediction is on its clock
    for seed in config.fits:
        fit = ScratchConfig(load_pudnet().config.target, epochs=config.scratch_epochs, seed=seed)
        for method, result in (
            ("from scratch", train_from_scratch(train, test, fit)),
            ("fine-tuned", finetune(network, train, test, fit)),
        ):
            curve = pd.DataFrame(result.curve).assign(method=method, seed=seed)
            tables.append(curve.assign(seconds=curve["seconds"] + before[method]))
    return pd.concat(tables, ignore_index=True)


def predicted_point(network: PredictedNetwork, test: ImageDataset) -> pd.DataFrame:
    """Accuracy of the predicted network on test images with Wilson's 95 % interval, and its seconds.

    Args:
        network: The predicted network.
        test: Test images.

    Returns:
        One row: mean, low, high in %, n, seconds of the prediction.
    """
    right = round(len(test) * accuracy(network, test) / 100)
    bounds = stats.binomtest(right, len(test)).proportion_ci(method="wilson")
    row = {"mean": 100 * right / len(test), "low": 100 * bounds.low, "high": 100 * bounds.high, "n": len(test)}
    return pd.DataFrame([row | {"seconds": sum(network.seconds.values())}])


def run(config: Config) -> pd.DataFrame:
    """Compare on episodes of the dataset's classes: prediction, controls, fine-tuning, training from scratch.

    Args:
        config: What to run.

    Returns:
        Long form: method, dataset, seed, episode, metric, value (accuracy in %), chance in %, prediction_seconds (of a
        trained method: its training) and meta_training_seconds.
    """
    train, test = load(config)
    own = load_images(config.images, split="train")
    others = [load_images(name, split="train") for name in pack_names() if name != train.name]
    ways = min(config.ways, train.num_classes)
    sampler = EpisodeSampler([train], EpisodeConfig(ways), config.seed, query_pool=[test])
    swapper = Swapper([own, *others], sampler.config.sketch_per_class, config.seed)
    # A near swap needs classes outside the episode; a user's folder of few classes has none.
    swaps: tuple[Swap, ...] = ("own", "far", "near") if own.num_classes >= ways + 2 else ("own", "far")
    models = {method: load_shipped(name) for method, name in SHIPPED.items()}
    shared = models["shared network"]
    if isinstance(shared, SharedNetwork):
        models[REFINED_SHARED] = refined(shared, load_pudnet().config)
    seeds: dict[str, list[ParameterModel]] = {method: [model] for method, model in models.items()}
    swapped = ("PudNet", "PudNet, plain")
    table = compare_models(seeds, sampler, config.episodes, swapper, swaps, swapped, config.predict)
    costs = {name: shipped_notes(name)["seconds"] for name in set(SHIPPED.values())}
    behind = table["method"].str.replace(r", (far|near) swap$", "", regex=True).map(SHIPPED)
    table["meta_training_seconds"] = behind.map(costs)
    fits: dict[str, Callable[[ImageDataset], nn.Module]] = {
        "fine-tuned": lambda data: _fine_tuned(data, config),
        "from scratch": lambda data: _from_scratch(data, config),
    }
    fitted = [
        evaluate_fits(fit, sampler, config.fit_episodes).assign(method=method, seed=0, metric="accuracy")
        for method, fit in fits.items()
    ]
    return pd.concat([table, *fitted], ignore_index=True).rename(columns={"seconds": "prediction_seconds"})


def _from_scratch(data: ImageDataset, config: Config) -> nn.Module:
    fit = ScratchConfig(load_pudnet().config.target, epochs=config.episode_epochs, batch_size=32, seed=config.seed)
    return train_from_scratch(data, None, fit).network


def _fine_tuned(data: ImageDataset, config: Config) -> nn.Module:
    fit = ScratchConfig(epochs=config.episode_epochs, batch_size=32, seed=config.seed)
    return finetune(predict_network(data, config), data, None, fit).network


def break_even(table: pd.DataFrame) -> float:
    """Number of datasets from which on meta-training has paid for itself against training from scratch.

    Args:
        table: From ``run``.

    Returns:
        Meta-training seconds over the seconds saved a dataset; infinite if none are saved.
    """
    seconds = medians(table, "prediction_seconds")
    saved = seconds["from scratch"] - seconds["PudNet"]
    return medians(table, "meta_training_seconds")["PudNet"] / saved if saved > 0 else float("inf")


def medians(table: pd.DataFrame, column: str) -> dict[str, float]:
    """Median of a column for each method."""
    return {str(method): float(part[column].median()) for method, part in table.groupby("method")}


def answer(table: pd.DataFrame) -> str:
    """Say in one sentence how the prediction compares with the shared network and with training from scratch."""
    data = str(table["dataset"].iloc[0])
    shared, scratch = difference(table, "PudNet", "shared network"), difference(table, "PudNet", "from scratch")
    far, refinement = difference(table, "PudNet", "PudNet, far swap"), difference(table, "PudNet", REFINED_SHARED)
    accuracy_of = float(table[table["method"] == "PudNet"]["value"].mean())
    seconds = medians(table, "prediction_seconds")
    verdict = "matches" if shared.low <= 0 <= shared.high else ("beats" if shared.low > 0 else "is behind")
    return (
        f"On episodes of unseen {data} classes the predicted network reaches {accuracy_of:.1f} %; it {verdict} the "
        f"shared network ({shared.signed()} points, n = {shared.n}) and differs from the same with the kit's gradient "
        f"steps by {refinement.signed()}, from training from scratch by "
        f"{scratch.signed()} (n = {scratch.n}) at {seconds['from scratch'] / seconds['PudNet']:.0f} times its speed, "
        f"and gains {far.signed()} over the sketch of another source; meta-training pays from {break_even(table):.0f} "
        "datasets on."
    )


def headline(table: pd.DataFrame) -> list[Headline]:
    """The report's headline line: predicted beside trained from scratch, on the same episodes."""
    rows = {}
    for method in ("PudNet", "from scratch"):
        part = table[table["method"] == method]
        half = float(stats.t.ppf(0.975, len(part) - 1) * stats.sem(part["value"]))
        mean = float(part["value"].mean())
        rows[method] = mean, (mean - half, mean + half), float(part["prediction_seconds"].median())
    target = load_pudnet().config.target
    return [
        Headline(
            f"ConvNet-3 of width {target.width}, episodes of unseen {table['dataset'].iloc[0]} classes",
            "top-1 accuracy, %",
            rows["from scratch"][0],
            rows["from scratch"][2],
            rows["PudNet"][0],
            rows["PudNet"][2],
            float(table["chance"].mean()),
            rows["from scratch"][1],
            rows["PudNet"][1],
        )
    ]
