"""Refinement: a model looks at its first prediction on the labelled images and corrects the last convolution.

Not in the paper (our choice, the ``kit`` design, and a control of its own on the shared network). Each step is the
gradient of the images' own leave-one-out loss, scaled to a share of the tensor's length; several steps, ever shorter,
follow one another. It is the one part of the model that knows *which classes* it sees: pooled image codes tell what
kind of images they are, not how to tell them apart. It takes no part in meta-training (docs/conditioning.md).

The last convolution is worth as much as all layers, at a fraction of the time: what it reads is computed once.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.heads import class_means, cosine_logits, leave_one_out_loss
from pudnet_lib.errors import PudNetError

Rows = Tensor | slice
ALL = slice(None)  # of the images
DEEP = 8  # predicted tensors from which on a target counts as deep


@dataclass(frozen=True)
class LastBlock:
    """How a prediction is refined.

    Attributes:
        steps: Gradient steps, at most.
        rate: Share of a tensor's length that the first of them changes.
        decay: Length of a step over that of the step before.
        choose_steps: Take as many steps as serve held-out labelled images best, none included; None does so where the
            target is deep, whose refinement may hurt.
        layers: ``"last"``, the last block's last convolution, or ``"all"`` convolutions, the comparison.
    """

    steps: int = 5
    rate: float = 0.2
    decay: float = 0.7
    choose_steps: bool | None = None
    layers: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.rate >= 0 or not 0 < self.decay <= 1 or self.layers not in ("last", "all"):
            raise PudNetError(f"{self}: steps and rate are not negative, decay is in (0, 1], layers is last or all.")


def refine(
    model: Any, parameters: dict[str, Tensor], images: Tensor, labels: Tensor | None, config: LastBlock,
    network: nn.Module | None = None,
) -> tuple[dict[str, Tensor], int, tuple[Tensor, ...]]:  # fmt: skip
    """Correct a model's first prediction on labelled images (S, C, H, W) and their labels (S,).

    The pass up to the last convolution is a given network's, if one with these parameters is given, so that its batch
    norms can collect their statistics on the way. Returns the corrected parameters, the number of steps, and what the
    last block's ``forward`` takes of the images; nothing of it where more than its last convolution is refined.
    """
    if labels is None:
        raise PudNetError("This predictor refines on the sketch's classes; give the sketch's labels (S,) as well.")
    names, features, read = _tail(model, parameters, images, config.layers, network)
    start, scale = {name: parameters[name].detach() for name in names}, model.scale.detach()
    steps, choose = config.steps, config.choose_steps
    if not (labels.is_cuda and torch.cuda.is_current_stream_capturing()):  # a recorded graph can't look at labels
        counts = labels.bincount()
        least = int(counts[counts > 0].min())
        if choose or (choose is None and len(model.layout.predicted) > DEEP):
            steps = _chosen(features, start, labels, scale, config) if least > 2 else 0
        elif least < 2:
            steps = 0
    for step in range(steps):
        start = _step(features, start, ALL, labels, scale, config.rate * config.decay**step)
    return (parameters | start if steps else parameters), steps, read


def _step(
    features: Callable[[dict[str, Tensor], Rows], Tensor], weights: dict[str, Tensor], rows: Rows, labels: Tensor,
    scale: Tensor, rate: float,
) -> dict[str, Tensor]:  # fmt: skip
    """One step on the images of ``rows``."""
    with torch.enable_grad():
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        loss = leave_one_out_loss(features(leaves, rows), labels[rows], scale)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
    lengths = [rate * w.norm() / g.norm().clamp_min(1e-12) for w, g in zip(weights.values(), gradients, strict=True)]
    moved = zip(weights.items(), lengths, gradients, strict=True)
    return {name: weight - length * gradient for (name, weight), length, gradient in moved}


def _chosen(features: Any, start: dict[str, Tensor], labels: Tensor, scale: Tensor, config: LastBlock) -> int:
    """The number of steps with the smallest loss on held-out images, each image held out once in up to four folds."""
    rank = (labels[:, None] == labels).tril(-1).sum(1)  # place of each image within its class
    folds = min(4, int(labels.bincount()[labels.unique()].min()))
    losses = torch.zeros(config.steps + 1, device=labels.device)
    every = torch.arange(len(labels), device=labels.device)
    for fold in range(folds):
        kept, held = every[rank % folds != fold], every[rank % folds == fold]
        weights = start
        for step in range(config.steps + 1):
            with torch.no_grad():
                found = features(weights, ALL)  # (S, F): batch statistics of all images, as later
                logits = cosine_logits(found[held], class_means(found[kept], labels[kept]), scale)
                losses[step] += F.cross_entropy(logits, labels[held], reduction="sum")
            if step < config.steps:
                weights = _step(features, weights, kept, labels, scale, config.rate * config.decay**step)
    return int(losses.argmin())


def _tail(
    model: Any, parameters: dict[str, Tensor], images: Tensor, layers: str, network: nn.Module | None = None
) -> tuple[list[str], Callable[[dict[str, Tensor], Rows], Tensor], tuple[Tensor, ...]]:
    """Names of the tensors to refine; what computes features of some images from new values of them; its input."""
    fixed = {name: tensor.detach() for name, tensor in parameters.items()}
    predicted = [t.name for t in model.layout.predicted]
    template: nn.Module = model.template
    last = getattr(template, "last_convolution", None)
    if layers == "all" or last is None:
        names = predicted if layers == "all" else predicted[-1:]
        return names, lambda new, rows: model.features(fixed | new, images[rows]), ()
    body, prefix, seen = network or template, last.rpartition(".")[0], list[Tensor]()

    def reached(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0])
        if layer is body.get_submodule(last):
            raise StopIteration  # what comes after is not needed

    block_hook, last_hook = (body.get_submodule(n).register_forward_pre_hook(reached) for n in (prefix, last))
    with block_hook, last_hook, torch.no_grad(), suppress(StopIteration):
        functional_call(body, fixed | model.kept_buffers(), (normalise(images),))
    # What the block reads, and its last convolution (S, C, h, w), under the batch statistics of all images.
    read = tuple(seen[: 1 if seen[0] is seen[1] else 2])
    block, dot = template.get_submodule(prefix), f"{prefix}."
    own = {n.removeprefix(dot): t for n, t in (fixed | model.kept_buffers()).items() if n.startswith(dot)}

    def features(new: dict[str, Tensor], rows: Rows) -> Tensor:
        values = own | {n.removeprefix(dot): t for n, t in new.items()}
        found: Tensor = functional_call(block, values, tuple(maps[rows] for maps in read))
        return found.mean((2, 3))

    return [f"{last}.weight"], features, read
