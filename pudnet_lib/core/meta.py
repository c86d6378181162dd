"""Meta-training from top to bottom: one step, the optimiser, the loop.

Paper, Section 3.3: one Adam step an episode (learning rate 1e-3, β₁ 0.5), no inner loop, gradients through the
predicted parameters into the hypernetwork [code]. Deviations: a schedule and gradient clipping; several episodes a step
if wanted; selection on held-out *training* classes (the released code selects on the unseen ones). PudNet and the
shared network go through this one trainer, so that they get the same episodes. What long runs need beside it (a folder
with state and log, signals, ranks) is in ``pudnet_lib.runs``.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pudnet_lib.core.episodes import Episode, EpisodeSampler
from pudnet_lib.core.heads import CLASS_LOSS_ALONE, EpisodeLosses, LossWeights, losses_of_logits
from pudnet_lib.core.hooks import hook
from pudnet_lib.core.model import ParameterModel, seeded
from pudnet_lib.core.pudnet import COLLAPSED, PudNet, liveness
from pudnet_lib.errors import PudNetError, unknown_name

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


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
        episodes_per_step: Episodes whose losses are averaged in a step, over all ranks; a multiple of their number.
        weights: Weights of the three losses.
        seed: Seed of the auxiliary classifier's initial weights (episodes have the sampler's seed).
        validate_every: Steps between validations; 0 for none.
        validation_episodes: Episodes a validation.
        checkpoint_every: Steps between checkpoints; 0 for one at the end only.
        accelerator: Lightning Fabric's: ``"auto"``, ``"cpu"``, ``"gpu"``.
        devices: Number of devices; more than one uses DDP. Under ``torchrun`` it is not used: all ranks take part.
        precision: Lightning Fabric's: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
    """

    steps: int = 1500
    learning_rate: float = 1e-3
    direct_learning_rate: float = 0.0
    beta1: float = 0.5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0
    clip_norm: float = 10.0
    episodes_per_step: int = 1
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0
    validate_every: int = 250
    validation_episodes: int = 20
    checkpoint_every: int = 250
    accelerator: str = "auto"
    devices: int = 1
    precision: Precision = "32-true"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.episodes_per_step < 1 or self.devices < 1:
            raise PudNetError("MetaConfig: steps, episodes_per_step and devices must be at least 1.")
        if not self.learning_rate > 0:
            raise PudNetError(f"MetaConfig.learning_rate is {self.learning_rate}; expected a positive number.")
        if self.schedule not in ("cosine", "constant"):
            raise unknown_name("schedule", self.schedule, ("cosine", "constant"))

    def share(self, step: int) -> float:
        """Share of the peak learning rate in step 0, 1, …, steps - 1."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        decay = 0.5 * (1 + math.cos(math.pi * step / self.steps)) if self.schedule == "cosine" else 1.0
        return warm * decay

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, …, steps - 1."""
        return self.learning_rate * self.share(step)


@dataclass(frozen=True)
class ScaleConfig:
    """How the work is compiled and spread: speed, memory and when a run ends, but not what a step computes.

    Attributes:
        compile: Backend of ``torch.compile``, such as ``"inductor"``; empty for none. Episodes of one size are fastest.
        channels_last: Lay predicted weights out channels-last, as images always are; for GPUs with bf16.
        patience: Stop after so many validations without a better one; 0 never stops early. The weights are the last.
        rank_timeout: Seconds after which a rank that does not answer counts as lost.
        resume_with: Fields of ``MetaConfig`` that may differ from the run that is resumed, such as ``learning_rate``;
            on the command line with its value, learning_rate=1e-4.
    """

    compile: str = ""
    channels_last: bool = False
    patience: int = 0
    rank_timeout: float = 60.0
    resume_with: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.patience < 0 or not self.rank_timeout > 0:
            raise PudNetError(f"{self}: patience must be at least 0 and rank_timeout above 0.")


class MetaResult(NamedTuple):
    """What a run gives: one row a step (losses, accuracy, rate, seconds, what was measured), seconds, steps done."""

    history: list[dict[str, float]]
    seconds: float
    steps: int


# ---- one step ----


class MetaStep(nn.Module):
    """A parameter model with its auxiliary classifier over all classes of the pool: episode in, losses out."""

    def __init__(self, model: ParameterModel, num_classes: int, weights: LossWeights, seed: int = 0) -> None:
        super().__init__()
        self.model, self.weights, self.channels_last = model, weights, False
        self.auxiliary: nn.Linear | None = None
        if weights.auxiliary or weights.consistency:
            with seeded(seed):
                self.auxiliary = nn.Linear(model.feature_dim, num_classes)

    def forward(self, episode: Episode | list[Episode]) -> EpisodeLosses:
        """Predict from the sketch, run support and query in one batch; of several episodes at once the means."""
        if isinstance(episode, list):
            return hook("together")(self, episode)  # type: ignore[no-any-return]
        parameters = self.model(*episode.given(episode.n_support if self.model.sees_support else 0))
        if self.channels_last:
            last: dict[str, Any] = {"memory_format": torch.channels_last}
            parameters = {n: t.contiguous(**last) if t.ndim == 4 else t for n, t in parameters.items()}
        return self.losses(episode, self.model.features(parameters, episode.images))

    def losses(self, episode: Episode, features: Tensor) -> EpisodeLosses:
        """The losses from the features of support and query, (M + Q, F)."""
        support, query = features.split([episode.n_support, episode.n_query])  # (M, F), (Q, F)
        auxiliary = self.auxiliary(query) if self.auxiliary is not None else None  # (Q, training classes)
        ways = len(episode.pool_classes)
        classes = self.model.class_logits(support, episode.support_labels, query, ways)  # (Q, K)
        return losses_of_logits(classes, episode.query_labels, auxiliary, episode.pool_classes, self.weights)


def make_optimiser(module: MetaStep, config: MetaConfig) -> torch.optim.Adam:
    """Adam with two peak rates: for the hypernetwork, and for tensors that stand in the target as they are."""
    direct = {id(p) for p in module.model.direct_parameters()}
    own = [p for p in module.parameters() if id(p) not in direct]
    others = [p for p in module.parameters() if id(p) in direct]
    peaks = config.learning_rate, config.direct_learning_rate or config.learning_rate
    groups = [{"params": part, "peak": peak} for part, peak in zip((own, others), peaks, strict=True) if part]
    fused = config.precision != "16-mixed"  # one kernel for all tensors; Fabric's gradient scaler can't clip with it
    return torch.optim.Adam(groups, lr=config.learning_rate, betas=(config.beta1, 0.999), fused=fused)


def one_step(
    fabric: Any, module: MetaStep, wrapped: Any, optimiser: Any, sampler: EpisodeSampler, config: MetaConfig, step: int
) -> dict[str, float]:
    """Average the gradients of a step's episodes over all ranks, clip, step: losses, accuracy, rate."""
    for part in optimiser.param_groups:
        part["lr"] = part["peak"] * config.share(step)
    optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    own = config.episodes_per_step // fabric.world_size
    first = step * config.episodes_per_step + fabric.global_rank
    episodes = [sampler.episode(first + i * fabric.world_size).to(fabric.device) for i in range(own)]
    parts: list[Any] = hook("parts", lambda _, given: list(given))(module, episodes)
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


def validate(
    step: MetaStep, sampler: EpisodeSampler, episodes: int, device: torch.device, fabric: Any | None = None
) -> float:
    """Mean query accuracy in 0..1 over so many episodes, each rank its part; the auxiliary classifier takes no part."""
    rank, ranks = (0, 1) if fabric is None else (fabric.global_rank, fabric.world_size)
    was_training = step.training
    step.eval()
    cosine = MetaStep(step.model, 0, CLASS_LOSS_ALONE)
    total = torch.zeros(())
    with torch.no_grad():
        for index in range(rank, episodes, ranks):
            episode = sampler.episode(index, source=index % len(sampler.pool)).to(device)
            total += cosine(episode).accuracy.cpu()
    step.train(was_training)
    if fabric is not None and ranks > 1:
        total = fabric.all_reduce(total.to(device), reduce_op="sum")
    return float(total) / episodes


def _alive(model: ParameterModel, sampler: EpisodeSampler, device: torch.device, ends: bool) -> dict[str, float]:
    """The liveness of a hypernetwork that sees data, on all sources; collapse is warned of at a run's end."""
    if not isinstance(model, PudNet) or model.config.embedding == "constant":
        return {}
    count = max(4, min(8, len(sampler.pool)))
    episodes = [sampler.episode(i, source=i % len(sampler.pool)).to(device) for i in range(count)]
    was_training = model.training
    found = liveness(model.eval(), [(e.sketch, getattr(e, "sketch_labels", None)) for e in episodes])
    model.train(was_training)
    if ends and 0 < found.spread < COLLAPSED and not model.config.residual:
        warnings.warn(
            f"The hypernetwork has collapsed: predicted weights differ by {100 * found.spread:.2g} % of their length "
            f"between sketches (|a_t| {found.code_norm:.3g} beside |α ē| {found.embedding_norm:.3g}, {found.dead:.0%} "
            "of a_t zero), so that it sees no data. Lower learning_rate (the tensors in the target keep their own), or "
            "set normalise_codes=True.",
            stacklevel=4,
        )
    return found._asdict()


# ---- the loop ----


def meta_train(
    model: ParameterModel, sampler: EpisodeSampler, config: MetaConfig | None = None,
    validation: EpisodeSampler | None = None, run_dir: Path | None = None, progress: bool = True,
    on_step: Callable[[int], None] | None = None, step_module: MetaStep | None = None, scale: ScaleConfig | None = None,
) -> MetaResult:  # fmt: skip
    """Meta-train a model in place; a run that was cut off goes on where its last checkpoint stands.

    Args:
        model: PudNet or shared network.
        sampler: Episodes of the training classes.
        config: How.
        validation: Episodes of held-out training classes.
        run_dir: Folder for ``state.safetensors``, ``log.csv`` and TensorBoard's events (``pudnet_lib.runs``); None
            writes nothing.
        progress: Show a progress bar with loss and validation accuracy.
        on_step: Called with the number of steps done after each (tests cut runs with it).
        step_module: What turns an episode of this sampler into losses, for tasks other than classification (denoising);
            it holds ``model``. By default the paper's three losses.
        scale: How the work is compiled and spread, when to stop early.

    Returns:
        History and seconds.

    Raises:
        PudNetError: If the loss is not finite, the weights diverge, memory runs out, another rank is lost, or
            ``run_dir`` holds a run of another model or configuration.
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after a checkpoint has been written.
    """
    config, scale = config or MetaConfig(), scale or ScaleConfig()
    step = (step_module or MetaStep(model, sampler.num_classes, config.weights, config.seed)).train()
    with hook("kept_memory", nullcontext)(), hook("signals", nullcontext)():
        return _loop(step, sampler, config, validation, run_dir, progress, on_step, scale)


def _loop(
    step: MetaStep, sampler: EpisodeSampler, config: MetaConfig, validation: EpisodeSampler | None,
    run_dir: Path | None, progress: bool, on_step: Callable[[int], None] | None, scale: ScaleConfig,
) -> MetaResult:  # fmt: skip
    uses_all = type(step) is MetaStep and bool(config.weights.cosine or config.weights.consistency)
    fabric = hook("make_fabric", _one_process)(config, scale, not uses_all)
    step.channels_last = scale.channels_last
    optimiser: Any = make_optimiser(step, config)
    folder = None if run_dir is None else _required("run_folder")(run_dir, step, optimiser, sampler, config, scale)
    done, seconds = (folder.done, folder.seconds) if folder else (0, 0.0)
    compiled: Any = torch.compile(step, backend=scale.compile) if scale.compile else step
    wrapped, optimiser = fabric.setup(compiled, optimiser)
    if len(set(fabric.all_gather(torch.tensor(done)).flatten().tolist())) > 1:
        raise PudNetError(f"The ranks find different checkpoints in {run_dir}; it must be a folder that all share.")
    log: Any = folder.open(fabric.global_rank == 0) if folder else None
    rows: list[dict[str, float]] = log.rows if log else []
    bar = tqdm(total=config.steps, initial=done, disable=not progress or fabric.global_rank > 0, desc="meta-training")
    began, paused = time.perf_counter(), 0.0

    def elapsed() -> float:
        return seconds + time.perf_counter() - began - paused

    def enough() -> bool:  # rank 0 has the log, and decides for all
        return bool(fabric.broadcast(stale(rows, scale.patience))) if scale.patience else False

    whole, stop = True, enough()
    try:
        while done < config.steps and not stop:
            with hook("whole_step", lambda *given: nullcontext())(fabric, config, sampler, done):
                whole = False
                row = {"step": done + 1, **one_step(fabric, step, wrapped, optimiser, sampler, config, done)}
                done += 1
                held = time.perf_counter()
                if validation is not None and config.validate_every and done % config.validate_every == 0:
                    row["validation"] = validate(step, validation, config.validation_episodes, fabric.device, fabric)
                if "validation" in row or done == config.steps:
                    row |= _alive(step.model, validation or sampler, fabric.device, done == config.steps)
                paused += time.perf_counter() - held
                row["seconds"] = elapsed()
                (log.add if log else rows.append)(row)
                whole = True
                stop = "validation" in row and enough()
            bar.update()
            bar.set_postfix(_shown(rows), refresh=False)
            if folder and fabric.global_rank == 0 and config.checkpoint_every and done % config.checkpoint_every == 0:
                folder.checkpoint(done, elapsed())
            if on_step is not None:
                on_step(done)
    finally:
        # Also on Ctrl-C; never in the middle of a step, whose weights may be half updated.
        bar.close()
        if folder and fabric.global_rank == 0:
            if done and whole:
                folder.checkpoint(done, elapsed())
            log.close()
    step.model.to("cpu" if config.accelerator == "cpu" else step.model.device)
    return MetaResult(rows, elapsed(), done)


def _one_process(config: MetaConfig, scale: ScaleConfig, unused: bool) -> Any:
    if config.devices > 1:
        _required("make_fabric")
    from lightning_fabric import Fabric  # slow to import, and only needed here

    return Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)


def _required(name: str) -> Any:
    if (found := hook(name)) is None:
        raise PudNetError("A run that is kept in a folder or spread over ranks needs pudnet_lib.runs; import it first.")
    return found


def is_first_rank() -> bool:
    """Whether this process writes files and speaks: rank 0 of ``torchrun`` or Fabric, or the only one."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def stale(rows: Sequence[dict[str, float]], patience: int) -> bool:
    """Whether the last ``patience`` validations in a run's log are all no better than one before them."""
    found = [row["validation"] for row in rows if "validation" in row]
    return bool(patience) and len(found) > patience and max(found[-patience:]) <= max(found[:-patience])


def _shown(rows: Sequence[dict[str, float]]) -> dict[str, str]:
    """Recent mean loss and last validation accuracy, for the progress bar."""
    recent = rows[-50:]
    shown = {"loss": f"{sum(r['loss'] for r in recent) / len(recent):.3f}"}
    found = next((r["validation"] for r in reversed(rows) if "validation" in r), None)
    return shown if found is None else shown | {"val": f"{100 * found:.1f}%"}
