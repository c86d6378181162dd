"""Meta-train hypernetworks for five of torchvision's ConvNets and a user's own module; write docs/any-convnet.md.

python scripts/train_any_convnet.py                       # width 8, 300 steps each: some minutes on one core
python scripts/train_any_convnet.py --width 64 --accelerator gpu --steps 1000 --out any-convnet-64.md

Our choice; the paper has ConvNet-3 and ResNet-18 [rec]. For each network: what is predicted and what is kept, and
whether some hundred steps on a small pool lower the loss and raise the accuracy on unseen classes. It shows that
training works, not what it can reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
import typer
from torch import Tensor, nn

from pudnet_lib.cli import with_options
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.meta import MetaConfig, meta_train
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.evaluate import evaluate_fits, interval
from pudnet_lib.files import write_atomically
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.parallel import parallel
from pudnet_lib.results import device_name, git_commit

OWN = "a user's own"
NETWORKS: dict[str, Literal["resnet18", "resnet34", "resnet50", "vgg11_bn", "mobilenet_v3_small"]] = {
    "ResNet-18": "resnet18",
    "ResNet-34": "resnet34",
    "ResNet-50": "resnet50",
    "VGG-11-BN": "vgg11_bn",
    "MobileNetV3-small": "mobilenet_v3_small",
}


class OwnNetwork(nn.Module):
    """A module as a user may bring it: depthwise and pointwise convolutions; a group norm and a linear layer are kept.

    Args:
        width: Channels of the first layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 5, 2, 2, groups=width, bias=False)
        self.norm = nn.GroupNorm(2, width)
        self.pointwise = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.BatchNorm2d(4 * width), nn.ReLU())
        self.out = nn.Linear(4 * width, 4 * width)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to features (N, 4 · width)."""
        maps = self.pointwise(self.norm(self.depthwise(self.stem(images))))
        features: Tensor = self.out(maps.mean((2, 3)))
        return features


@dataclass(frozen=True)
class Config:
    """What is meta-trained.

    Attributes:
        networks: Names of ``NETWORKS``, and "a user's own".
        width: Channels of the first layer; 64 are the usual networks.
        steps: Meta-training steps.
        sources: The pool.
        episodes: What an episode holds.
        unseen: Unseen episodes a source on which accuracy is measured, before and after.
        learning_rate: Adam's.
        seed: Seed of weights and episodes.
        jobs: Networks side by side.
        accelerator: Lightning Fabric's.
    """

    networks: tuple[str, ...] = (*NETWORKS, OWN)
    width: int = 8
    steps: int = 300
    sources: tuple[str, ...] = ("fashion", "glyphs")
    episodes: EpisodeConfig = field(default_factory=lambda: EpisodeConfig(4, 4, 4, 4))
    unseen: int = 20
    learning_rate: float = 3e-3
    seed: int = 0
    jobs: int = 1
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"

    def __post_init__(self) -> None:
        for name in self.networks:
            if name not in (*NETWORKS, OWN):
                raise unknown_name("network", name, (*NETWORKS, OWN))
        if self.steps < 20 or self.unseen < 2:
            raise PudNetError("Config.steps must be at least 20 (the loss is averaged over tenths), unseen at least 2.")


def run(config: Config) -> pd.DataFrame:
    """Meta-train a hypernetwork for each network.

    Args:
        config: Which, and for how long.

    Returns:
        One row a network: network, convolutions, generators (those of one shape are shared), predicted (numbers), kept
        (tensors that are neither convolution nor batch norm), hypernetwork (its parameters), loss_before and loss_after
        (mean over the first and the last tenth of the steps), fall with low and high (95 %, Welch), accuracy_before and
        accuracy_after (%, unseen classes, as text with intervals), chance, step_seconds.
    """
    return pd.DataFrame(parallel(_run_one, [(config, name) for name in config.networks], config.jobs, "networks"))


def build(config: Config, name: str) -> PudNet:
    """Build the hypernetwork of one network; layers of one shape share a generator."""
    design = PudNetConfig(dim=32, filter_norm="standardise", generator_width=8, share_generators=True, seed=config.seed)
    if name == OWN:
        return PudNet(design, OwnNetwork(config.width), "keep")
    return PudNet(replace(design, target=TargetConfig(NETWORKS[name], config.width)))


def _run_one(task: tuple[Config, str]) -> dict[str, Any]:
    config, name = task
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model, pool = build(config, name), Pool(PoolConfig(config.sources))
    unseen = pool.unseen_episodes(config.episodes, config.seed)
    before = evaluate_fits(partial(predict, model), unseen, config.unseen, model=model)
    meta = MetaConfig(
        steps=config.steps, learning_rate=config.learning_rate, validate_every=0, seed=config.seed,
        accelerator=config.accelerator,
    )  # fmt: skip
    result = meta_train(model, pool.training_episodes(config.episodes, config.seed), meta, progress=False)
    after = evaluate_fits(partial(predict, model.to("cpu")), unseen, config.unseen, model=model)
    losses, tenth = [row["loss"] for row in result.history], config.steps // 10
    first, last = interval(losses[:tenth]), interval(losses[-tenth:])
    half = float(((first.high - first.mean) ** 2 + (last.high - last.mean) ** 2) ** 0.5)  # independent episodes
    fall = first.mean - last.mean
    return {
        "network": name,
        "convolutions": len(model.layout.predicted),
        "generators": len({id(generator.basis) for generator in model.generators}),
        "predicted": model.layout.num_predicted,
        "kept": ", ".join(model.layout.kept) or "none",
        "hypernetwork": sum(p.numel() for p in model.parameters()),
        "loss_before": first.mean,
        "loss_after": last.mean,
        "fall": fall,
        "low": fall - half,
        "high": fall + half,
        "accuracy_before": str(interval(before["value"].to_numpy())),
        "accuracy_after": str(interval(after["value"].to_numpy())),
        "chance": float(after["chance"].mean()),
        "step_seconds": result.seconds / result.steps,
    }


def markdown(table: pd.DataFrame, config: Config) -> str:
    """Lay the table out for ``docs/any-convnet.md``."""
    head = [
        "network", "convolutions (generators)", "predicted numbers", "kept, not predicted", "hypernetwork",
        "loss, first → last tenth", "fall [95 %]", "unseen classes, before → after, %", "seconds a step",
    ]  # fmt: skip
    lines = [" | ".join(head), "|".join(["---", "--:", "--:", "---", "--:", "--:", "--:", "--:", "--:"])]
    lines += [" | ".join(_cells(row)) for row in table.to_dict(orient="records")]
    about = (
        f"{config.steps} steps, width {config.width}, one seed; pool: the training classes of "
        f"{' and '.join(config.sources)}; accuracy on {config.unseen} episodes a source of {config.episodes.ways} "
        f"unseen classes, chance {table['chance'].mean():.0f} %."
    )
    return "\n".join([*(f"| {line} |" for line in lines), "", about, ""])


def _cells(row: dict[Any, Any]) -> list[str]:
    return [
        row["network"],
        f"{row['convolutions']} ({row['generators']})",
        f"{row['predicted']:,}",
        row["kept"],
        f"{row['hypernetwork']:,}",
        f"{row['loss_before']:.2f} → {row['loss_after']:.2f}",
        f"{row['fall']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
        f"{row['accuracy_before']} → {row['accuracy_after']}",
        f"{row['step_seconds']:.3f}",
    ]


PAGE = """# Any ConvNet

Generated by `python scripts/train_any_convnet.py`; do not edit.

A hypernetwork is built from any module whose tensors belong to 2-d convolutions (grouped, depthwise, transposed and
1 × 1 ones included) and batch norms: `PudNet(config, target=module)`. Other tensors are named and refused, or with
`unsupported="keep"` learned, the same for every dataset. Here each hypernetwork was meta-trained for some hundred steps
on a small pool, to see that the loss falls; that is far from what it takes to train one well. Prediction seconds and
memory at full width are in the benchmarks.

{table}
Commit {commit}, {device}; seconds as measured in that run, beside whatever else the machine did.
"""


@with_options(Config, "config")
def main(
    config: Config,
    out: Annotated[Path, typer.Option(help="The page.")] = Path(__file__).parents[1] / "docs" / "any-convnet.md",
) -> None:
    torch.set_num_threads(1)
    table = run(config)
    page = PAGE.format(table=markdown(table, config), commit=git_commit(), device=device_name())
    write_atomically(out, page.encode())
    print(table.to_string())


if __name__ == "__main__":
    typer.run(main)
