"""Training a target network on one dataset: from random parameters, or from given ones (fine-tuning).

Paper, Section 4.1 [rec]: the rival of every prediction is the same ConvNet trained on the dataset by SGD, Adam or with
gradient centralization (GC, Yong et al. 2020). Our choice: a proper recipe (warm cosine schedule, weight decay,
augmentation) and accuracy recorded against seconds, so that the rival is a curve and no single weak point.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning_fabric as fabric_lib
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.datasets.image_dataset import ImageDataset, normalise
from pudnet_lib.errors import PudNetError
from pudnet_lib.hypernetwork.base import seeded
from pudnet_lib.targets import TargetConfig, build_target


@dataclass(frozen=True)
class ScratchConfig:
    """Training's configuration.

    Attributes:
        target: The target network, where training starts from random parameters.
        optimiser: ``"adam"`` or ``"sgd"`` (Nesterov momentum 0.9).
        gradient_centralization: Subtract from each weight's gradient its mean over all but the output dimension.
        learning_rate: Peak learning rate; 0 takes 3e-3 for Adam and 0.1 for SGD.
        weight_decay: Decoupled for Adam, L2 for SGD.
        epochs: Passes over the images.
        batch_size: Images a step.
        flip: Augment with horizontal flips (wrong for letters and digits).
        crop: Augment with shifts of up to so many pixels.
        trainable: ``"full"``, or ``"probe"`` for the linear head alone.
        evaluations: How often accuracy is measured, spread evenly over the steps; the last step always is.
        seed: Seed of initial weights, order of images and augmentation.
        accelerator: Lightning Fabric's.
        precision: Lightning Fabric's.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    optimiser: Literal["adam", "sgd"] = "adam"
    gradient_centralization: bool = True
    learning_rate: float = 0.0
    weight_decay: float = 5e-4
    epochs: int = 30
    batch_size: int = 64
    flip: bool = False
    crop: int = 2
    trainable: Literal["full", "probe"] = "full"
    evaluations: int = 10
    seed: int = 0
    accelerator: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.evaluations) < 1 or self.crop < 0 or self.learning_rate < 0:
            raise PudNetError(
                "ScratchConfig: epochs, batch_size and evaluations must be at least 1; crop, learning_rate at least 0."
            )

    @property
    def peak_rate(self) -> float:
        """The peak learning rate that is used."""
        return self.learning_rate or (3e-3 if self.optimiser == "adam" else 0.1)


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


@dataclass(frozen=True)
class ScratchResult:
    """What training gives.

    Attributes:
        network: The trained network in evaluation mode.
        curve: One row an evaluation: step, epoch, seconds of training so far (evaluations excluded), loss, value
            (accuracy on the test images in %).
        seconds: Seconds of training.
    """

    network: ImageClassifier
    curve: list[dict[str, float]]
    seconds: float


def centralise_gradients(parameters: list[nn.Parameter]) -> None:
    """Subtract from each weight's gradient its mean over all but the output dimension (Yong et al. 2020), in place."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.ndim > 1:
            dims = tuple(range(1, parameter.grad.ndim))
            parameter.grad.sub_(parameter.grad.mean(dims, keepdim=True))


def augment(images: Tensor, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    """Flip and shift images, each on its own, without a loop.

    Args:
        images: (N, C, H, W).
        flip: Flip every image with probability 1/2.
        crop: Shift by up to so many pixels in each direction; what comes in from outside repeats the border.
        generator: A CPU generator.

    Returns:
        (N, C, H, W) of the same dtype.
    """
    n, _, height, width = images.shape
    rows = torch.arange(height)[None].expand(n, -1)
    columns = torch.arange(width)[None].expand(n, -1)
    if crop:
        shift = torch.randint(-crop, crop + 1, (2, n, 1), generator=generator)
        rows, columns = (rows + shift[0]).clamp(0, height - 1), (columns + shift[1]).clamp(0, width - 1)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if not crop and not flip:
        return images
    rows, columns = rows.to(images.device), columns.to(images.device)
    picked = torch.arange(n, device=images.device)[:, None, None]
    # advanced indices around a slice put their dimensions first: (N, H, W, C)
    return images[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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


def train_from_scratch(
    train: ImageDataset, test: ImageDataset | None = None, config: ScratchConfig | None = None
) -> ScratchResult:
    """Train the target network from random parameters.

    Args:
        train: Training images.
        test: Test images for the curve; None measures nothing.
        config: How.

    Returns:
        Network, curve, seconds.

    Raises:
        PudNetError: If there is one class only, or the loss is not finite.
    """
    config = config or ScratchConfig()
    with seeded(config.seed):
        backbone = build_target(config.target)
        head = nn.Linear(backbone.feature_dim, train.num_classes)  # type: ignore[arg-type]
    return train_network(ImageClassifier(backbone, head), train, test, config)


def train_network(
    network: ImageClassifier, train: ImageDataset, test: ImageDataset | None, config: ScratchConfig
) -> ScratchResult:
    """Train a network in place; the one loop behind training from scratch and fine-tuning.

    Args:
        network: Where training starts; it is changed.
        train: Training images.
        test: Test images for the curve, or None.
        config: How.

    Returns:
        Network, curve, seconds; the clock holds still while accuracy is measured.

    Raises:
        PudNetError: If there is one class only, or the loss is not finite.
    """
    if train.num_classes < 2:
        raise PudNetError(f"{train.name} has one class only; a classifier needs at least two.")
    fabric = fabric_lib.Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
    network.backbone.requires_grad_(config.trainable == "full")
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = _optimiser(trained, config)
    wrapped, optimiser = fabric.setup(network, optimiser)
    generator = torch.Generator().manual_seed(config.seed)
    per_epoch = math.ceil(len(train) / config.batch_size)
    total = config.epochs * per_epoch
    marks = {round(total * (i + 1) / config.evaluations) for i in range(config.evaluations)} | {1, total}
    labels = train.labels.to(fabric.device)
    curve: list[dict[str, float]] = []
    step, seconds, began = 0, 0.0, time.perf_counter()
    _set_mode(network, config)
    for epoch in range(config.epochs):
        for part in torch.randperm(len(train), generator=generator).split(config.batch_size):
            for group in optimiser.param_groups:
                group["lr"] = _rate(config, step, total)
            images = augment(train.images[part], config.flip, config.crop, generator).to(fabric.device)
            loss = F.cross_entropy(wrapped(images), labels[part.to(fabric.device)])
            optimiser.zero_grad(set_to_none=True)
            fabric.backward(loss)
            if config.gradient_centralization:
                centralise_gradients(trained)
            optimiser.step()
            step += 1
            if step in marks:
                if fabric.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds += time.perf_counter() - began
                if not math.isfinite(float(loss)):
                    raise PudNetError(
                        f"The loss became {float(loss)} in step {step}; lower learning_rate (now {config.peak_rate})."
                    )
                if test is not None:
                    network.eval()
                    row = {"step": step, "epoch": epoch + 1, "seconds": seconds, "loss": float(loss)}
                    curve.append(row | {"value": accuracy(network, test)})
                    _set_mode(network, config)
                began = time.perf_counter()
    network.requires_grad_(True)
    return ScratchResult(network.eval(), curve, seconds)


def _set_mode(network: ImageClassifier, config: ScratchConfig) -> None:
    """Train mode; a probe keeps the backbone, its batch-norm statistics included, as it is."""
    network.train()
    if config.trainable == "probe":
        network.backbone.eval()


def _optimiser(parameters: list[nn.Parameter], config: ScratchConfig) -> Any:
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimiser == "adam":
        return torch.optim.AdamW(groups, lr=config.peak_rate)
    return torch.optim.SGD(groups, lr=config.peak_rate, momentum=0.9, nesterov=True)


def _rate(config: ScratchConfig, step: int, total: int) -> float:
    """A linear rise over the first 5 % of the steps, then a half cosine to zero."""
    warm = min(1.0, (step + 1) / max(1, 0.05 * total))
    return config.peak_rate * warm * 0.5 * (1 + math.cos(math.pi * step / total))
