"""What a long meta-training run needs beside the method: a folder with its state and log, signals, ranks.

Our choice. ``core.meta`` calls these through hooks if this module was imported. Schedule and episodes are functions of
the step, so that weights, Adam's moments, generators and the log's rows are all that resuming needs; a run goes on bit
by bit as if it had never been cut off, on any devices.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import lightning_fabric as fabric_lib
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
#: A run may go on on other devices, and on another number of them.
ANYWHERE = ("config.accelerator", "config.devices")
#: No weight of a run that has not diverged comes near this.
LARGEST = 1e8
FIELDS = (
    "step", "loss", "cosine", "auxiliary", "consistency", "accuracy", "rate", "seconds", "validation",
    "spread", "dead", "code_norm", "embedding_norm",
)  # fmt: skip


# ---- the state ----


def identity_of(model: ParameterModel, sampler: EpisodeSampler, config: MetaConfig) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was cut off."""
    return {
        "config": asdict(config),
        "model": asdict(model.config),
        "episodes": asdict(sampler.config),
        "sampler": {"seed": sampler.seed, "weights": sampler.weights.tolist()},
        "pool": sampler.images_and_classes(),
    }


def save_training_state(
    run_dir: Path,
    module: nn.Module,
    optimiser: Any,
    identity: dict[str, Any],
    step: int,
    seconds: float,
    rows: list[dict[str, float]] | None = None,
) -> None:
    """Write weights, auxiliary classifier, Adam's moments, generators, the log's rows, steps and seconds, atomically.

    Raises:
        PudNetError: If a weight is not finite or beyond all bounds; the last good state then stays.
    """
    bad = [n for n, t in module.state_dict().items() if t.is_floating_point() and not bool((t.abs() <= LARGEST).all())]
    if bad:
        kept = "the checkpoint before it stays" if (run_dir / STATE).is_file() else "there is no checkpoint before it"
        raise PudNetError(
            f"The run has diverged by step {step} ({bad[0]} holds values beyond {LARGEST:g} or NaN) and was not saved; "
            f"{kept}. Go on from there with a lower rate: resume_with=('learning_rate',), or on the command line "
            "--resume-with learning_rate=…"
        )
    tensors: dict[str, Tensor] = {f"module/{n}": t for n, t in module.state_dict().items()}
    names = _names(module, optimiser)
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{names[index]}/{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["generator/cpu"] = torch.get_rng_state()  # for models that draw (dropout)
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    table = [[row.get(name, float("nan")) for name in FIELDS] for row in rows or []]
    tensors["log"] = torch.tensor(table, dtype=torch.float64).view(-1, len(FIELDS))
    save_tensors(run_dir / STATE, tensors, {"identity": identity, "step": step, "seconds": seconds})


def load_training_state(
    run_dir: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    identity: dict[str, Any],
    resume_with: tuple[str, ...] = (),
) -> tuple[int, float, list[dict[str, float]]]:
    """Put a run's state back."""
    for name in resume_with:
        if name not in identity["config"]:
            raise unknown_name("field to resume with", name, identity["config"])
    path = run_dir / STATE
    if not path.is_file():
        return 0, 0.0, []
    tensors, description = load_tensors(path)
    old, new = _flat(description["identity"]), _flat(json.loads(json.dumps(identity)))
    free = {*ANYWHERE, *(f"config.{name}" for name in resume_with)}
    differing = sorted(k for k in {*old, *new} - free if old.get(k) != new.get(k))
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
    table = tensors["log"].tolist() if "log" in tensors else []
    rows = [{n: v for n, v in zip(FIELDS, values, strict=True) if v == v} for values in table]
    return int(description["step"]), float(description["seconds"]), rows


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


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a ``log.csv``; a torn last line, NUL bytes and lines that are no numbers are left out."""
    text = path.read_bytes().replace(b"\0", b"").decode(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for row in csv.DictReader(io.StringIO(whole)):
        with contextlib.suppress(ValueError, AttributeError):
            rows.append({k: float(v) for k, v in row.items() if k and v})
    return [row for row in rows if "step" in row]


class MetaLog:
    """One row a step: in memory, in ``log.csv`` and as TensorBoard events."""

    def __init__(self, run_dir: Path | None, rows: list[dict[str, float]] | None = None) -> None:
        self.rows: list[dict[str, float]] = list(rows or [])
        self._path = None if run_dir is None else run_dir / "log.csv"
        self._writer: Any = None
        self._written = 0
        if self._path is not None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed with a folder

            write_atomically(self._path, self._lines(header=True).encode())
            self._writer = SummaryWriter(str(self._path.parent), purge_step=len(self.rows) + 1)

    def _lines(self, header: bool = False) -> str:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, FIELDS)
        if header:
            writer.writeheader()
        writer.writerows(self.rows[self._written :])
        self._written = len(self.rows)
        return buffer.getvalue()

    def add(self, row: dict[str, float]) -> None:
        """Add a step's row."""
        self.rows.append(row)
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"meta/{name}", value, int(row["step"]))
        if len(self.rows) - self._written >= 100:
            self.flush()

    def flush(self) -> None:
        """Append the new rows to ``log.csv``."""
        if self._path is None or self._written == len(self.rows):
            return
        try:
            with self._path.open("a", newline="") as file:
                file.write(self._lines())
        except OSError as error:
            raise PudNetError(
                f"{self._path} can't be written ({error.strerror or error}). Free some disk space or choose another "
                "folder; the last checkpoint is good."
            ) from error

    def close(self) -> None:
        """Write everything out."""
        self.flush()
        if self._writer is not None:
            self._writer.close()


class RunFolder:
    """A run's folder as ``core.meta`` sees it: resume, log, checkpoint."""

    def __init__(
        self, run_dir: Path, step: nn.Module, optimiser: Any, identity: dict[str, Any], resume_with: tuple[str, ...]
    ) -> None:
        self._dir, self._step, self._optimiser, self._identity = run_dir, step, optimiser, identity
        self.done, self.seconds, self.rows = load_training_state(run_dir, step, optimiser, identity, resume_with)
        self.log: Any = None

    def open(self, first_rank: bool) -> MetaLog:
        """Begin to log."""
        self.log = log = MetaLog(self._dir if first_rank else None, self.rows)
        return log

    def checkpoint(self, done: int, seconds: float) -> None:
        """Save."""
        self.log.flush()
        save_training_state(self._dir, self._step, self._optimiser, self._identity, done, seconds, self.log.rows)


# ---- signals ----


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold back a first Ctrl-C or SIGTERM until the block ends, then raise it; a second one is raised at once."""
    pending = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True

    with _handled(hold):
        yield
    if pending:
        raise KeyboardInterrupt


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt while the block runs, so that a run that is stopped leaves a checkpoint."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(stop, (signal.SIGTERM,)):
        yield


@contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[None]:
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


# ---- ranks ----

#: What messages of a lost connection have in common (gloo, NCCL, the store).
_LOST = ("connection", "timed out", "timeout", "nccl", "gloo", "peer", "broken pipe")


def make_fabric(config: MetaConfig, scale: ScaleConfig, unused: bool = False) -> Any:
    """Join the ranks that ``torchrun`` started: DDP, every rank its own episodes, gradients averaged."""
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
    """A whole step: signals wait for its end, and lost ranks and memory that runs out say what to do."""
    try:
        with interrupts_held():
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


def run_folder(
    run_dir: Path, step: nn.Module, optimiser: Any, sampler: EpisodeSampler, config: MetaConfig, scale: ScaleConfig
) -> RunFolder:
    """Open a run's folder, its state put back; see ``RunFolder``."""
    identity = identity_of(step.model, sampler, config)  # type: ignore[arg-type]
    return RunFolder(run_dir, step, optimiser, identity, scale.resume_with)


hooks.register(make_fabric=make_fabric, whole_step=explained, run_folder=run_folder, signals=terminated_as_interrupted)
