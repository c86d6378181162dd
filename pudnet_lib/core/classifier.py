"""A backbone with a head, from images as they come to logits, and its accuracy. Our choice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset, normalise


class ImageClassifier(nn.Module):
    """A backbone with a linear head that reads images as they come.

    Args:
        backbone: Normalised images to features (N, F).
        head: Features to logits (N, K).
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W), uint8 or floating point in [0, 1], to logits (N, K)."""
        logits: Tensor = self.head(self.backbone(normalise(images)))
        return logits


def accuracy(network: nn.Module, images: ImageDataset, batch_size: int = 512) -> float:
    """Accuracy of a network in evaluation mode.

    Args:
        network: uint8 images (N, C, H, W) to logits (N, K).
        images: The test images.
        batch_size: Images a pass.

    Returns:
        Accuracy in %.
    """
    device = next(network.parameters()).device
    with torch.no_grad():
        guesses = torch.cat([network(part.to(device)).argmax(1).cpu() for part in images.images.split(batch_size)])
    return 100 * float((guesses == images.labels).float().mean())
