"""Training a target network on one dataset: from random parameters, or from given ones (fine-tuning).

Paper, Section 4.1 [rec]: the rival of every prediction is the same ConvNet trained on the dataset by SGD, Adam or with
gradient centralization (GC, Yong et al. 2020). Our choice: a proper recipe (warm cosine schedule, weight decay,
augmentation) and accuracy recorded against seconds, so that the rival is a curve and no single weak point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lightning_fabric as fabric_lib
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from pudnet_lib.core.augmentation import augment
from pudnet_lib.core.batches import Batches, Clock
from pudnet_lib.core.classifier import ImageClassifier, accuracy
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.memory import kept_memory
from pudnet_lib.core.model import seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError, unknown_name

__all__ = ["ImageClassifier", "ScratchConfig", "ScratchResult", "accuracy", "train_from_scratch", "train_network"]

_CHOICES = {"optimiser": ("adam", "sgd"), "schedule": ("cosine", "constant"), "trainable": ("full", "probe")}


@dataclass(frozen=True)
class ScratchConfig:
    """Training's configuration.

    Attributes:
        target: The target network, where training starts from random parameters.
        optimiser: ``"adam"`` (decoupled weight decay) or ``"sgd"`` (Nesterov momentum).
        gradient_centralization: Subtract from each weight's gradient its mean over all but the output dimension.
        learning_rate: Peak learning rate; 0 takes 3e-3 for Adam and 0.1 for SGD.
        momentum: SGD's; 0 switches it off.
        weight_decay: Of weights, not of biases and batch norms; decoupled for Adam, L2 for SGD.
        schedule: ``"cosine"`` to zero after a rise over the first 5 %, or ``"constant"``.
        epochs: Passes over the images.
        max_seconds: Stop after so many seconds of training, the schedule squeezed to fit; 0 for no limit. A run that
            is cut by the clock depends on the machine's speed.
        batch_size: Images a step.
        flip: Augment with horizontal flips (wrong for letters and digits).
        crop: Augment with shifts of up to so many pixels.
        trainable: ``"full"``, or ``"probe"`` for the linear head alone.
        evaluations: How often accuracy is measured, spread evenly; the first and the last step always are.
        evaluate_start: Measure before the first step, too: row 0 of the curve.
        seed: Seed of initial weights, order of images and augmentation.
        accelerator: Lightning Fabric's.
        precision: Lightning Fabric's.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    optimiser: Literal["adam", "sgd"] = "adam"
    gradient_centralization: bool = True
    learning_rate: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    epochs: int = 30
    max_seconds: float = 0.0
    batch_size: int = 64
    flip: bool = False
    crop: int = 2
    trainable: Literal["full", "probe"] = "full"
    evaluations: int = 10
    evaluate_start: bool = False
    seed: int = 0
    accelerator: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(f"ScratchConfig.{name}", str(getattr(self, name)), known)
        if min(self.epochs, self.batch_size, self.evaluations) < 1:
            raise PudNetError("ScratchConfig: epochs, batch_size and evaluations must be at least 1.")
        numbers = self.crop, self.learning_rate, self.momentum, self.weight_decay, self.max_seconds
        if not all(number >= 0 for number in numbers):  # so that NaN is refused, too
            raise PudNetError(
                "ScratchConfig: crop, learning_rate, momentum, weight_decay and max_seconds must be at least 0."
            )

    @property
    def peak_rate(self) -> float:
        """The peak learning rate that is used."""
        return self.learning_rate or (3e-3 if self.optimiser == "adam" else 0.1)


@dataclass(frozen=True)
class ScratchResult:
    """What training gives.

    Attributes:
        network: The trained network in evaluation mode.
        curve: One row an evaluation: step, epoch, seconds of training so far (evaluations excluded), value (accuracy on
            the test images in %), and loss (mean of the training batches since the row before; none in row 0).
        seconds: Seconds of training.
    """

    network: ImageClassifier
    curve: list[dict[str, float]]
    seconds: float


def centralise_gradients(parameters: list[nn.Parameter]) -> None:
    """Subtract from each weight's gradient its mean over all but the first dimension (Yong et al. 2020), in place.

    The first dimension is the output in convolutions and linear layers (in transposed convolutions it is the input).
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.ndim > 1:
            dims = tuple(range(1, parameter.grad.ndim))
            parameter.grad.sub_(parameter.grad.mean(dims, keepdim=True))


def train_from_scratch(
    train: ImageDataset,
    test: ImageDataset | None = None,
    config: ScratchConfig | None = None,
    progress: bool = False,
    initial: Mapping[str, Tensor] | None = None,
) -> ScratchResult:
    """Train the target network with a linear head from random parameters, or from given ones.

    Args:
        train: Training images.
        test: Test images for the curve; None measures nothing.
        config: How.
        progress: Show a progress bar.
        initial: Name to tensor: parameters (and buffers) of the target network to start from; what is not named starts
            at random. Copied, never changed.

    Returns:
        Network, curve, seconds.

    Raises:
        PudNetError: If there is one class only, the loss is not finite, or ``initial`` does not fit the network.
    """
    config = config or ScratchConfig()
    with seeded(config.seed):
        backbone = build_target(config.target)
        head = nn.Linear(backbone.feature_dim, train.num_classes)  # type: ignore[arg-type]
    if initial is not None:
        own = backbone.state_dict()
        for name, tensor in initial.items():
            if name not in own:
                raise unknown_name(f"tensor of {config.target.name}", name, own)
            if own[name].shape != tensor.shape:
                raise PudNetError(
                    f"initial[{name!r}] has shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}."
                )
        backbone.load_state_dict(own | dict(initial))
    return train_network(ImageClassifier(backbone, head), train, test, config, progress)


@kept_memory()
def train_network(
    network: ImageClassifier,
    train: ImageDataset,
    test: ImageDataset | None,
    config: ScratchConfig,
    progress: bool = False,
) -> ScratchResult:
    """Train a network in place; the one loop behind training from scratch and fine-tuning.

    Args:
        network: Where training starts; it is changed.
        train: Training images.
        test: Test images for the curve, or None.
        config: How.
        progress: Show a progress bar.

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
    clock, batches = (
        Clock(fabric.device, config.max_seconds),
        Batches(len(train), config.batch_size, config.epochs, config.seed),
    )
    labels = train.labels.to(fabric.device)
    curve: list[dict[str, float]] = []
    losses: list[Tensor] = []
    measured = step = 0

    def measure() -> None:
        clock.stop()
        row: dict[str, float] = {"step": step, "epoch": step / batches.per_epoch, "seconds": clock.seconds}
        if losses:
            row["loss"] = float(torch.stack(losses).mean())
            losses.clear()
            if not math.isfinite(row["loss"]):
                raise PudNetError(
                    f"The loss became {row['loss']} by step {step}; lower learning_rate ({config.peak_rate})."
                )
        if test is not None:
            network.eval()
            curve.append(row | {"value": accuracy(network, test)})
        _set_mode(network, config)
        clock.start()

    bar = tqdm(total=batches.total, disable=not progress, desc="training")
    if config.evaluate_start:
        measure()
    _set_mode(network, config)
    clock.start()
    for part in batches:
        for group in optimiser.param_groups:
            group["lr"] = config.peak_rate * _share(config.schedule, max(step / batches.total, clock.share()))
        images = augment(train.images[part], config.flip, config.crop, batches.generator).to(fabric.device)
        loss = F.cross_entropy(wrapped(images), labels[part.to(fabric.device)])
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if config.gradient_centralization:
            centralise_gradients(trained)
        optimiser.step()
        losses.append(loss.detach())
        step += 1
        bar.update()
        due = max(step * config.evaluations // batches.total, int(clock.share() * config.evaluations))
        if due > measured or step == 1:
            measured = due
            measure()
        if clock.share() >= 1:
            break
    if losses:
        measure()
    clock.stop()
    bar.close()
    network.requires_grad_(True)
    return ScratchResult(network.eval(), curve, clock.seconds)


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
    return torch.optim.SGD(groups, lr=config.peak_rate, momentum=config.momentum, nesterov=config.momentum > 0)


def _share(schedule: str, progress: float) -> float:
    """Share of the peak learning rate when a share ``progress`` of the training is done."""
    if schedule == "constant":
        return 1.0
    return min(1.0, 20 * progress + 0.01) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
