"""PudNet and its controls: the shared network, and the shared network with PudNet's refinement.

The controls are our choice. What PudNet gains over the shared network, a hypernetwork may have brought; what it gains
over the refined one, only the hypernetwork can have brought: the rest is the refinement's.
"""

import copy
from typing import Any

from torch import Tensor, nn

from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.methods.class_attention import ClassAttention, ClassAttentionConfig
from pudnet_lib.methods.registry import register


def predicted(
    dataset: ImageDataset, model: ParameterModel, sketch: tuple[Tensor, Tensor | None] | None = None, **_: Any
) -> nn.Module:
    """Learn a dataset by predicting a network for it; a swapped sketch may take the place of its own."""
    return predict(model, dataset, sketch=sketch)


def refined(model: ParameterModel, **refinement: Any) -> ParameterModel:
    """Give a copy of a meta-trained shared network PudNet's refinement; no hypernetwork takes part."""
    found = copy.deepcopy(model)
    found.refine = refinement.get("refine", LastBlock())
    return found.eval()


register("pudnet", predicted, model=PudNet, config=PudNetConfig, conditioned=True)
register("shared", predicted, model=SharedNetwork, config=SharedConfig)
register("refined", predicted, derive=refined, options=("refine",))
register("class attention", predicted, model=ClassAttention, config=ClassAttentionConfig, conditioned=True)
