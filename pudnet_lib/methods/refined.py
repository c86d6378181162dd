"""Shared network, refined: the shared network with PudNet's refinement on the labelled images, without a hypernetwork.

Our choice, a control: what PudNet gains over it, the hypernetwork's own part gains; the rest is the refinement's.
"""

from __future__ import annotations

from dataclasses import replace

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.model import SharedNetwork


def refined(shared: SharedNetwork, config: PudNetConfig) -> PudNet:
    """Give a shared network the refinement of a PudNet.

    Args:
        shared: The meta-trained shared network; not changed.
        config: Whose refinement; its other switches are not used.

    Returns:
        A residual PudNet whose residual is zero and which sees no data before it refines, in evaluation mode.
    """
    target, seed = shared.config.target, shared.config.seed
    model = PudNet(replace(config, target=target, seed=seed, residual=True, embedding="constant", filter_norm="none"))
    model.adopt(shared)
    return model.eval()
