"""Several episodes at once: B networks with different parameters as one network with B-fold channels.

Our choice. Each episode's images keep their own weights (grouped convolutions) and their own batch statistics (a batch
norm's channel belongs to one episode). Only for ConvNet-3: a network that joins or mixes channels outside convolutions
would mix episodes, and a large one is all arithmetic, which this does not make less.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.func import functional_call

from pudnet_lib.core.convnet import ConvNet3
from pudnet_lib.core.dataset import normalise

# Larger blocks are mapped and unmapped one by one, which costs more than batching saves (training/memory.py).
LARGEST_MAP = 32 * 2**20


def episodes_at_once(target: nn.Module, images: Tensor) -> int:
    """Tell how many episodes to take at once, so that the largest map stays within 32 MiB on a CPU.

    Args:
        target: The target network.
        images: (N, C, H, W) one episode's images.

    Returns:
        At least 1.
    """
    if not isinstance(target, ConvNet3):
        return 1
    largest = 4 * target.feature_dim * len(images) * images.shape[2] * images.shape[3]  # bytes of the first maps
    return max(1, LARGEST_MAP // largest) if images.device.type == "cpu" else 8


def features(target: nn.Module, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
    """Run B networks on the images of B episodes, batch norms on each episode's own statistics.

    Args:
        target: A ConvNet-3 whose batch norms read the batch's statistics; only looked at.
        parameters: Name to (B, *shape).
        images: (B, N, C, H, W) uint8, or floating point in [0, 1].

    Returns:
        (B, N, F).
    """
    episodes, count = images.shape[:2]
    wide = copy.deepcopy(target)
    for layer in wide.modules():
        if isinstance(layer, nn.Conv2d):
            layer.groups *= episodes
    maps = normalise(images.transpose(0, 1).flatten(1, 2))  # (N, B·C, H, W)
    out: Tensor = functional_call(wide, {n: t.flatten(0, 1) for n, t in parameters.items()}, (maps,))  # (N, B·F)
    return out.view(count, episodes, -1).transpose(0, 1)
