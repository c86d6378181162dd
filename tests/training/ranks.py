"""Runs the scenarios of ``test_scale.py`` in ranks that are forked, as torchrun would start them; see its fixture.

A process of its own, so that torch is imported once for all ranks, and no autograd thread exists when it forks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import pudnet_lib.runs  # noqa: F401  (for the state on disk, and ranks)
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.meta import MetaConfig, ScaleConfig, meta_train
from pudnet_lib.core.targets import TargetConfig

CONFIG = MetaConfig(
    steps=6, episodes_per_step=2, validate_every=3, validation_episodes=3, checkpoint_every=2, accelerator="cpu"
)


def sampler(seed: int = 0) -> EpisodeSampler:
    """Episodes of noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = ImageDataset(images, torch.arange(4).repeat_interleave(6), tuple("abcd"), "noise")
    return EpisodeSampler([data], EpisodeConfig(2, 2, 2, 2), seed)


def model() -> PudNet:
    """A tiny PudNet."""
    return PudNet(PudNetConfig(target=TargetConfig("convnet3", width=4), dim=8))


def one_gradient(folder: Path) -> None:
    """One step without momentum to speak of: the gradient as all ranks see it."""
    net = model()
    config = replace(CONFIG, steps=1, validate_every=0, clip_norm=0.0)
    meta_train(net, sampler(), config, progress=False)
    save_file({n: p.grad for n, p in net.named_parameters()}, folder / f"gradient-{os.environ['RANK']}.safetensors")


def whole(folder: Path) -> None:
    """A run from beginning to end."""
    train(folder / "whole", folder / f"whole-{os.environ['RANK']}.safetensors")


def killed(folder: Path) -> None:
    """Rank 1 is killed in step 4."""

    def on_step(done: int) -> None:
        if done == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    train(folder / "killed", None, on_step)


def resumed(folder: Path) -> None:
    """The killed run goes on."""
    train(folder / "killed", folder / f"resumed-{os.environ['RANK']}.safetensors")


def apart(folder: Path) -> None:
    """Each rank has a folder of its own, where a shared one is wanted."""
    rank = os.environ["RANK"]
    train(folder / ("killed" if rank == "0" else "nothing"), None)


def early(folder: Path) -> None:
    """Stops early, on all ranks at once."""
    net = model()
    config = replace(CONFIG, learning_rate=1e-12, direct_learning_rate=1e-12, steps=60, validate_every=1)
    result = meta_train(net, sampler(), config, sampler(1), folder / "early", False, scale=ScaleConfig(patience=2))
    (folder / f"early-{os.environ['RANK']}.json").write_text(json.dumps(result.steps))


def train(run: Path, out: Path | None, on_step: Callable[[int], None] | None = None) -> None:
    net = model()
    meta_train(net, sampler(), CONFIG, sampler(1), run, False, on_step, scale=ScaleConfig(rank_timeout=30))
    if out is not None:
        save_file(net.state_dict(), out)


def launch(scenario: Callable[[Path], None], folder: Path, ranks: int = 2) -> dict[str, object]:
    """Fork the ranks, wait for them; returns exit statuses, what each wrote, and the seconds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began, processes = time.monotonic(), []
    for rank in range(ranks):
        output = folder / f"{scenario.__name__}-{rank}.txt"
        process = os.fork()
        if process == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks)}
            os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ["TORCHELASTIC_RUN_ID"] = "test"
            with output.open("w") as stream:
                os.dup2(stream.fileno(), 2)
                try:
                    scenario(folder)
                    status = 0
                except BaseException as error:
                    traceback.print_exc()
                    print(f"{type(error).__name__}: {error}", file=sys.stderr)
                    status = 1
                sys.stderr.flush()
            os._exit(status)
        processes.append(process)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    texts = [(folder / f"{scenario.__name__}-{rank}.txt").read_text() for rank in range(ranks)]
    return {"statuses": statuses, "texts": texts, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    scenarios = (one_gradient, whole, killed, apart, early)
    found = {scenario.__name__: launch(scenario, place) for scenario in scenarios}
    for name in ("state.safetensors", "log.csv"):  # for a resume on one rank
        (place / "one").mkdir(exist_ok=True)
        (place / "one" / name).write_bytes((place / "killed" / name).read_bytes())
    found["resumed"] = launch(resumed, place)
    (place / "found.json").write_text(json.dumps(found))
