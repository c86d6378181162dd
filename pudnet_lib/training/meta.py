"""Meta-training: one optimiser step a group, gradients through the predicted parameters into the hypernetwork.

Paper, Section 3.3: Adam, learning rate 1e-3, β₁ 0.5, one group a step, no inner loop [code]. Deviations: a schedule and
gradient clipping; several groups a step if wanted; selection on held-out *training* classes (the released code selects
on the unseen ones). PudNet and the shared network go through this one trainer, so that they get the same groups.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning_fabric as fabric_lib
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pudnet_lib.datasets.groups import Group, GroupSampler
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.hypernetwork.base import ParameterModel, seeded
from pudnet_lib.training.interrupt import interrupts_held
from pudnet_lib.training.losses import GroupLosses, LossWeights, losses_of_logits
from pudnet_lib.training.memory import kept_memory
from pudnet_lib.training.meta_log import MetaLog
from pudnet_lib.training.meta_state import load_training_state, save_training_state


@dataclass(frozen=True)
class MetaConfig:
    """Meta-training's configuration; the defaults run on a CPU.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Peak learning rate of Adam.
        direct_learning_rate: Peak learning rate of the tensors that stand in the target network as they are (a shared
            network's weights, learned bases, batch norm); 0 takes ``learning_rate``. They want more: batch norm makes a
            convolution's scale idle, so that what a step changes is relative to a weight that grows.
        beta1: Adam's β₁ ([code]: 0.5).
        schedule: ``"cosine"`` to zero, or ``"constant"``.
        warmup: Steps over which the learning rate rises linearly.
        clip_norm: Largest gradient norm; 0 switches clipping off.
        groups_per_step: Groups whose losses are averaged in a step, on each device.
        weights: Weights of the three losses.
        seed: Seed of the auxiliary classifier's initial weights (groups have the sampler's seed).
        validate_every: Steps between validations; 0 for none.
        validation_groups: Groups a validation.
        checkpoint_every: Steps between checkpoints; 0 for one at the end only.
        accelerator: Lightning Fabric's: ``"auto"``, ``"cpu"``, ``"gpu"``.
        devices: Number of devices; more than one uses DDP, each with its own groups.
        precision: Lightning Fabric's: ``"32-true"``, ``"bf16-mixed"``, …
    """

    steps: int = 1500
    learning_rate: float = 1e-3
    direct_learning_rate: float = 0.0
    beta1: float = 0.5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0
    clip_norm: float = 10.0
    groups_per_step: int = 1
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0
    validate_every: int = 250
    validation_groups: int = 20
    checkpoint_every: int = 250
    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.groups_per_step < 1 or self.devices < 1:
            raise PudNetError("MetaConfig: steps, groups_per_step and devices must be at least 1.")
        if not self.learning_rate > 0:
            raise PudNetError(f"MetaConfig.learning_rate is {self.learning_rate}; expected a positive number.")
        if self.schedule not in ("cosine", "constant"):
            raise unknown_name("schedule", self.schedule, ("cosine", "constant"))

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, …, steps - 1."""
        return self.learning_rate * self.share(step)

    def share(self, step: int) -> float:
        """Share of the peak learning rate in step 0, 1, …, steps - 1."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return warm * decay


class MetaStep(nn.Module):
    """A parameter model with its auxiliary classifier: group in, losses out.

    Args:
        model: PudNet or shared network; trained in place.
        num_classes: All training classes of the pool.
        weights: Weights of the losses.
        seed: Seed of the classifier's initial weights.
    """

    def __init__(self, model: ParameterModel, num_classes: int, weights: LossWeights, seed: int = 0) -> None:
        super().__init__()
        self.model, self.weights = model, weights
        self.auxiliary: nn.Linear | None = None
        if weights.auxiliary or weights.consistency:
            with seeded(seed):
                self.auxiliary = nn.Linear(model.feature_dim, num_classes)

    def forward(self, group: Group) -> GroupLosses:
        """Predict from the sketch, run support and query in one batch, compute the losses."""
        parameters = self.model(group.sketch, group.sketch_labels)
        features = self.model.features(parameters, torch.cat([group.support, group.query]))
        support, query = features.split([len(group.support), len(group.query)])  # (M, F), (Q, F)
        logits = self.auxiliary(query) if self.auxiliary is not None else None
        ways = len(group.pool_classes)
        classes = self.model.class_logits(support, group.support_labels, query, ways)  # (Q, K)
        return losses_of_logits(classes, group.query_labels, logits, group.pool_classes, self.weights)


@dataclass(frozen=True)
class MetaResult:
    """What a meta-training run gives.

    Attributes:
        history: One row a step: step, loss, cosine, auxiliary, consistency, accuracy, rate, seconds, and
            ``validation`` (accuracy in 0..1) where it was measured.
        seconds: Wall-clock seconds over all the run's parts, validation excluded.
        steps: Steps done.
    """

    history: list[dict[str, float]]
    seconds: float
    steps: int


def validate(step: MetaStep, sampler: GroupSampler, groups: int, device: torch.device) -> float:
    """Mean query accuracy in 0..1 over groups of held-out training classes; the auxiliary classifier takes no part."""
    was_training = step.training
    step.eval()
    cosine = MetaStep(step.model, 0, LossWeights(1, 0, 0))
    total = torch.zeros(())
    with torch.no_grad():
        for index in range(groups):
            group = sampler.group(index, source=index % len(sampler.pool)).to(device)
            total += cosine(group).accuracy.cpu()
    step.train(was_training)
    return float(total) / groups


@kept_memory()
def meta_train(
    model: ParameterModel,
    sampler: GroupSampler,
    config: MetaConfig | None = None,
    validation: GroupSampler | None = None,
    run_dir: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
    step_module: MetaStep | None = None,
) -> MetaResult:
    """Meta-train a model in place; a run that was cut off goes on where its last checkpoint stands.

    Args:
        model: PudNet or shared network.
        sampler: Groups of the training classes.
        config: How.
        validation: Groups of held-out training classes.
        run_dir: Folder for ``state.safetensors``, ``log.csv`` and TensorBoard's events; None writes nothing.
        progress: Show a progress bar with loss and validation accuracy.
        on_step: Called with the number of steps done after each (tests cut runs with it).
        step_module: What turns a group of this sampler into losses, for tasks other than classification (denoising);
            it holds ``model``. By default the paper's three losses.

    Returns:
        History and seconds.

    Raises:
        PudNetError: If the loss is not finite, or ``run_dir`` holds a run of another model or configuration.
        KeyboardInterrupt: On Ctrl-C, after a checkpoint has been written.
    """
    config = config or MetaConfig()
    fabric = fabric_lib.Fabric(accelerator=config.accelerator, devices=config.devices, precision=config.precision)
    if fabric.world_size == 1 and config.devices > 1:
        fabric.launch()
    step_module = (step_module or MetaStep(model, sampler.num_classes, config.weights, config.seed)).train()
    optimiser = _optimiser(step_module, config)
    identity = _identity(model, sampler, config)
    done, seconds = 0, 0.0
    if run_dir is not None:
        done, seconds = load_training_state(run_dir, step_module, optimiser, identity)
    wrapped, optimiser = fabric.setup(step_module, optimiser)
    log = MetaLog(run_dir if fabric.global_rank == 0 else None, done)
    bar = tqdm(total=config.steps, initial=done, disable=not progress or fabric.global_rank > 0, desc="meta-training")
    began, at_checkpoint = time.perf_counter(), seconds

    def checkpoint(steps: int) -> None:
        if run_dir is not None and fabric.global_rank == 0:
            log.flush()
            save_training_state(run_dir, step_module, optimiser, identity, steps, at_checkpoint + elapsed())

    def elapsed() -> float:
        return time.perf_counter() - began - log.validation_seconds

    whole = True
    try:
        while done < config.steps:
            with interrupts_held():
                whole = False
                row = _one_step(fabric, wrapped, optimiser, sampler, config, done)
                done += 1
                if validation is not None and config.validate_every and done % config.validate_every == 0:
                    row["validation"] = log.timed(
                        lambda: validate(step_module, validation, config.validation_groups, fabric.device)
                    )
                log.add(done, row, seconds + elapsed())
                whole = True
            bar.update()
            bar.set_postfix(log.shown(), refresh=False)
            if config.checkpoint_every and done % config.checkpoint_every == 0:
                checkpoint(done)
            if on_step is not None:
                on_step(done)
    finally:
        # Also on Ctrl-C; never in the middle of a step, whose weights may be half updated.
        bar.close()
        if done and whole:
            checkpoint(done)
        log.close()
    model.to("cpu" if config.accelerator == "cpu" else model.device)
    return MetaResult(log.rows, seconds + elapsed(), done)


def _optimiser(module: MetaStep, config: MetaConfig) -> torch.optim.Adam:
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


def _identity(model: ParameterModel, sampler: GroupSampler, config: MetaConfig) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was cut off."""
    own: Any = model.config
    return {
        "config": asdict(config),
        "model": asdict(own),
        "groups": asdict(sampler.config),
        "sampler": {"seed": sampler.seed, "weights": sampler.weights.tolist()},
        "pool": sampler.images_and_classes(),
    }


def _one_step(
    fabric: Any, wrapped: Any, optimiser: Any, sampler: GroupSampler, config: MetaConfig, step: int
) -> dict[str, float]:
    """Average the gradients of this device's groups, clip, step; returns the mean losses and the learning rate."""
    for part in optimiser.param_groups:
        part["lr"] = part["peak"] * config.share(step)
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for i in range(config.groups_per_step):
        # A global numbering of groups: rank r of R takes every R-th one, whatever the number of ranks.
        index = (step * config.groups_per_step + i) * fabric.world_size + fabric.global_rank
        last = i == config.groups_per_step - 1
        with fabric.no_backward_sync(wrapped, enabled=not last and fabric.world_size > 1):
            losses: GroupLosses = wrapped(sampler.group(index).to(fabric.device))
            fabric.backward(losses.total / config.groups_per_step)
        for name, value in losses._asdict().items():
            key = "loss" if name == "total" else name
            sums[key] = sums.get(key, 0) + value.detach() / config.groups_per_step
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
