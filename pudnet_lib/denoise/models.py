"""The denoisers' predictors that come with the kit, or newly meta-trained ones, for the experiment. Our choice."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pudnet_lib.core import ParameterModel
from pudnet_lib.denoise.train import DenoiserTrainConfig, train_denoiser
from pudnet_lib.errors import PudNetError
from pudnet_lib.shipped import load_shipped, shipped_models, shipped_notes

#: file name in ``shipped``: name in tables, whether the swap controls are run for it
SHIPPED = {
    "denoiser": ("PudNet", True),
    "denoiser_shared": ("shared network", False),
    "denoiser_blind": ("PudNet, Noise2Void meta-training", False),
    "denoiser_blind_shared": ("shared network, Noise2Void meta-training", False),
}


@dataclass(frozen=True)
class Predictor:
    """A trained model with its place in the tables.

    Attributes:
        name: The method's name.
        model: PudNet or shared network, in evaluation mode.
        controls: Whether the swap controls are run for it.
        seconds: What its meta-training took.
    """

    name: str
    model: ParameterModel
    controls: bool
    seconds: float


def load_predictors(train: DenoiserTrainConfig | None = None) -> list[Predictor]:
    """Load the denoisers' predictors that come with the kit, or meta-train a PudNet and a shared U-Net.

    Args:
        train: How to meta-train; None loads what comes with the kit.

    Returns:
        PudNet first, then the others.

    Raises:
        PudNetError: If the kit has no denoiser.
    """
    if train is not None:
        found = []
        for kind, name in (("pudnet", "PudNet"), ("shared", "shared network")):
            outcome = train_denoiser(replace(train, kind=kind))  # type: ignore[arg-type]
            found.append(Predictor(name, outcome.model, kind == "pudnet", outcome.seconds))
        return found
    there = [name for name in SHIPPED if name in shipped_models()]
    if "denoiser" not in there:
        raise PudNetError("No denoiser comes with this kit; train one: pudnet denoise-train RUN, and pass train=....")
    return [
        Predictor(SHIPPED[name][0], load_shipped(name), SHIPPED[name][1], float(shipped_notes(name)["seconds"]))
        for name in there
    ]
