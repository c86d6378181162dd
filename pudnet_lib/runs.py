"""What a long meta-training run needs beside the method: a folder with its state and log, signals, ranks.

Our choice. ``core.meta`` calls these through hooks if this module was imported. Schedule and episodes are functions of
the step: weights, Adam's moments, generators and the log are all that a run needs to go on bit by bit, on any devices.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import lightning_fabric as fabric_lib
import pandas as pd
import torch
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from pudnet_lib.core import hooks
from pudnet_lib.core.episodes import EpisodeSampler
from pudnet_lib.core.meta import MetaConfig, ScaleConfig
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.files import load_tensors, save_tensors, write_atomically

STATE = "state.safetensors"
LARGEST = 1e8  # no weight of a run that has not diverged comes near this
FIELDS = ("step", "loss", "cosine", "auxiliary", "consistency", "accuracy", "rate", "seconds", "validation",
          "spread", "dead", "code_norm", "embedding_norm")  # fmt: skip


class _RunFolder:
    """A run's folder: its state, put back when it is opened, and one row a step in log.csv and TensorBoard's events."""

    def __init__(
        self, folder: Path, step: nn.Module, optimiser: Any, sampler: EpisodeSampler, config: MetaConfig,
        scale: ScaleConfig,
    ) -> None:  # fmt: skip
        self._dir, self._step, self._optimiser = folder, step, optimiser
        known = {id(p): n for n, p in step.named_parameters()}  # in the order in which the optimiser numbers them:
        self._names = [known[id(p)] for group in optimiser.param_groups for p in group["params"]]
        model: ParameterModel = step.model  # type: ignore[assignment]
        self._identity = {  # what a resumed run must have in common with the one that was cut off
            "config": asdict(config), "model": asdict(model.config), "episodes": asdict(sampler.config),
            "sampler": {"seed": sampler.seed, "weights": sampler.weights.tolist()},
            "pool": sampler.images_and_classes(),
        }  # fmt: skip
        self.done, self.seconds, self.rows, self._written = 0, 0.0, list[dict[str, float]](), 0
        self._events: Any = None  # also tells whether this rank writes
        for name in scale.resume_with:
            if name not in self._identity["config"]:
                raise unknown_name("field to resume with", name, self._identity["config"])
        if (folder / STATE).is_file():
            free = ("accelerator", "devices", *scale.resume_with)  # a run may go on on other devices, and on more
            self._load({f"config.{name}" for name in free})

    def _load(self, free: set[str]) -> None:
        """Put the state back; fields that are ``free`` may differ from the run that was cut off."""
        path = self._dir / STATE
        tensors, description = load_tensors(path)
        identities = description["identity"], json.loads(json.dumps(self._identity))
        old, new = (pd.json_normalize(identity).to_dict("records")[0] for identity in identities)
        if differing := sorted(str(k) for k in {*old, *new} - free if old.get(k) != new.get(k)):
            changed = f"{differing[0]} was {old.get(differing[0])}, now {new.get(differing[0])}"
            remedy = "Choose another folder, or delete that one to start anew."
            raise PudNetError(f"{self._dir} holds a run of another configuration: {changed}. {remedy}")
        weights = {n.removeprefix("module/"): t for n, t in tensors.items() if n.startswith("module/")}
        own = self._step.state_dict()
        wrong = [n for n in {*own, *weights} if n not in own or n not in weights or own[n].shape != weights[n].shape]
        if wrong:
            raise PudNetError(f"{path} belongs to another model: {sorted(wrong)[0]!r} differs. Choose another folder.")
        self._step.load_state_dict(weights)
        moments: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in tensors if key.startswith("optimiser/")):
            name, _, entry = key.removeprefix("optimiser/").rpartition("/")
            moments.setdefault(self._names.index(name), {})[entry] = tensors[key]
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(tensors["generator/cpu"])
        if "generator/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["generator/cuda"])
        table = tensors["log"].tolist() if "log" in tensors else []
        self.rows = [{n: v for n, v in zip(FIELDS, values, strict=True) if v == v} for values in table]
        self.done, self.seconds = int(description["step"]), float(description["seconds"])

    def checkpoint(self, done: int, seconds: float) -> None:
        """Save weights, auxiliary classifier, Adam's moments, generators, the log's rows, steps and seconds."""
        self._flush()
        weights = self._step.state_dict()
        bad = [n for n, t in weights.items() if t.is_floating_point() and not bool((t.abs() <= LARGEST).all())]
        if bad:
            what = f"The run has diverged by step {done} ({bad[0]} holds values beyond {LARGEST:g} or NaN)"
            before = (self._dir / STATE).is_file()
            kept = "the checkpoint before it stays" if before else "there is no checkpoint before it"
            how = "resume_with=('learning_rate',), or on the command line --resume-with learning_rate=…"
            raise PudNetError(f"{what} and was not saved; {kept}. Go on from there with a lower rate: {how}")
        tensors: dict[str, Tensor] = {f"module/{n}": t for n, t in weights.items()}
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{self._names[index]}/{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors["generator/cpu"] = torch.get_rng_state()  # for models that draw (dropout)
        if torch.cuda.is_available():
            tensors["generator/cuda"] = torch.cuda.get_rng_state()
        table = [[row.get(name, float("nan")) for name in FIELDS] for row in self.rows]
        tensors["log"] = torch.tensor(table, dtype=torch.float64).view(-1, len(FIELDS))
        save_tensors(self._dir / STATE, tensors, {"identity": self._identity, "step": done, "seconds": seconds})

    def open(self, first_rank: bool) -> _RunFolder:
        if first_rank:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed with a folder

            write_atomically(self._dir / "log.csv", self._lines(header=True).encode())
            self._events = SummaryWriter(str(self._dir), purge_step=len(self.rows) + 1)
        return self

    def _lines(self, header: bool = False) -> str:
        table = pd.DataFrame(self.rows[self._written :], columns=FIELDS, dtype=object)
        self._written = len(self.rows)
        return str(table.to_csv(index=False, header=header, lineterminator="\r\n"))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self._events is not None:
            for name, value in row.items():
                self._events.add_scalar(f"meta/{name}", value, int(row["step"]))
            if len(self.rows) - self._written >= 100:
                self._flush()

    def _flush(self) -> None:
        path = self._dir / "log.csv"
        if self._events is not None and self._written < len(self.rows):
            try:
                with path.open("a", newline="") as file:
                    file.write(self._lines())
            except OSError as error:
                remedy = "Free some disk space or choose another folder; the last checkpoint is good."
                raise PudNetError(f"{path} can't be written ({error.strerror or error}). {remedy}") from error

    def close(self) -> None:
        self._flush()
        if self._events is not None:
            self._events.close()


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back a first Ctrl-C or SIGTERM until the block ends, then raise it; a second one is raised at once."""
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if len(held) > 1:
            raise KeyboardInterrupt

    with _handled(hold, signal.SIGINT, signal.SIGTERM):
        yield
    if held:
        raise KeyboardInterrupt


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *signals: int) -> Iterator[None]:
    """Put a handler in place of those that would end the program; one that somebody set or ignores is not ours."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in signals:
            old = signal.getsignal(number)
            if callable(old) or (number == signal.SIGTERM and old is signal.SIG_DFL):
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def make_fabric(config: MetaConfig, scale: ScaleConfig, unused: bool = False) -> Any:
    """Join the ranks that ``torchrun`` started: DDP, every rank its own episodes, gradients averaged."""
    launched = torch.distributed.is_torchelastic_launched()
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if launched else config.devices
    ranks = int(os.environ["WORLD_SIZE"]) if launched else config.devices
    if config.episodes_per_step % ranks:
        expected = f"expected a multiple of the {ranks} ranks, so that each has as many episodes a step"
        raise PudNetError(f"MetaConfig.episodes_per_step is {config.episodes_per_step}; {expected}.")
    ddp = DDPStrategy(timeout=timedelta(seconds=scale.rank_timeout), find_unused_parameters=unused)
    where: Any = {"accelerator": config.accelerator, "devices": local, "num_nodes": ranks // local}
    fabric = fabric_lib.Fabric(**where, strategy=ddp if ranks > 1 else "auto", precision=config.precision)
    if ranks > 1:
        fabric.launch()
    return fabric


@contextmanager
def explained(fabric: Any, config: MetaConfig, sampler: EpisodeSampler, step: int) -> Iterator[None]:
    """A whole step: signals wait for its end, and lost ranks and memory that runs out say what to do."""
    try:
        with interrupts_held():
            yield
    except torch.OutOfMemoryError as error:
        names = ("ways", "sketch_per_class", "support_per_class", "query_per_class")
        sizes = [f"episodes.{n} (now {getattr(sampler.config, n)})" for n in names if hasattr(sampler.config, n)]
        pixels, reason = sampler.pool[0].size if sampler.pool else 0, str(error).partition("\n")[0][:120]
        bf16 = "" if config.precision != "32-true" else "meta.precision to bf16-mixed (now 32-true), "
        raise PudNetError(
            f"The device ran out of memory in step {step + 1} ({reason or 'no details'}). Set {bf16}or lower one of: "
            f"{', '.join(sizes)}, pool.size (now {pixels}), pudnet.target.width; share_generators=True makes a deep "
            "target's hypernetwork smaller. episodes_per_step and the number of ranks do not matter: a rank takes its "
            "episodes one at a time. The last checkpoint, if there is one, is still good."
        ) from error
    except RuntimeError as error:
        lost = ("connection", "timed out", "timeout", "nccl", "gloo", "peer", "broken pipe")  # of gloo, NCCL, the store
        if fabric.world_size == 1 or not any(word in str(error).lower() for word in lost):
            raise
        rank, reason = f"Rank {fabric.global_rank} of {fabric.world_size}", str(error).strip().splitlines()[0][:160]
        raise PudNetError(
            f"{rank} lost another one in step {step + 1} ({reason}); the other's own output says why it ended. The "
            "last checkpoint is good: start the same command again, on any number of ranks that divides "
            f"episodes_per_step ({config.episodes_per_step})."
        ) from error


stopped = partial(_handled, signal.default_int_handler, signal.SIGTERM)  # a stopped run leaves a checkpoint
hooks.register(make_fabric=make_fabric, whole_step=explained, run_folder=_RunFolder, signals=stopped)
