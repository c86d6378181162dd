"""One step of meta-training: episode in, losses out, gradients averaged over episodes and ranks, Adam.

Paper, Section 3.3: one episode a step [code]. Our choice: several episodes a step if wanted, spread over ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pudnet_lib.core.episodes import Episode, EpisodeSampler
from pudnet_lib.core.heads import EpisodeLosses, LossWeights, losses_of_logits
from pudnet_lib.core.meta_config import MetaConfig
from pudnet_lib.core.model import ParameterModel, seeded
from pudnet_lib.errors import PudNetError


class MetaStep(nn.Module):
    """A parameter model with its auxiliary classifier: episode in, losses out.

    Args:
        model: PudNet or shared network; trained in place.
        num_classes: All training classes of the pool.
        weights: Weights of the losses.
        seed: Seed of the classifier's initial weights.
    """

    def __init__(self, model: ParameterModel, num_classes: int, weights: LossWeights, seed: int = 0) -> None:
        super().__init__()
        self.model, self.weights, self.channels_last = model, weights, False
        self.auxiliary: nn.Linear | None = None
        if weights.auxiliary or weights.consistency:
            with seeded(seed):
                self.auxiliary = nn.Linear(model.feature_dim, num_classes)

    def forward(self, episode: Episode | list[Episode]) -> EpisodeLosses:
        """Predict from the sketch, run support and query in one batch, compute the losses.

        Args:
            episode: An episode, or several that ``parts`` put together.

        Returns:
            The losses; the means over episodes where there are several.
        """
        if isinstance(episode, list):
            return self._together(episode)
        parameters = self.model(*episode.given(len(episode.support) if self.model.sees_support else 0))
        if self.channels_last:
            parameters = {name: _channels_last(tensor) for name, tensor in parameters.items()}
        return self._losses(episode, self.model.features(parameters, torch.cat([episode.support, episode.query])))

    def parts(self, episodes: Sequence[Episode]) -> list[Any]:
        """Sort a step's episodes: lists of neighbours of one shape that ``forward`` takes at once, or single ones."""
        if not episodes or not isinstance(episodes[0], Episode):  # another task's
            return list(episodes)
        parts: list[list[Episode]] = []
        for episode in episodes:
            room = self.model.episodes_at_once(torch.cat([episode.support, episode.query]))
            if parts and len(parts[-1]) < room and _shapes(parts[-1][0]) == _shapes(episode):
                parts[-1].append(episode)
            else:
                parts.append([episode])
        return [part if len(part) > 1 else part[0] for part in parts]

    def _together(self, episodes: list[Episode]) -> EpisodeLosses:
        sketches, labels = torch.stack([g.sketch for g in episodes]), torch.stack([g.sketch_labels for g in episodes])
        images = torch.stack([torch.cat([g.support, g.query]) for g in episodes])  # (B, M + Q, C, H, W)
        features = self.model.features_of_episodes(self.model.of_episodes(sketches, labels), images)  # (B, M + Q, F)
        losses = [self._losses(g, f) for g, f in zip(episodes, features, strict=True)]
        return EpisodeLosses(*(torch.stack(values).mean() for values in zip(*losses, strict=True)))

    def _losses(self, episode: Episode, features: Tensor) -> EpisodeLosses:
        support, query = features.split([len(episode.support), len(episode.query)])  # (M, F), (Q, F)
        logits = self.auxiliary(query) if self.auxiliary is not None else None
        ways = len(episode.pool_classes)
        classes = self.model.class_logits(support, episode.support_labels, query, ways)  # (Q, K)
        return losses_of_logits(classes, episode.query_labels, logits, episode.pool_classes, self.weights)


def _shapes(episode: Episode) -> list[torch.Size]:
    return [tensor.shape for tensor in (episode.sketch, episode.support, episode.query)]


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def validate(
    step: MetaStep, sampler: EpisodeSampler, episodes: int, device: torch.device, fabric: Any | None = None
) -> float:
    """Mean query accuracy in 0..1 over episodes of held-out training classes; the auxiliary classifier takes no part.

    Args:
        step: The model; put back into the mode in which it was.
        sampler: Episodes of held-out classes.
        episodes: How many.
        device: Where the model is.
        fabric: Ranks of which each does its part of the episodes; None does all here.

    Returns:
        The mean, the same on all ranks.
    """
    rank, ranks = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    was_training = step.training
    step.eval()
    cosine = MetaStep(step.model, 0, LossWeights(1, 0, 0))
    total = torch.zeros(())
    with torch.no_grad():
        for index in range(rank, episodes, ranks):
            episode = sampler.episode(index, source=index % len(sampler.pool)).to(device)
            total += cosine(episode).accuracy.cpu()
    step.train(was_training)
    if fabric is not None and ranks > 1:
        total = fabric.all_reduce(total.to(device), reduce_op="sum")
    return float(total) / episodes


def make_optimiser(module: MetaStep, config: MetaConfig) -> torch.optim.Adam:
    """Adam with two peak rates: for the hypernetwork, and for tensors that stand in the target as they are."""
    direct = {id(p) for p in module.model.direct_parameters()}
    groups = [
        {"params": [p for p in module.parameters() if id(p) not in direct], "peak": config.learning_rate},
        {
            "params": [p for p in module.parameters() if id(p) in direct],
            "peak": config.direct_learning_rate or config.learning_rate,
        },
    ]
    fused = config.precision != "16-mixed"  # one kernel for all tensors; Fabric's gradient scaler can't clip with it
    groups = [g for g in groups if g["params"]]
    return torch.optim.Adam(groups, lr=config.learning_rate, betas=(config.beta1, 0.999), fused=fused)


def one_step(
    fabric: Any,
    module: MetaStep,
    wrapped: Any,
    optimiser: Any,
    sampler: EpisodeSampler,
    config: MetaConfig,
    step: int,
) -> dict[str, float]:
    """Average the gradients of a step's episodes over all ranks, clip, step.

    Episodes are numbered globally: rank r of R takes every R-th one of a step, one after the other (gradient
    accumulation) or several at once, so that the number of ranks changes nothing but the order of a sum.

    Args:
        fabric: Lightning Fabric.
        module: The step's module.
        wrapped: The same as Fabric set it up.
        optimiser: As Fabric set it up.
        sampler: The episodes.
        config: How.
        step: Number of the step, from 0.

    Returns:
        Mean losses over all ranks, accuracy, learning rate.

    Raises:
        PudNetError: If the loss or a gradient is not finite; the weights are still good then.
    """
    for part in optimiser.param_groups:
        part["lr"] = part["peak"] * config.share(step)
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    own = config.episodes_per_step // fabric.world_size
    first = step * config.episodes_per_step + fabric.global_rank
    episodes = [sampler.episode(first + i * fabric.world_size).to(fabric.device) for i in range(own)]
    parts = module.parts(episodes)
    for place, part in enumerate(parts):
        share = (len(part) if isinstance(part, list) else 1) / own
        with fabric.no_backward_sync(wrapped, enabled=place < len(parts) - 1 and fabric.world_size > 1):
            losses: EpisodeLosses = wrapped(part)
            fabric.backward(losses.total * share)
        for name, value in losses._asdict().items():
            key = "loss" if name == "total" else name
            sums[key] = sums.get(key, 0) + value.detach() * share
    if fabric.world_size > 1:
        means = fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="mean")
        sums = dict(zip(sums, means, strict=True))
    row = {name: float(value) for name, value in sums.items()} | {"rate": config.rate(step)}
    norm: Tensor | None = None
    if config.clip_norm:
        norm = fabric.clip_gradients(wrapped, optimiser, max_norm=config.clip_norm, error_if_nonfinite=False)
    # Before the step, so that the weights stay good; 16-mixed skips steps with an infinite gradient by itself.
    finite = norm is None or config.precision == "16-mixed" or bool(torch.isfinite(norm))
    if not math.isfinite(row["loss"]) or not finite:
        what = "gradient became infinite or NaN" if math.isfinite(row["loss"]) else f"loss became {row['loss']}"
        raise PudNetError(
            f"The {what} in step {step + 1}. Lower learning_rate (now {config.learning_rate}) or set warmup; the last "
            "checkpoint, if there is one, is still good."
        )
    optimiser.step()
    return row
