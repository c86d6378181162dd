"""Meta-training on one device or many: ranks, compilation, early stopping, errors that say what to do.

Our choice; of the paper's own set-up nothing is known but that it used GPUs. Ranks are started by ``torchrun``, which
tells each its number; Lightning Fabric joins them (DDP: every rank its own episodes, gradients averaged). What stands
here changes speed and memory, and when a run ends, but not what a step computes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lightning_fabric as fabric_lib
import torch
from lightning_fabric.strategies.ddp import DDPStrategy

from pudnet_lib.core.episodes import EpisodeSampler
from pudnet_lib.core.meta_config import MetaConfig
from pudnet_lib.errors import PudNetError

#: What messages of a lost connection have in common (gloo, NCCL, the store).
_LOST = ("connection", "timed out", "timeout", "nccl", "gloo", "peer", "broken pipe")


@dataclass(frozen=True)
class ScaleConfig:
    """How the work is compiled and spread; the defaults do nothing.

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


def is_first_rank() -> bool:
    """Whether this process writes files and speaks: rank 0 of ``torchrun``, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def make_fabric(config: MetaConfig, scale: ScaleConfig, unused: bool = False) -> Any:
    """Join the ranks.

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


def stale(rows: Sequence[dict[str, float]], patience: int) -> bool:
    """Whether the last ``patience`` validations in a run's log are all no better than one before them."""
    found = [row["validation"] for row in rows if "validation" in row]
    return bool(patience) and len(found) > patience and max(found[-patience:]) <= max(found[:-patience])


@contextmanager
def explained(fabric: Any, config: MetaConfig, sampler: EpisodeSampler, step: int) -> Iterator[None]:
    """Turn the two failures of large runs, memory and lost ranks, into errors that say what to do.

    Args:
        fabric: Lightning Fabric.
        config: The run's.
        sampler: The run's episodes.
        step: Steps done.

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
    episodes: Any = sampler.config
    sizes = {
        k: getattr(episodes, k, None) for k in ("ways", "sketch_per_class", "support_per_class", "query_per_class")
    }
    pixels = sampler.pool[0].size if sampler.pool else 0
    bf16 = "" if config.precision != "32-true" else "meta.precision to bf16-mixed (now 32-true), "
    return (
        f"The device ran out of memory in step {step + 1} ({str(error).splitlines()[0][:120] or 'no details'}). Set "
        f"{bf16}or lower one of: "
        + ", ".join(f"episodes.{name} (now {value})" for name, value in sizes.items() if value is not None)
        + f", pool.size (now {pixels}), pudnet.target.width; share_generators=True makes a deep target's hypernetwork "
        "smaller. episodes_per_step and the number of ranks do not matter: a rank takes its episodes one at a time. "
        "The last checkpoint, if there is one, is still good."
    )
