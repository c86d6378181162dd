"""Where a prediction's time goes: each part alone, then PyTorch's profiler over the whole.

python benchmarks/profile_prediction.py resnet18      # any target network's name; width 64
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from timing import alternate
from torch.profiler import ProfilerActivity, profile

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.targets import TargetConfig, build_target


def main() -> None:
    target = TargetConfig(sys.argv[1] if len(sys.argv) > 1 else "resnet18", 64)  # type: ignore[arg-type]
    pudnet = PudNet(PudNetConfig(target=target)).eval()
    sketch = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8)
    network, state = build_target(target), build_target(target).state_dict()
    with torch.no_grad():
        embedding = pudnet.embed(sketch)[None]  # (1, G, D)
        calls = {
            "copy the state dict": lambda: network.load_state_dict(state),
            "predict": lambda: pudnet(sketch),
            "  encode the sketch": lambda: pudnet.embed(sketch),
            "  recurrence": lambda: pudnet.ahru(embedding),
            "  recurrence and generators": lambda: pudnet.generate(embedding),
        }
        for name, seconds in alternate(calls).items():
            print(f"{name:28} {1000 * np.median(seconds):8.2f} ms")
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(5):
                pudnet(sketch)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


if __name__ == "__main__":
    main()
