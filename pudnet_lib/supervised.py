"""Training a target network on one dataset: from random parameters, or from predicted ones (fine-tuning).

Paper [rec]: the rival of every prediction is the same ConvNet trained on the dataset by SGD, Adam or with gradient
centralization (Yong et al. 2020; Section 4.1); θ̂ as initialisation against random and pretrained ones (4.4).
Our choice: a proper recipe (warm cosine, weight decay, augmentation) and accuracy against seconds, so that the rival is
a curve and no weak point; fine-tuning's head starts at the class means, so that step 0 is the prediction itself.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import lightning_fabric as fabric_lib
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from pudnet_lib.core.dataset import ImageDataset, check_pixels, normalise
from pudnet_lib.core.heads import cosine_logits
from pudnet_lib.core.hooks import hook
from pudnet_lib.core.model import seeded
from pudnet_lib.core.norms import precise_statistics
from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError, unknown_name

Head = Literal["means", "random"]
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
        accelerator: Lightning Fabric's; so is ``precision``.
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
        numbers = "crop", "learning_rate", "momentum", "weight_decay", "max_seconds"
        if not all(getattr(self, number) >= 0 for number in numbers):  # so that NaN is refused, too
            raise PudNetError(f"ScratchConfig: {', '.join(numbers)} must be at least 0.")

    @property
    def peak_rate(self) -> float:
        """The peak learning rate that is used."""
        return self.learning_rate or (3e-3 if self.optimiser == "adam" else 0.1)


class ImageClassifier(nn.Module):
    """A backbone with a head, from images as they come (N, C, H, W), uint8 or in [0, 1], to logits (N, K)."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Classify images."""
        check_pixels(images)
        return self.head(self.backbone(normalise(images)))  # type: ignore[no-any-return]


class CosineHead(nn.Module):
    """Cosine to class vectors (K, F) times τ, both trainable; starts as the predicted network's head."""

    def __init__(self, means: Tensor, scale: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(F.normalize(means.detach().clone(), dim=1))
        self.scale = nn.Parameter(torch.tensor(scale, device=means.device))

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, F) to logits (N, K)."""
        return cosine_logits(features, self.vectors, self.scale)


class ScratchResult(NamedTuple):
    """What training gives."""

    network: ImageClassifier  # in evaluation mode
    # Rows of step, epoch, seconds of training so far, value (accuracy on the test images in %), and loss (mean of the
    # training batches since the row before; none in row 0).
    curve: list[dict[str, float]]
    seconds: float  # of training; the clock holds still while accuracy is measured


def classify_logits(network: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Logits of images, (N, K), on the CPU."""
    device = next(iter(network.state_dict().values())).device
    with torch.no_grad():
        return torch.cat([network(part.to(device)).cpu() for part in images.split(batch_size)])


def accuracy(network: nn.Module, images: ImageDataset, batch_size: int = 512) -> float:
    """Accuracy in % of a network in evaluation mode: uint8 images (N, C, H, W) to logits (N, K)."""
    guesses = classify_logits(network, images.images, batch_size).argmax(1)
    return 100 * float((guesses == images.labels).float().mean())


def centralise_gradients(parameters: list[nn.Parameter]) -> None:
    """Subtract from each weight's gradient its mean over all but the first dimension (Yong et al. 2020), in place."""
    for grad in [p.grad for p in parameters if p.grad is not None and p.grad.ndim > 1]:
        grad.sub_(grad.mean(tuple(range(1, grad.ndim)), keepdim=True))


def augment(images: Tensor, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    """Flip images (N, C, H, W) with probability 1/2, shift them by up to ``crop`` pixels, borders repeated."""
    n, _, height, width = images.shape
    if not crop and not flip:
        return images
    rows, columns = torch.arange(height).expand(n, -1), torch.arange(width).expand(n, -1)
    if crop:
        shift = torch.randint(-crop, crop + 1, (2, n, 1), generator=generator)
        rows, columns = (rows + shift[0]).clamp(0, height - 1), (columns + shift[1]).clamp(0, width - 1)
    if flip:
        columns = torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns.flip(1), columns)
    picked, rows, columns = (x.to(images.device) for x in (torch.arange(n)[:, None, None], rows, columns))
    # advanced indices around a slice put their dimensions first: (N, H, W, C)
    return images[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def batches(images: int, size: int, epochs: int, generator: torch.Generator) -> tuple[int, Iterator[Tensor]]:
    """Batches an epoch, and the shuffled indices of each; a last one of one image goes (batch norm needs two)."""
    count = max(1, images // size + (images % size > 1 if size > 1 else 0))
    orders = (torch.randperm(images, generator=generator) for _ in range(epochs))
    return count, chain.from_iterable(order.split(size)[:count] for order in orders)


def train_from_scratch(
    train: ImageDataset, test: ImageDataset | None = None, config: ScratchConfig | None = None, progress: bool = False,
    initial: Mapping[str, Tensor] | None = None,
) -> ScratchResult:  # fmt: skip
    """Train the target network with a linear head from random parameters, or from given ones.

    Args:
        train: Training images.
        test: Test images for the curve; None measures nothing.
        config: How.
        progress: Show a progress bar.
        initial: Name to tensor: parameters (and buffers) to start from, copied; what is not named starts at random.

    Raises:
        PudNetError: If there is one class only, the loss is not finite, or ``initial`` does not fit the network.
    """
    config = config or ScratchConfig()
    with seeded(config.seed):
        backbone = build_target(config.target)
        head = nn.Linear(backbone.feature_dim, train.num_classes)  # type: ignore[arg-type]
    own, given = backbone.state_dict(), dict(initial or {})
    for name, tensor in given.items():
        if name not in own:
            raise unknown_name(f"tensor of {config.target.name}", name, own)
        if own[name].shape != tensor.shape:
            raise PudNetError(f"initial[{name!r}] has shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}.")
    backbone.load_state_dict(own | given)
    return train_network(ImageClassifier(backbone, head), train, test, config, progress)


def finetune(
    network: PredictedNetwork, train: ImageDataset, test: ImageDataset | None = None,
    config: ScratchConfig | None = None, noise: float = 0.0, head: Head = "means", progress: bool = False,
) -> ScratchResult:  # fmt: skip
    """Train on from a predicted network, which itself is not changed.

    Args:
        network: The predicted network.
        train: Training images.
        test: Test images for the curve; None measures nothing.
        config: How; by default three times the learning rate from scratch, since meta-trained weights are larger and
            batch norm makes their scale idle. ``target`` is not used; ``evaluate_start`` measures the prediction.
        noise: Add noise of this share of each convolution's spread, to break ties between equal filters.
        head: ``"means"`` starts as the predicted network's head, ``"random"`` as a linear one.
        progress: Show a progress bar.

    Raises:
        PudNetError: If ``head`` is unknown, the classes are other ones, or the loss is not finite.
    """
    if head not in get_args(Head):
        raise unknown_name("head", head, get_args(Head))
    config = config or ScratchConfig()
    if not config.learning_rate:
        config = replace(config, learning_rate=3 * config.peak_rate)
    backbone = copy.deepcopy(network.backbone)
    with seeded(config.seed), torch.no_grad():
        for layer in backbone.modules() if noise else ():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.add_(torch.randn(layer.weight.shape).to(layer.weight) * (noise * layer.weight.std()))
        classes, features = network.means.shape
        if head == "means" and classes != train.num_classes:
            what = f"The network tells {classes} classes apart and {train.name} has {train.num_classes}"
            raise PudNetError(f'{what}; predict a network for these images, or pass head="random".')
        linear = nn.Linear(features, train.num_classes).to(network.means.device)
        start = CosineHead(network.means, float(network.scale)) if head == "means" else linear
    return train_network(ImageClassifier(backbone, start), train, test, config, progress)


def train_network(
    network: ImageClassifier, train: ImageDataset, test: ImageDataset | None, config: ScratchConfig,
    progress: bool = False,
) -> ScratchResult:  # fmt: skip
    """Train a network in place: the one loop behind training from scratch and fine-tuning."""
    if train.num_classes < 2:
        raise PudNetError(f"{train.name} has one class only; a classifier needs at least two.")
    fabric = fabric_lib.Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
    network.backbone.requires_grad_(config.trainable == "full")
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed, others = ([p for p in trained if (p.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    momentum: dict[str, Any] = {"momentum": config.momentum, "nesterov": config.momentum > 0}
    kind, more = (torch.optim.AdamW, {}) if config.optimiser == "adam" else (torch.optim.SGD, momentum)
    wrapped, optimiser = fabric.setup(network, kind(groups, lr=config.peak_rate, **more))
    generator = torch.Generator().manual_seed(config.seed)  # shuffles and augments
    per_epoch, parts = batches(len(train), config.batch_size, config.epochs, generator)
    total = config.epochs * per_epoch
    labels = train.labels.to(fabric.device)
    curve, losses = list[dict[str, float]](), list[Tensor]()
    seconds, share, measured, step = 0.0, 0.0, 0, 0  # share of the time limit that is used up

    def train_mode() -> None:
        network.train()
        network.backbone.train(config.trainable == "full")  # a probe leaves batch norm's statistics as they are

    def measure() -> None:
        row: dict[str, float] = {"step": step, "epoch": step / per_epoch, "seconds": seconds}
        if losses:
            loss = row["loss"] = float(torch.stack(losses).mean())
            losses.clear()
            if not math.isfinite(loss):
                raise PudNetError(f"The loss became {loss} by step {step}; lower learning_rate ({config.peak_rate}).")
        if test is not None:
            curve.append(row | {"value": accuracy(network.eval(), test)})
            train_mode()

    train_mode()
    if config.evaluate_start:
        measure()
    bar = tqdm(total=total, disable=not progress, desc="training")
    with hook("kept_memory", nullcontext)(), precise_statistics(network), bar:
        began = time.perf_counter()
        for part in parts:
            for group in optimiser.param_groups:
                group["lr"] = config.peak_rate * _share(config.schedule, max(step / total, share))
            images = augment(train.images[part], config.flip, config.crop, generator).to(fabric.device)
            loss = F.cross_entropy(wrapped(images), labels[part.to(fabric.device)])
            optimiser.zero_grad(set_to_none=True)
            fabric.backward(loss)
            if config.gradient_centralization:
                centralise_gradients(trained)
            optimiser.step()
            losses.append(loss.detach())
            step += 1
            bar.update()
            share = (time.perf_counter() - began) / config.max_seconds if config.max_seconds else 0.0
            due = max(step * config.evaluations // total, int(share * config.evaluations))
            if due > measured or step == 1 or share >= 1:
                measured = due
                if fabric.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
                measure()
                began = time.perf_counter() - seconds  # the clock holds still while accuracy is measured
            if share >= 1:
                break
    network.requires_grad_(True)
    return ScratchResult(network.eval(), curve, seconds)


def _share(schedule: str, progress: float) -> float:
    """Share of the peak learning rate when a share ``progress`` of the training is done."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return 1.0 if schedule == "constant" else min(1.0, 20 * progress + 0.01) * cosine
