"""Prediction from a 50-image sketch against copying a state dict of the same network, and against constructing it.

Also what the checksum costs when a predictor is loaded, and on a GPU the forward pass as a recorded CUDA graph against
the same kernel by kernel.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from safetensors import safe_open
from timing import alternate, row

from pudnet_lib import speed
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.shipped import FOLDER, load_shipped


def run() -> list[dict[str, Any]]:
    rows = []
    sketch = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    for config in (TargetConfig("convnet3", 64), TargetConfig("resnet18", 64)):
        pudnet = PudNet(PudNetConfig(target=config)).eval()
        target, state = build_target(config), build_target(config).state_dict()
        with torch.no_grad():
            seconds = alternate(
                {
                    "predict": lambda p=pudnet: p(sketch),  # type: ignore[misc]
                    "copy": lambda t=target, s=state: t.load_state_dict(s),  # type: ignore[misc]
                    "construct": lambda c=config: build_target(c),  # type: ignore[misc]
                }
            )
        label = f"{config.name}, width {config.width}, {pudnet.layout.num_predicted / 1e6:.2f} M predicted weights"
        rows.append(row(f"predict {label}", seconds["predict"], "copy its state dict", seconds["copy"], 3, True))
        rows.append(row(f"predict {label}", seconds["predict"], "construct it", seconds["construct"], 3, True))
    loads = alternate({"checked": lambda: load_shipped("pudnet"), "unchecked": load_unchecked})
    rows.append(row("load the shipped predictor", loads["checked"], "unverified", loads["unchecked"], 2, True))
    return rows + (on_a_gpu(sketch.cuda()) if torch.cuda.is_available() else [])


def load_unchecked() -> Any:
    with safe_open(FOLDER / "pudnet.safetensors", "pt") as file:
        right = file.metadata()["checksum"]
    with patch("pudnet_lib.files.hashlib.sha256", lambda _: SimpleNamespace(hexdigest=lambda: right)):
        return load_shipped("pudnet")


def on_a_gpu(sketch: torch.Tensor) -> list[dict[str, Any]]:
    rows = []
    for config in (TargetConfig("convnet3", 64), TargetConfig("resnet18", 64)):
        pudnet = PudNet(PudNetConfig(target=config)).eval().cuda()
        with torch.no_grad():
            seconds = alternate(
                {
                    "recorded": lambda p=pudnet: (speed.recorded_forward(p, sketch, None), torch.cuda.synchronize()),  # type: ignore[misc]
                    "eager": lambda p=pudnet: (p(sketch), torch.cuda.synchronize()),  # type: ignore[misc]
                }
            )
        name = f"predict {config.name}, width {config.width}, CUDA graph on {torch.cuda.get_device_name()}"
        rows.append(row(name, seconds["recorded"], "kernel by kernel", seconds["eager"], None, False))
    return rows


if __name__ == "__main__":
    for line in run():
        print(line)
