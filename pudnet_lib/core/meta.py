"""Meta-training from top to bottom: one step, the optimiser, the loop, ranks, the run's state and its log.

Paper, Section 3.3: one Adam step an episode (learning rate 1e-3, β₁ 0.5), no inner loop, gradients through the
predicted parameters into the hypernetwork [code]. Deviations: a schedule and gradient clipping; several episodes a step
if wanted; selection on held-out *training* classes (the released code selects on the unseen ones). PudNet and the
shared network go through this one trainer, so that they get the same episodes.
"""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import lightning_fabric as fabric_lib
import torch
from lightning_fabric.strategies.ddp import DDPStrategy
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
        precision: Lightning Fabric's: ``"32-true"``, ``"bf16-mixed"``, …
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
    """

    compile: str = ""
    channels_last: bool = False
    patience: int = 0
    rank_timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.patience < 0 or not self.rank_timeout > 0:
            raise PudNetError(f"{self}: patience must be at least 0 and rank_timeout above 0.")


@dataclass(frozen=True)
class MetaResult:
    """What a meta-training run gives.

    Attributes:
        history: One row a step: step, loss, cosine, auxiliary, consistency, accuracy, rate, seconds, and
            ``validation`` (accuracy in 0..1) and a hypernetwork's ``Liveness`` where they were measured.
        seconds: Wall-clock seconds over all the run's parts, validation excluded.
        steps: Steps done.
    """

    history: list[dict[str, float]]
    seconds: float
    steps: int


# ---- one step ----


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
        parameters = self.model(*episode.given(episode.n_support if self.model.sees_support else 0))
        if self.channels_last:
            parameters = {name: _channels_last(tensor) for name, tensor in parameters.items()}
        return self._losses(episode, self.model.features(parameters, episode.images))

    def parts(self, episodes: Sequence[Episode]) -> list[Any]:
        """Sort a step's episodes: lists of neighbours of one shape that ``forward`` takes at once, or single ones."""
        if not episodes or not isinstance(episodes[0], Episode):  # another task's
            return list(episodes)
        parts: list[list[Episode]] = []
        for episode in episodes:
            room = self.model.episodes_at_once(episode.images)
            if parts and len(parts[-1]) < room and _shapes(parts[-1][0]) == _shapes(episode):
                parts[-1].append(episode)
            else:
                parts.append([episode])
        return [part if len(part) > 1 else part[0] for part in parts]

    def _together(self, episodes: list[Episode]) -> EpisodeLosses:
        sketches, labels = torch.stack([g.sketch for g in episodes]), torch.stack([g.sketch_labels for g in episodes])
        images = torch.stack([g.images for g in episodes])  # (B, M + Q, C, H, W)
        features = self.model.features_of_episodes(self.model.of_episodes(sketches, labels), images)  # (B, M + Q, F)
        losses = [self._losses(g, f) for g, f in zip(episodes, features, strict=True)]
        return EpisodeLosses(*(torch.stack(values).mean() for values in zip(*losses, strict=True)))

    def _losses(self, episode: Episode, features: Tensor) -> EpisodeLosses:
        support, query = features.split([episode.n_support, episode.n_query])  # (M, F), (Q, F)
        auxiliary = self.auxiliary(query) if self.auxiliary is not None else None  # (Q, training classes)
        ways = len(episode.pool_classes)
        classes = self.model.class_logits(support, episode.support_labels, query, ways)  # (Q, K)
        return losses_of_logits(classes, episode.query_labels, auxiliary, episode.pool_classes, self.weights)


def _shapes(episode: Episode) -> list[torch.Size]:
    return [tensor.shape for tensor in (episode.sketch, episode.support, episode.query)]


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


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


def _alive(model: PudNet, sampler: EpisodeSampler, device: torch.device) -> dict[str, float]:
    """The liveness of a hypernetwork that sees data, on sketches of all sources; a collapsed one is warned of."""
    if model.config.embedding == "constant":
        return {}
    count = max(4, min(8, len(sampler.pool)))
    episodes = [sampler.episode(i, source=i % len(sampler.pool)).to(device) for i in range(count)]
    was_training = model.training
    found = liveness(model.eval(), [(e.sketch, getattr(e, "sketch_labels", None)) for e in episodes])
    model.train(was_training)
    if found.spread < COLLAPSED and not model.config.residual:
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
    model: ParameterModel,
    sampler: EpisodeSampler,
    config: MetaConfig | None = None,
    validation: EpisodeSampler | None = None,
    run_dir: Path | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
    step_module: MetaStep | None = None,
    scale: ScaleConfig | None = None,
) -> MetaResult:
    """Meta-train a model in place; a run that was cut off goes on where its last checkpoint stands.

    Args:
        model: PudNet or shared network.
        sampler: Episodes of the training classes.
        config: How.
        validation: Episodes of held-out training classes.
        run_dir: Folder for ``state.safetensors``, ``log.csv`` and TensorBoard's events; None writes nothing.
        progress: Show a progress bar with loss and validation accuracy.
        on_step: Called with the number of steps done after each (tests cut runs with it).
        step_module: What turns an episode of this sampler into losses, for tasks other than classification (denoising);
            it holds ``model``. By default the paper's three losses.
        scale: How the work is compiled and spread, when to stop early.

    Returns:
        History and seconds.

    Raises:
        PudNetError: If the loss is not finite, memory runs out, another rank is lost, or ``run_dir`` holds a run of
            another model or configuration.
        KeyboardInterrupt: On Ctrl-C, after a checkpoint has been written.
    """
    config, scale = config or MetaConfig(), scale or ScaleConfig()
    step = (step_module or MetaStep(model, sampler.num_classes, config.weights, config.seed)).train()
    with hook("kept_memory", nullcontext)():
        return _loop(step, sampler, config, validation, run_dir, progress, on_step, scale)


def _loop(
    step: MetaStep,
    sampler: EpisodeSampler,
    config: MetaConfig,
    validation: EpisodeSampler | None,
    run_dir: Path | None,
    progress: bool,
    on_step: Callable[[int], None] | None,
    scale: ScaleConfig,
) -> MetaResult:
    model = step.model
    uses_all = type(step) is MetaStep and bool(config.weights.cosine or config.weights.consistency)
    fabric = make_fabric(config, scale, unused=not uses_all)
    step.channels_last = scale.channels_last
    optimiser: Any = make_optimiser(step, config)
    identity = _identity(model, sampler, config)
    done, seconds = 0, 0.0
    if run_dir is not None:
        done, seconds = load_training_state(run_dir, step, optimiser, identity)
    compiled: Any = torch.compile(step, backend=scale.compile) if scale.compile else step
    wrapped, optimiser = fabric.setup(compiled, optimiser)
    if len(set(fabric.all_gather(torch.tensor(done)).flatten().tolist())) > 1:
        raise PudNetError(f"The ranks find different checkpoints in {run_dir}; it must be a folder that all share.")
    log = MetaLog(run_dir if fabric.global_rank == 0 else None, done)
    bar = tqdm(total=config.steps, initial=done, disable=not progress or fabric.global_rank > 0, desc="meta-training")
    began, at_checkpoint = time.perf_counter(), seconds

    def checkpoint(steps: int) -> None:
        if run_dir is not None and fabric.global_rank == 0:
            log.flush()
            save_training_state(run_dir, step, optimiser, identity, steps, at_checkpoint + elapsed())

    def elapsed() -> float:
        return time.perf_counter() - began - log.validation_seconds

    def enough() -> bool:  # rank 0 has the log, and decides for all
        return bool(fabric.broadcast(stale(log.rows, scale.patience))) if scale.patience else False

    whole, stop = True, enough()
    try:
        while done < config.steps and not stop:
            with interrupts_held(), explained(fabric, config, sampler, done):
                whole = False
                row = one_step(fabric, step, wrapped, optimiser, sampler, config, done)
                done += 1
                if validation is not None and config.validate_every and done % config.validate_every == 0:
                    row["validation"] = log.timed(
                        lambda: validate(step, validation, config.validation_episodes, fabric.device, fabric)
                    )
                if isinstance(model, PudNet) and (done == config.steps or row.keys() & {"validation"}):
                    row |= log.timed(lambda: _alive(model, validation or sampler, fabric.device))
                log.add(done, row, seconds + elapsed())
                whole = True
                stop = "validation" in row and enough()
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


def stale(rows: Sequence[dict[str, float]], patience: int) -> bool:
    """Whether the last ``patience`` validations in a run's log are all no better than one before them."""
    found = [row["validation"] for row in rows if "validation" in row]
    return bool(patience) and len(found) > patience and max(found[-patience:]) <= max(found[:-patience])


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back a first Ctrl-C until the block ends, then raise it; a second one is raised at once.

    Outside the main thread, where Python delivers no signals, the block runs as it is.

    Raises:
        KeyboardInterrupt: At the block's end, if Ctrl-C came while it ran.
    """
    previous = signal.getsignal(signal.SIGINT)
    # Another thread's, ignored, or handled outside Python: not ours to change.
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    pending = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt


# ---- ranks ----

#: What messages of a lost connection have in common (gloo, NCCL, the store).
_LOST = ("connection", "timed out", "timeout", "nccl", "gloo", "peer", "broken pipe")


def is_first_rank() -> bool:
    """Whether this process writes files and speaks: rank 0 of ``torchrun``, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def make_fabric(config: MetaConfig, scale: ScaleConfig, unused: bool = False) -> Any:
    """Join the ranks that ``torchrun`` started: DDP, every rank its own episodes, gradients averaged.

    Args:
        config: Accelerator, precision, and devices where ``torchrun`` has not started the ranks.
        scale: The timeout.
        unused: Whether a step may leave some parameters without a gradient (a rival's τ in its first stage).

    Returns:
        Lightning Fabric, launched.

    Raises:
        PudNetError: If the episodes of a step can't be divided evenly among the ranks.
    """
    launched = torch.distributed.is_torchelastic_launched()
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if launched else config.devices
    ranks = int(os.environ["WORLD_SIZE"]) if launched else config.devices
    if config.episodes_per_step % ranks:
        raise PudNetError(
            f"MetaConfig.episodes_per_step is {config.episodes_per_step}; expected a multiple of the {ranks} ranks, so "
            "that each has as many episodes a step."
        )
    ddp = DDPStrategy(timeout=timedelta(seconds=scale.rank_timeout), find_unused_parameters=unused)
    fabric = fabric_lib.Fabric(
        accelerator=config.accelerator,
        devices=local,
        num_nodes=ranks // local,
        precision=config.precision,
        strategy=ddp if ranks > 1 else "auto",
    )
    if ranks > 1:
        fabric.launch()
    return fabric


@contextmanager
def explained(fabric: Any, config: MetaConfig, sampler: EpisodeSampler, step: int) -> Iterator[None]:
    """Turn the two failures of large runs, memory and lost ranks, into errors that say what to do.

    Raises:
        PudNetError: In place of such a failure; any other goes through.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PudNetError(_out_of_memory(config, sampler, step, error)) from error
    except RuntimeError as error:
        if fabric.world_size == 1 or not any(word in str(error).lower() for word in _LOST):
            raise
        reason = str(error).strip().splitlines()[0][:160]
        raise PudNetError(
            f"Rank {fabric.global_rank} of {fabric.world_size} lost another one in step {step + 1} ({reason}); the "
            "other's own output says why it ended. The last checkpoint is good: start the same command again, on any "
            f"number of ranks that divides episodes_per_step ({config.episodes_per_step})."
        ) from error


def _out_of_memory(config: MetaConfig, sampler: EpisodeSampler, step: int, error: BaseException) -> str:
    names = ("ways", "sketch_per_class", "support_per_class", "query_per_class")
    sizes = [f"episodes.{n} (now {getattr(sampler.config, n)})" for n in names if hasattr(sampler.config, n)]
    pixels = sampler.pool[0].size if sampler.pool else 0
    bf16 = "" if config.precision != "32-true" else "meta.precision to bf16-mixed (now 32-true), "
    return (
        f"The device ran out of memory in step {step + 1} ({str(error).splitlines()[0][:120] or 'no details'}). Set "
        f"{bf16}or lower one of: {', '.join(sizes)}, pool.size (now {pixels}), pudnet.target.width; "
        "share_generators=True makes a deep target's hypernetwork smaller. episodes_per_step and the number of ranks "
        "do not matter: a rank takes its episodes one at a time. The last checkpoint, if there is one, is still good."
    )


# ---- the run's state on disk: schedule and episodes are functions of the step, so resuming needs no more of them ----

STATE = "state.safetensors"
#: A run may go on on other devices, and on another number of them.
ANYWHERE = ("config.accelerator", "config.devices")


def _identity(model: ParameterModel, sampler: EpisodeSampler, config: MetaConfig) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was cut off."""
    return {
        "config": asdict(config),
        "model": asdict(model.config),
        "episodes": asdict(sampler.config),
        "sampler": {"seed": sampler.seed, "weights": sampler.weights.tolist()},
        "pool": sampler.images_and_classes(),
    }


def save_training_state(
    run_dir: Path, module: nn.Module, optimiser: Any, identity: dict[str, Any], step: int, seconds: float
) -> None:
    """Write weights, auxiliary classifier, Adam's moments, generators, steps done and seconds, atomically."""
    tensors: dict[str, Tensor] = {f"module/{n}": t for n, t in module.state_dict().items()}
    names = _names(module, optimiser)
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{names[index]}/{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["generator/cpu"] = torch.get_rng_state()  # for models that draw (dropout)
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    _files("save_tensors")(run_dir / STATE, tensors, {"identity": identity, "step": step, "seconds": seconds})


def load_training_state(
    run_dir: Path, module: nn.Module, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> tuple[int, float]:
    """Put a run's state back.

    Args:
        run_dir: The run's folder.
        module: Built exactly as it was.
        optimiser: Fresh, over the module's parameters.
        identity: As at saving.

    Returns:
        Steps done and training seconds; (0, 0.0) where there is no state yet.

    Raises:
        PudNetError: If the state belongs to another configuration or model.
    """
    path = run_dir / STATE
    if not path.is_file():
        return 0, 0.0
    tensors, description = _files("load_tensors")(path)
    old, new = _flat(description["identity"]), _flat(json.loads(json.dumps(identity)))
    differing = sorted(k for k in {*old, *new} - {*ANYWHERE} if old.get(k) != new.get(k))
    if differing:
        first = differing[0]
        raise PudNetError(
            f"{run_dir} holds a run of another configuration: {first} was {old.get(first)}, now {new.get(first)}. "
            "Choose another folder, or delete that one to start anew."
        )
    weights = {n.removeprefix("module/"): t for n, t in tensors.items() if n.startswith("module/")}
    own = module.state_dict()
    wrong = [n for n in {*own, *weights} if n not in own or n not in weights or own[n].shape != weights[n].shape]
    if wrong:
        raise PudNetError(f"{path} belongs to another model: {sorted(wrong)[0]!r} differs. Choose another folder.")
    module.load_state_dict(weights)
    names = _names(module, optimiser)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser/"):
            name, _, entry = key.removeprefix("optimiser/").rpartition("/")
            state.setdefault(names.index(name), {})[entry] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["generator/cpu"])
    if "generator/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator/cuda"])
    return int(description["step"]), float(description["seconds"])


def _files(name: str) -> Any:
    """The kit's file format, which core does not know."""
    found = hook(name)
    if found is None:
        raise PudNetError("A run that is kept in a folder needs the kit's file format; import pudnet_lib.files first.")
    return found


def _names(module: nn.Module, optimiser: Any) -> list[str]:
    """Names of the parameters in the order in which the optimiser numbers them."""
    known = {id(p): n for n, p in module.named_parameters()}
    return [known[id(p)] for group in optimiser.param_groups for p in group["params"]]


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


# ---- the log ----

FIELDS = (
    "step", "loss", "cosine", "auxiliary", "consistency", "accuracy", "rate", "seconds", "validation",
    "spread", "dead", "code_norm", "embedding_norm",
)  # fmt: skip


class MetaLog:
    """One row a step: in memory, in ``log.csv``, as TensorBoard events, and what the progress bar shows.

    A resumed run drops the rows behind its checkpoint, so that no step stands in the log twice.

    Args:
        run_dir: Where ``log.csv`` and the events go; None keeps rows in memory only.
        done: Steps that the checkpoint holds.
    """

    def __init__(self, run_dir: Path | None, done: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.validation_seconds = 0.0
        self._path = None if run_dir is None else run_dir / "log.csv"
        self._writer: Any = None
        self._written = 0
        if self._path is None:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed with a folder

        self._path.parent.mkdir(parents=True, exist_ok=True)
        if done and self._path.is_file():
            with self._path.open(newline="") as file:
                old = [row for row in csv.DictReader(file) if int(float(row["step"])) <= done]
            self.rows = [{k: float(v) for k, v in row.items() if v} for row in old]
        with self._path.open("w", newline="") as file:
            csv.DictWriter(file, FIELDS).writeheader()
        self.flush()
        self._writer = SummaryWriter(str(self._path.parent), purge_step=done + 1)

    def add(self, step: int, row: dict[str, float], seconds: float) -> None:
        """Add a step's row."""
        self.rows.append({"step": step, **row, "seconds": seconds})
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"meta/{name}", value, step)
        if len(self.rows) - self._written >= 100:
            self.flush()

    def timed(self, call: Callable[[], Any]) -> Any:
        """Run a measurement outside the training clock."""
        began = time.perf_counter()
        value = call()
        self.validation_seconds += time.perf_counter() - began
        return value

    def shown(self) -> dict[str, str]:
        """Recent mean loss and last validation accuracy, for the progress bar."""
        recent = self.rows[-50:]
        shown = {"loss": f"{sum(r['loss'] for r in recent) / len(recent):.3f}"}
        validation = next((r["validation"] for r in reversed(self.rows) if "validation" in r), None)
        if validation is not None:
            shown["val"] = f"{100 * validation:.1f}%"
        return shown

    def flush(self) -> None:
        """Append the new rows to ``log.csv``."""
        if self._path is None:
            return
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerows(self.rows[self._written :])
        self._written = len(self.rows)

    def close(self) -> None:
        """Write everything out."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
