"""Predicting several architectures: seconds, peak memory, and the roofline, the time that moving the bytes takes.

Each architecture runs in a process of its own, so that its peak memory is its own. The bytes that must move are those
of all of the hypernetwork's parameters, read once, and of all predicted weights, written once; the memory's bandwidth
is that of copying 512 MB. Layers of one shape share a generator.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from timing import alternate, row

import pudnet_lib.more_targets  # the targets register themselves
import pudnet_lib.speed  # noqa: F401  (so that predictions run as a user's do)
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.results import peak_memory_mb

TARGETS = (
    TargetConfig("convnet3", 64),
    TargetConfig("resnet18", 64),
    TargetConfig("resnet34", 64),
    TargetConfig("resnet50", 64),
    TargetConfig("vgg11_bn", 64),
    TargetConfig("mobilenet_v3_small", 64),
)


def measure(target: TargetConfig) -> list[dict[str, Any]]:
    """Predict one architecture; time it against moving its bytes."""
    pudnet = PudNet(PudNetConfig(target=target, share_generators=target.name != "convnet3")).eval()
    sketch = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    source = torch.ones(128 * 2**20)  # 512 MB
    target_buffer = torch.empty_like(source)
    with torch.no_grad():
        seconds = alternate({"predict": lambda: pudnet(sketch), "copy": lambda: target_buffer.copy_(source)}, repeats=9)
    read = 4 * sum(p.numel() for p in pudnet.parameters())
    written = 4 * pudnet.layout.num_predicted
    floor = seconds["copy"] * (read + written) / (2 * source.numel() * 4)  # a copy reads and writes
    name = f"predict {target.name}, {pudnet.layout.num_predicted / 1e6:.2f} M predicted weights"
    found = row(name, seconds["predict"], f"moving its {(read + written) / 1e6:.0f} MB once", floor, None, True)
    # The two buffers of the copy were there before.
    return [found | {"peak_memory_mb": peak_memory_mb() - 2 * source.numel() * 4 / 1e6}]


def run() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for target in TARGETS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            rows += pool.submit(measure, target).result()
    return rows


if __name__ == "__main__":
    for line in run():
        print(line)
