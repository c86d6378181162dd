"""What all tests share: one thread, seeds, tiny deterministic images and models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings

import pudnet_lib.files
import pudnet_lib.images
import pudnet_lib.more_targets
import pudnet_lib.runs
import pudnet_lib.speed  # noqa: F401  (their hooks)
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.targets import TargetConfig

torch.set_num_threads(1)
settings.register_profile(
    "kit",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("kit")


@pytest.fixture(scope="session")
def notebook_functions() -> Callable[[str], SimpleNamespace]:
    """Give what a notebook's cells with the tag ``tested`` define, without running the others."""

    def functions(stem: str) -> SimpleNamespace:
        path = Path(__file__).parents[1] / "notebooks" / f"{stem}.ipynb"
        names = {"np": np, "pd": pd, "torch": torch}
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "tested" in cell["metadata"].get("tags", ()):
                exec("".join(cell["source"]), names)
        return SimpleNamespace(**names)

    return functions


def make_images(
    classes: int = 3, per_class: int = 8, size: int = 8, channels: int = 3, seed: int = 0, name: str = "toy"
) -> ImageDataset:
    """Images that a tiny network can tell apart: each class is one fixed random pattern with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, channels, size, size, generator=generator)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = 0.1 * torch.randn(len(labels), channels, size, size, generator=generator)
    images = (patterns[labels] + noise).clamp(0, 1)
    return ImageDataset.from_float(images, labels, [f"{name}-{c}" for c in range(classes)], name)


TINY = TargetConfig("convnet3", width=4)


def make_pudnet(**switches: object) -> PudNet:
    """A PudNet of a few thousand parameters for ConvNet-3 of width 4."""
    return PudNet(PudNetConfig(**({"target": TINY, "dim": 8} | switches)))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def images() -> Callable[..., ImageDataset]:
    """``images(classes, per_class, size, channels, seed, name)`` makes a toy dataset."""
    return make_images


@pytest.fixture(scope="session")
def pudnet() -> Callable[..., PudNet]:
    """``pudnet(**switches)`` makes a tiny PudNet."""
    return make_pudnet
