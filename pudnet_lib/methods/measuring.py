"""How a comparison measures each method on the same episodes.

Our choice. The intra- and the inter-dataset comparison differ in their episodes alone; what is done with an episode is
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd
import torch
from torch import nn

from pudnet_lib.core import ParameterModel
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeSampler
from pudnet_lib.core.model import SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.evaluate import Swap, Swapper, evaluate_episodes, evaluate_fits
from pudnet_lib.images.pool import Pool
from pudnet_lib.methods.contenders import (
    CONDITIONED,
    PREDICTORS,
    REFINED_SHARED,
    SPECIALIST,
    Contest,
    kit_config,
    train,
    train_config,
)
from pudnet_lib.methods.from_scratch import Optimiser, ScratchFit
from pudnet_lib.methods.metric import MetricFit
from pudnet_lib.methods.pretrained import PretrainedFit
from pudnet_lib.methods.refined import refined
from pudnet_lib.methods.rivals import RIVALS, RivalConfig
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.supervised import ScratchConfig, finetune

#: Predictors that another one is turned into without further training; method → that one.
DERIVED = {REFINED_SHARED: "shared network"}
META_TRAINED = (*PREDICTORS, *DERIVED, *RIVALS, SPECIALIST)
#: Methods that learn on each episode by gradient steps and start from a meta-trained network; method → that network.
TUNED = {"pretrained": "shared network", "fine-tuned": "PudNet (kit)"}
_SUFFIXES = {"own": "", "far": ", far swap", "near": ", near swap"}


@dataclass(frozen=True)
class Protocol:
    """How methods are measured.

    Attributes:
        episodes: Episodes a source, for methods that take no gradient step on them.
        fit_episodes: The first so many of them, for methods that are trained on each episode.
        optimisers: Trained from scratch with these.
        scratch_epochs: For so many epochs each.
        tuned_epochs: Epochs of the pretrained network's head and of fine-tuning.
        accelerator: Lightning Fabric's.
        seed: Seed of training from scratch and of tuning.
    """

    episodes: int
    fit_episodes: int
    optimisers: tuple[Optimiser, ...]
    scratch_epochs: tuple[int, ...]
    tuned_epochs: int
    accelerator: str = "cpu"
    seed: int = 0

    @property
    def device(self) -> torch.device:
        """Where models that are not trained on an episode compute."""
        return torch.device("cuda" if self.accelerator != "cpu" and torch.cuda.is_available() else "cpu")

    def scratch_fits(self, target: TargetConfig) -> dict[str, ScratchFit]:
        """Name the networks that are trained from scratch, ``"GC, 30 epochs"`` and so on."""
        return {
            f"{optimiser}, {epochs} epoch{'s' * (epochs > 1)}": ScratchFit(
                target, optimiser, epochs, seed=self.seed, accelerator=self.accelerator
            )
            for optimiser in self.optimisers
            for epochs in self.scratch_epochs
        }

    def tuning(self, method: str) -> ScratchConfig:
        """How ``"pretrained"`` or ``"fine-tuned"`` is trained on an episode."""
        trainable: Literal["full", "probe"] = "probe" if method == "pretrained" else "full"
        return ScratchConfig(
            trainable=trainable,
            learning_rate=0.03 if method == "pretrained" else 0.0,  # 0: fine-tuning's own default
            gradient_centralization=False,
            epochs=self.tuned_epochs,
            batch_size=32,
            evaluations=1,
            seed=self.seed,
            accelerator=self.accelerator,
        )


@dataclass(frozen=True)
class Scene:
    """The episodes on which all methods are measured.

    Attributes:
        sampler: Episodes of classes that meta-training has not seen.
        swapper: Where the controls' sketches come from.
        swaps: Which of them there are: a far swap needs another source, a near swap other classes.
        sources: Which of the sampler's sources take part.
    """

    sampler: EpisodeSampler
    swapper: Swapper
    swaps: tuple[Swap, ...]
    sources: tuple[int, ...]


def training_of(contest: Contest, method: str, seed: int, source: str = "") -> TrainConfig | RivalConfig:
    """Name the meta-training run behind a method: a tuned network's is that of the model from which it starts."""
    return train_config(contest, (TUNED | DERIVED).get(method, method), seed, source)


def measure(
    contest: Contest,
    protocol: Protocol,
    method: str,
    seed: int,
    scene: Scene,
    source: str = "",
    pool: Pool | None = None,
) -> pd.DataFrame:
    """Let one method classify the scene's episodes; what the cache lacks is meta-trained first.

    Args:
        contest: The meta-training that all methods have in common.
        protocol: How methods are measured.
        method: One of ``META_TRAINED``, ``TUNED`` or ``protocol.scratch_fits``.
        seed: Seed of meta-training; of no weight for a network trained from scratch.
        scene: The episodes.
        source: The one source of a specialist.
        pool: The contest's pool, if it is loaded already.

    Returns:
        Rows: method (with ", far swap" and ", near swap"), dataset, seed, episode, metric, value (accuracy in %),
        chance in %, prediction_seconds (of a trained network: its training), meta_training_seconds (where there was
        any).
    """
    fits, sources = protocol.scratch_fits(contest.target), list(scene.sources)
    if method in fits:
        table = evaluate_fits(fits[method], scene.sampler, protocol.fit_episodes, sources)
    else:
        outcome = train(training_of(contest, method, seed, source), pool)
        model = outcome.model.to(protocol.device)
        if method == REFINED_SHARED:
            assert isinstance(model, SharedNetwork)
            model = refined(model, kit_config(contest.target)).to(protocol.device)
        if method in TUNED:
            table = evaluate_fits(_tuned(protocol, method, model), scene.sampler, protocol.fit_episodes, sources)
        elif method in RIVALS:
            table = evaluate_fits(MetricFit(model), scene.sampler, protocol.episodes, sources)
        else:
            swaps: tuple[Swap, ...] = scene.swaps if method in CONDITIONED else ("own",)
            table = evaluate_episodes(model, scene.sampler, protocol.episodes, scene.swapper, swaps, sources=sources)
        table = table.assign(meta_training_seconds=outcome.seconds)
    suffix = table["swap"].map(_SUFFIXES) if "swap" in table else ""
    table = table.assign(method=method + suffix, seed=seed, metric="accuracy")
    return table.drop(columns="swap", errors="ignore").rename(columns={"seconds": "prediction_seconds"})


def _tuned(protocol: Protocol, method: str, model: ParameterModel) -> PretrainedFit | partial[nn.Module]:
    training = protocol.tuning(method)
    return PretrainedFit(model, training) if method == "pretrained" else partial(fine_tuned, model, training)


def fine_tuned(model: ParameterModel, training: ScratchConfig, data: ImageDataset) -> nn.Module:
    """Predict a network for a dataset and go on training it there."""
    return finetune(predict(model, data), data, None, training).network
