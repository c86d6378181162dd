"""How prediction's seconds, memory and energy grow with the target's size, its layers, classes and images.

Our choice. The predictors are untrained and the images are noise, since time does not depend on either. Seconds are
warm medians, synchronised on a GPU; memory is the peak of what PyTorch allocated beyond the hypernetwork itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.studies.energy import EnergyMeter, energy_text

#: What is inside the clock of a prediction, in its order; loading the hypernetwork from its file is not.
PARTS = ("sketch", "generate", "assemble", "recalibrate", "class_means")


@dataclass(frozen=True)
class ScalingConfig:
    """What is varied, one factor at a time.

    Attributes:
        widths: Widths of ConvNet-3.
        layers: Deeper targets by name (width ``deep_width``), after ConvNet-3.
        classes: K.
        images: N.
        width: ConvNet-3's width while another factor is varied.
        deep_width: Width of the deeper targets.
        base_classes: K while another factor is varied.
        base_images: N while another factor is varied.
        repeats: Timed predictions, after one that is not counted.
        accelerator: ``"cpu"``, or the GPU where there is one.
    """

    widths: tuple[int, ...] = (8, 16, 32, 64)
    layers: tuple[Literal["resnet18", "resnet34"], ...] = ("resnet18", "resnet34")
    classes: tuple[int, ...] = (2, 5, 10)
    images: tuple[int, ...] = (50, 200, 1000)
    width: int = 16
    deep_width: int = 8
    base_classes: int = 5
    base_images: int = 100
    repeats: int = 3
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"


def noise_images(images: int, classes: int) -> ImageDataset:
    """Random images of random classes, every class present.

    Args:
        images: N, at least ``classes``.
        classes: K.

    Returns:
        (N, 3, 32, 32) uint8.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    names = tuple(f"class {k}" for k in range(classes))
    return ImageDataset(pixels, torch.arange(images) % classes, names, "noise")


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Peak of the bytes that a call allocates, over those that were allocated before.

    Args:
        call: The work.
        device: Where it runs.

    Returns:
        Bytes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = call()
    del kept
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def scaling(config: ScalingConfig) -> pd.DataFrame:
    """Measure predictions, one factor varied at a time.

    Args:
        config: What is varied.

    Returns:
        Columns factor, level (text), place (number), parameters (of the target, predicted), hypernetwork (its
        parameters), seconds of each of ``PARTS``, seconds (their sum), megabytes (10⁶ bytes at the peak) and energy
        (text).
    """
    base = TargetConfig(width=config.width)
    rows = [("width", str(w), w, TargetConfig(width=w), config.base_classes, config.base_images) for w in config.widths]
    deep = [TargetConfig(name, config.deep_width) for name in config.layers]
    deep.insert(0, TargetConfig(width=config.deep_width))
    rows += [("layers", target.name, 0, target, config.base_classes, config.base_images) for target in deep]
    rows += [("classes", str(k), k, base, k, max(k, config.base_images)) for k in config.classes]
    rows += [("images", str(n), n, base, config.base_classes, n) for n in config.images]
    found = []
    for factor, level, place, target, classes, images in rows:
        measured = measure(target, classes, images, config)
        found.append({"factor": factor, "level": level, "place": place or measured["layers"], **measured})
    table = pd.DataFrame(found)
    return table.assign(energy=table.pop("joules").map(energy_text))


def measure(target: TargetConfig, classes: int, images: int, config: ScalingConfig) -> dict[str, float]:
    """Measure the prediction of one target for one dataset.

    Args:
        target: The target network.
        classes: K.
        images: N.
        config: Repeats and device.

    Returns:
        Row of ``scaling``'s table: what was measured.
    """
    device = torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    model, data = PudNet(PudNetConfig(target)).to(device).eval(), noise_images(images, classes)
    peak = peak_bytes(lambda: predict(model, data), device)  # warms up, too
    meter = EnergyMeter(device)
    with meter:
        networks = [predict(model, data) for _ in range(config.repeats)]
    parts = {part: statistics.median(n.seconds[part] for n in networks) for part in PARTS}
    return {
        "layers": len(model.layout.predicted),
        "parameters": sum(p.numel() for p in networks[0].backbone.parameters()),
        "hypernetwork": sum(p.numel() for p in model.parameters()),
        **parts,
        "seconds": statistics.median(sum(n.seconds.values()) for n in networks),
        "megabytes": peak / 1e6,
        "joules": meter.joules / config.repeats,
    }
