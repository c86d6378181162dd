"""Meta-training: one optimiser step an episode, gradients through the predicted parameters into the hypernetwork.

Paper, Section 3.3: Adam, learning rate 1e-3, β₁ 0.5, one episode a step, no inner loop [code]. Deviations: a schedule
and gradient clipping; several episodes a step if wanted; selection on held-out *training* classes (the released code
selects on the unseen ones). PudNet and the shared network go through this one trainer, so that they get the same
episodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from pudnet_lib.core.episodes import EpisodeSampler
from pudnet_lib.core.interrupt import interrupts_held
from pudnet_lib.core.memory import kept_memory
from pudnet_lib.core.meta_config import MetaConfig, Precision
from pudnet_lib.core.meta_log import MetaLog
from pudnet_lib.core.meta_state import load_training_state, save_training_state
from pudnet_lib.core.meta_step import MetaStep, make_optimiser, one_step, validate
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.scale import ScaleConfig, explained, make_fabric, stale
from pudnet_lib.errors import PudNetError

__all__ = ["MetaConfig", "MetaResult", "MetaStep", "Precision", "meta_train", "validate"]


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


@kept_memory()
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
    config = config or MetaConfig()
    scale = scale or ScaleConfig()
    step_module = (step_module or MetaStep(model, sampler.num_classes, config.weights, config.seed)).train()
    uses_all = type(step_module) is MetaStep and bool(config.weights.cosine or config.weights.consistency)
    fabric = make_fabric(config, scale, unused=not uses_all)
    step_module.channels_last = scale.channels_last
    optimiser = make_optimiser(step_module, config)
    identity = _identity(model, sampler, config)
    done, seconds = 0, 0.0
    if run_dir is not None:
        done, seconds = load_training_state(run_dir, step_module, optimiser, identity)
    compiled: Any = torch.compile(step_module, backend=scale.compile) if scale.compile else step_module
    wrapped, optimiser = fabric.setup(compiled, optimiser)
    if len(set(fabric.all_gather(torch.tensor(done)).flatten().tolist())) > 1:
        raise PudNetError(f"The ranks find different checkpoints in {run_dir}; it must be a folder that all share.")
    log = MetaLog(run_dir if fabric.global_rank == 0 else None, done)
    bar = tqdm(total=config.steps, initial=done, disable=not progress or fabric.global_rank > 0, desc="meta-training")
    began, at_checkpoint = time.perf_counter(), seconds

    def checkpoint(steps: int) -> None:
        if run_dir is not None and fabric.global_rank == 0:
            log.flush()
            save_training_state(run_dir, step_module, optimiser, identity, steps, at_checkpoint + elapsed())

    def elapsed() -> float:
        return time.perf_counter() - began - log.validation_seconds

    def enough() -> bool:  # rank 0 has the log, and decides for all
        return bool(fabric.broadcast(stale(log.rows, scale.patience))) if scale.patience else False

    whole, stop = True, enough()
    try:
        while done < config.steps and not stop:
            with interrupts_held(), explained(fabric, config, sampler, done):
                whole = False
                row = one_step(fabric, step_module, wrapped, optimiser, sampler, config, done)
                done += 1
                if validation is not None and config.validate_every and done % config.validate_every == 0:
                    row["validation"] = log.timed(
                        lambda: validate(step_module, validation, config.validation_episodes, fabric.device, fabric)
                    )
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


def _identity(model: ParameterModel, sampler: EpisodeSampler, config: MetaConfig) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was cut off."""
    own: Any = model.config
    return {
        "config": asdict(config),
        "model": asdict(own),
        "episodes": asdict(sampler.config),
        "sampler": {"seed": sampler.seed, "weights": sampler.weights.tolist()},
        "pool": sampler.images_and_classes(),
    }
