"""PudNet and its controls: the shared network, and the shared network with PudNet's refinement.

The controls are our choice. What PudNet gains over the shared network, a hypernetwork may have brought; what it gains
over the refined one, only the hypernetwork can have brought: the rest is the refinement's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.methods.class_attention import ClassAttention, ClassAttentionConfig
from pudnet_lib.methods.registry import register


def predicted(
    dataset: ImageDataset, model: ParameterModel, sketch: tuple[Tensor, Tensor | None] | None = None, **_: Any
) -> nn.Module:
    """Learn a dataset by predicting a network for it; a swapped sketch may take the place of its own."""
    return predict(model, dataset, sketch=sketch)


def refined(model: ParameterModel, **refinement: Any) -> PudNet:
    """Give a meta-trained shared network the refinement of a PudNet; no hypernetwork takes part.

    Args:
        model: The shared network; not changed.
        **refinement: Fields of ``PudNetConfig`` that describe the refinement.

    Returns:
        A residual PudNet whose residual is zero and which sees no data before it refines, in evaluation mode.
    """
    target, seed = model.config.target, model.config.seed
    found = PudNet(PudNetConfig(target, seed=seed, residual=True, embedding="constant", **refinement))
    found.adopt(model)
    return found.eval()


REFINEMENT = ("refine", "refine_rate", "refine_decay", "refine_learned", "refine_support")

register("pudnet", predicted, model=PudNet, config=PudNetConfig, conditioned=True)
register("shared", predicted, model=SharedNetwork, config=SharedConfig)
register("refined", predicted, derive=refined, options=REFINEMENT)
register("class attention", predicted, model=ClassAttention, config=ClassAttentionConfig, conditioned=True)
