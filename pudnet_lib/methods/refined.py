"""Shared network, refined: the shared network with PudNet's refinement on the labelled images, without a hypernetwork.

Our choice, a control: what PudNet gains over it, the hypernetwork's own part gains; the rest is the refinement's.
"""

from __future__ import annotations

import copy

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.model import SharedNetwork


def refined(shared: SharedNetwork, config: PudNetConfig) -> SharedNetwork:
    """A copy of a meta-trained shared network with a PudNet's refinement, in evaluation mode."""
    model = copy.deepcopy(shared)
    model.refine = config.refine
    return model.eval()
