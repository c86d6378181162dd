"""Fifteen minutes of a GPU, used well: speed, the paper's headline, and whether conditioning comes with scale.

    python scripts/on_gpu.py --minutes 8 --out DIR --images FOLDER     # FOLDER/{train,test}/CLASS/*.jpg, 200 classes
    python scripts/on_gpu.py --minutes 0.5 --smoke --out DIR           # all of it on a CPU, in CI
    python scripts/on_gpu.py --merge DIR                               # afterwards: reports/results/gpu.json

Needs PyTorch, torchvision, numpy, Pillow, pandas, safetensors and Lightning Fabric. Each part has a share of the
minutes, a log line, and a file of its own that is written at once, so that a run that is cut off keeps what it has.
Images go to the device once, as uint8; episodes are drawn there; a training step is recorded as a CUDA graph and never
waits for the host. Our choice throughout; what the paper claims is 238 and 2,305 times faster at equal accuracy [abs].
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import re
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pudnet_lib.core.dataset import ImageDataset, normalise  # noqa: E402
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler, split_classes  # noqa: E402
from pudnet_lib.core.heads import class_means, cosine_logits  # noqa: E402
from pudnet_lib.core.model import ParameterModel, SharedConfig, SharedNetwork  # noqa: E402
from pudnet_lib.core.predict import PredictConfig, predict  # noqa: E402
from pudnet_lib.core.pudnet import PudNet, PudNetConfig  # noqa: E402
from pudnet_lib.core.targets import TargetConfig, build_target  # noqa: E402
from pudnet_lib.supervised import ScratchConfig, train_from_scratch  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PACKS = {"fashion": (10, 4, 2), "emoji": (80, 16, 12), "glyphs": (36, 10, 6)}  # classes, novel, validation
#: What meta-training uses, as it is used: rate of the hypernetwork, rate of the tensors that stand in the target.
RATES = {
    "PudNet (paper), 1e-3": (1e-3, 2e-2),
    "PudNet (paper), 3e-3": (3e-3, 2e-2),
    "PudNet (paper), 2e-2": (2e-2, 2e-2),
    "label-aware": (1e-3, 2e-2),
    "shared network": (2e-2, 2e-2),
    "constant embedding": (1e-2, 1e-2),
}
BEGAN = time.perf_counter()


def log(text: str) -> None:
    """One line, with the seconds since the start."""
    print(f"[{time.perf_counter() - BEGAN:6.1f} s] {text}", flush=True)


def wait() -> None:
    """Let the device finish."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def median_ms(call: Callable[[], object], repeats: int = 30) -> dict[str, float]:
    """Milliseconds of a call, device included: median and quartiles after three warm-ups."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        wait()
        began = time.perf_counter()
        call()
        wait()
        times.append(1e3 * (time.perf_counter() - began))
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {"ms": float(middle), "low": float(low), "high": float(high), "n": repeats}


# ------------------------------------------------------------------------------------------------ images, episodes


def pack(name: str, test: bool) -> ImageDataset:
    """An embedded pack at 32 pixels in three channels."""
    with np.load(ROOT / "pudnet_lib" / "images" / "embedded" / f"{name}.npz", allow_pickle=False) as arrays:
        keep = arrays["test"].astype(bool) == test
        images = torch.from_numpy(arrays["images"][keep])
        labels, items = (torch.from_numpy(arrays[k][keep].astype(np.int64)) for k in ("labels", "items"))
        names = tuple(str(n) for n in arrays["class_names"])
    if images.shape[-1] != 32:
        images = F.interpolate(images.float(), size=(32, 32), mode="bilinear", antialias=True).round().byte()
    return ImageDataset(images.expand(-1, 3, -1, -1).contiguous(), labels, names, name, items)


def folder(path: Path, part: str, classes: int, size: int = 64) -> ImageDataset:
    """An image folder of the usual layout, decoded with Pillow."""
    from PIL import Image

    names = sorted(p.name for p in (path / part).iterdir() if p.is_dir())[:classes]
    arrays, labels = [], []
    for label, name in enumerate(names):
        for file in sorted((path / part / name).iterdir()):
            with Image.open(file) as image:
                arrays.append(np.asarray(image.convert("RGB").resize((size, size))))
                labels.append(label)
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return ImageDataset(images, torch.tensor(labels), tuple(names), "tiny-imagenet")


class OnDevice:
    """Images of all training classes on the device, and episodes drawn there without a word to the host.

    Args:
        datasets: The sources.
        classes: Of each source, its training classes.
        ways: K.
        sizes: Sketch, support and query images per class.
        seed: Of the draws.
    """

    def __init__(
        self,
        datasets: Sequence[ImageDataset],
        classes: Sequence[Sequence[int]],
        ways: int,
        sizes: tuple[int, int, int],
        seed: int = 0,
    ) -> None:
        self.ways, self.sizes = ways, sizes
        rows, sources, begin = [], [], 0
        for number, (data, part) in enumerate(zip(datasets, classes, strict=True)):
            by_class = data.indices_by_class()
            for c in part:
                ids = by_class[c][torch.argsort(data.items[by_class[c]], stable=True)]  # an item's images together
                if len(ids) >= sum(sizes):
                    rows.append(ids + begin)
                    sources.append(number)
            begin += len(data)
        longest = max(map(len, rows))
        self.table = torch.stack([r.repeat(longest // len(r) + 1)[:longest] for r in rows]).to(DEVICE)  # (C, longest)
        self.counts = torch.tensor([len(r) for r in rows], device=DEVICE)  # (C,)
        self.source = torch.tensor(sources, device=DEVICE)  # (C,)
        self.images = torch.cat([d.images for d in datasets]).to(DEVICE)  # (N, C, H, W) uint8
        self.labels = [torch.arange(ways, device=DEVICE).repeat_interleave(n) for n in sizes]
        self.generator = torch.Generator(DEVICE).manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sketch, support and query of one episode, each (K · n, C, H, W) uint8; no image is in two of them."""

        def rand(n: int) -> Tensor:
            return torch.rand(n, device=DEVICE, generator=self.generator)

        picked = (rand(1) * (self.source.max() + 1)).long()  # one source an episode
        classes = rand(len(self.source)).masked_fill(self.source != picked, -1).topk(self.ways).indices  # (K,)
        start = (rand(self.ways) * self.counts[classes]).long()  # a window of the class's images, wrapped
        places = (start[:, None] + torch.arange(sum(self.sizes), device=DEVICE)) % self.counts[classes][:, None]
        images = self.images[self.table[classes].gather(1, places)]  # (K, n, C, H, W)
        sketch, support, query = (part.flatten(0, 1) for part in images.split(self.sizes, 1))
        return sketch, support, query


# ----------------------------------------------------------------------------------------------------- meta-training


def episode_loss(model: ParameterModel, episode: tuple[Tensor, Tensor, Tensor], data: OnDevice) -> Tensor:
    """The class loss alone: cosine of queries to the class means of the support."""
    sketch, support, query = episode
    theta = model(sketch, data.labels[0])
    features = model.features(theta, torch.cat([support, query]))  # (M + Q, D)
    means = class_means(features[: len(support)].detach(), data.labels[1], data.ways)  # (K, D)
    return F.cross_entropy(cosine_logits(features[len(support) :], means, model.scale), data.labels[2])


class Run:
    """One meta-training: the whole step, episode and Adam included, is one CUDA graph on a stream of its own.

    Args:
        model: Trained in place.
        data: The episodes.
        steps: Of the cosine schedule.
        rates: Of the hypernetwork, and of the tensors that stand in the target.
        bf16: Whether features are computed in bf16.
    """

    def __init__(
        self, model: ParameterModel, data: OnDevice, steps: int, rates: tuple[float, float], bf16: bool = False
    ) -> None:
        self.model, self.data, self.steps, self.bf16, self.done = model.to(DEVICE).train(), data, steps, bf16, 0
        if hasattr(model, "ways"):  # so that it need not ask the device how many classes there are
            model.ways = data.ways
        direct = {id(p) for p in model.direct_parameters()}
        parts = (
            [p for p in model.parameters() if id(p) not in direct],
            [p for p in model.parameters() if id(p) in direct],
        )
        cuda = DEVICE.type == "cuda"
        self.share = torch.ones((), device=DEVICE)
        self.at = torch.zeros((), device=DEVICE)
        groups = [
            {"params": p, "lr": torch.tensor(r, device=DEVICE), "peak": r}
            for p, r in zip(parts, rates, strict=True)
            if p
        ]
        self.optimiser = torch.optim.Adam(groups, betas=(0.5, 0.999), capturable=cuda, fused=True)
        self.loss = torch.zeros((), device=DEVICE)
        self.stream = torch.cuda.Stream() if cuda else None
        self.graph: Any = None

    def _step(self) -> None:
        share = 0.5 * (1 + torch.cos(math.pi * self.at / self.steps))
        for group in self.optimiser.param_groups:
            group["lr"].copy_(group["peak"] * share)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            loss = episode_loss(self.model, self.data.draw(), self.data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=False)
        self.loss.copy_(loss.detach())
        self.at.add_(1)

    def record(self) -> None:
        """Record the step; three real steps come before."""
        if self.stream is None:
            return
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self._step()
        torch.cuda.synchronize()
        self.done = 3
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.data.generator)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._step()
        except Exception as error:  # better slow than nothing, in minutes that do not come again
            log(f"no CUDA graph of {type(self.model).__name__}: {type(error).__name__}: {str(error)[:300]}")
            torch.cuda.synchronize()
            return
        self.graph = graph

    def step(self) -> None:
        """One step; on a GPU it returns at once."""
        if self.graph is None:
            self._step()
        else:
            with torch.cuda.stream(self.stream):
                self.graph.replay()
        self.done += 1


def train(runs: Sequence[Run], until: int, limit: float) -> bool:
    """Take steps of all runs in turn, side by side on the device; tell whether the time sufficed."""
    began = time.perf_counter()
    while any(run.done < min(until, run.steps) for run in runs):
        for run in runs:
            if run.done < min(until, run.steps):
                run.step()
        if runs[0].done % 50 == 0:
            wait()  # the host must not run ahead by thousands of launches
            if time.perf_counter() - began > limit:
                return False
    wait()
    return True


def build(name: str, target: TargetConfig, seed: int) -> ParameterModel:
    """An untrained model of ``RATES``."""
    if name == "shared network":
        return SharedNetwork(SharedConfig(target, seed))
    if name == "label-aware":
        from pudnet_lib.methods.class_attention import ClassAttention, ClassAttentionConfig

        return ClassAttention(ClassAttentionConfig(target, seed=seed))
    embedding: Any = "constant" if name == "constant embedding" else "dataset"
    return PudNet(PudNetConfig(target, generator_width=32, filter_norm="standardise", embedding=embedding, seed=seed))


def spread(model: ParameterModel, sketches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Distance of predictions from their mean, as a share of its length: 0 for a collapsed or blind model."""
    with torch.no_grad():
        thetas = [model(sketch.to(DEVICE), labels.to(DEVICE)) for sketch, labels in sketches]
        flat = torch.stack([torch.cat([t.flatten() for t in theta.values()]) for theta in thetas])
    return float((flat - flat.mean(0)).norm(dim=1).mean() / flat.mean(0).norm())


# ------------------------------------------------------------------------------------------------------------- parts


def part_speed(args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """(a) A prediction against a copy and a construction; a meta-step in several ways; twenty networks side by side."""
    width, repeats = (4, 3) if args.smoke else (64, 30)
    target = TargetConfig("resnet18", width=width)
    rows: list[dict[str, Any]] = []

    def add(what: str, call: Callable[[], object], n: int = repeats, **more: Any) -> None:
        try:
            rows.append({"what": what, **median_ms(call, n), **more})
            log(f"speed: {what}: {rows[-1]['ms']:.3f} ms")
        except Exception as error:  # one way that this version of PyTorch cannot go must not hide the others
            rows.append({"what": what, "error": f"{type(error).__name__}: {error}"[:300]})
            log(f"speed: {what}: {rows[-1]['error']}")

    model = build("PudNet (paper), 1e-3", target, 0).to(DEVICE).eval()
    sketch = torch.randint(0, 256, (50, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    state = {n: t.to(DEVICE) for n, t in build_target(target).state_dict().items()}
    with torch.no_grad():
        add("ResNet-18: state dict copied", lambda: [t.clone() for t in state.values()])
        add("ResNet-18: constructed on the CPU and moved", lambda: build_target(target).to(DEVICE), 3)
        add("ResNet-18: predicted from 50 images", lambda: model(sketch))
        if DEVICE.type == "cuda":
            from pudnet_lib.speed import record

            replay = record(lambda: model(sketch))
            add("ResNet-18: predicted, CUDA graph", replay)
    data = OnDevice(
        [pack(n, False) for n in PACKS],
        [split_of(n).train for n in PACKS],
        5,
        (5, 5, 5) if args.smoke else (10, 10, 10),
    )
    for w in (4,) if args.smoke else (16, 64):
        for name in ("shared network", "PudNet (paper), 1e-3"):
            plain = Run(build(name, TargetConfig(width=w), 0), data, 1000, RATES[name])
            add(f"meta-step, ConvNet-3 of width {w}, {name}: eager", plain._step, busy=busy(plain._step))
            half = Run(build(name, TargetConfig(width=w), 0), data, 1000, RATES[name], bf16=True)
            add(f"meta-step, ConvNet-3 of width {w}, {name}: bf16", half._step)
            graph = Run(build(name, TargetConfig(width=w), 0), data, 1000, RATES[name])
            graph.record()
            add(f"meta-step, ConvNet-3 of width {w}, {name}: CUDA graph", graph.step, busy=busy(graph.step))
        several = at_once(build("PudNet (paper), 1e-3", TargetConfig(width=w), 0).to(DEVICE), data, 8)
        for how, call in several.items():
            add(f"8 episodes of ConvNet-3 of width {w}: {how}", call, max(3, repeats // 3))
    side = scratch_side_by_side(4 if args.smoke else 20, 4 if args.smoke else 16)
    for how, call in side.items():
        add(f"{4 if args.smoke else 20} scratch networks, one step: {how}", call)
    if DEVICE.type == "cuda":
        for how, layout, dtype in (
            ("float32", torch.contiguous_format, torch.float32),
            ("channels-last, bf16", torch.channels_last, torch.bfloat16),
        ):
            net = build_target(target).to(DEVICE).to(memory_format=layout)  # type: ignore[call-overload]
            images = torch.rand(256, 3, 64, 64, device=DEVICE).to(memory_format=layout)

            def forward_backward(net: nn.Module = net, images: Tensor = images, dtype: torch.dtype = dtype) -> None:
                with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                    net(images).float().square().mean().backward()

            add(f"ResNet-18, 256 images of 64 pixels, forward and backward: {how}", forward_backward, repeats // 3)
    return {"rows": rows}


def busy(call: Callable[[], object], steps: int = 20) -> float | None:
    """Share of the wall-clock time in which the GPU computes, from the profiler; None on a CPU."""
    if DEVICE.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        began = time.perf_counter()
        for _ in range(steps):
            call()
        wait()
        wall = time.perf_counter() - began
    return sum(e.self_device_time_total for e in profiled.key_averages()) / 1e6 / wall


def at_once(model: ParameterModel, data: OnDevice, episodes: int) -> dict[str, Callable[[], object]]:
    """Forward and backward of several episodes: in a loop, and all target networks as one by ``torch.vmap``."""
    drawn = [data.draw() for _ in range(episodes)]
    sketches, images = torch.stack([d[0] for d in drawn]), torch.stack([torch.cat(d[1:]) for d in drawn])

    def loop() -> None:
        for sketch, both in zip(sketches, images, strict=True):
            model.features(model(sketch, data.labels[0]), both).square().mean().backward()

    floats = torch.stack([normalise(part) for part in images]).contiguous()
    target = model.materialise({n: t.detach().clone() for n, t in model(sketches[0], data.labels[0]).items()})
    for layer in target.modules():
        if isinstance(layer, nn.BatchNorm2d):  # the batch's own statistics, as in meta-training
            layer.train().track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None

    def one(theta: dict[str, Tensor], part: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(target, theta, (part,))
        return out

    def vmapped() -> None:
        thetas = [model(sketch, data.labels[0]) for sketch in sketches]
        stacked = {name: torch.stack([t[name] for t in thetas]) for name in thetas[0]}
        torch.vmap(one)(stacked, floats).square().mean().backward()

    return {"a loop": loop, "torch.vmap": vmapped}


def scratch_side_by_side(networks: int, width: int) -> dict[str, Callable[[], object]]:
    """One training step of several ConvNet-3: one after the other, and as one network of grouped convolutions."""
    nets = [build_target(TargetConfig(width=width)).to(DEVICE) for _ in range(networks)]
    images = torch.rand(networks, 64, 3, 32, 32, device=DEVICE)
    wide = build_target(TargetConfig(width=width))
    stacked = {n: torch.stack([dict(net.named_parameters())[n] for net in nets]) for n, _ in nets[0].named_parameters()}
    buffers = {n: torch.stack([dict(net.named_buffers())[n] for net in nets]) for n, _ in nets[0].named_buffers()}
    stacked = {n: t.detach().requires_grad_() for n, t in stacked.items()}
    wide.eval()

    def loop() -> None:
        for net, part in zip(nets, images, strict=True):
            net.eval()(part).square().mean().backward()

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], part: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(wide, (parameters, buffers), (part,))
        return out

    def together() -> None:
        torch.vmap(one)(stacked, buffers, images).square().mean().backward()

    return {"one after the other": loop, "torch.vmap": together}


def split_of(name: str, counts: tuple[int, int, int] | None = None) -> Any:
    """The kit's class split of a source: base, validation and novel classes."""
    classes, novel, validation = counts or PACKS[name]
    return split_classes(classes, novel, validation, zlib.crc32(name.encode()))


def part_headline(args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """(b) ResNet-18 for the 40 novel classes of Tiny-ImageNet at once, against GC from scratch over GPU seconds."""
    if args.images is None:
        train_set = test_set = pack("emoji", False)
        counts, classes = PACKS["emoji"], split_of("emoji")
        test_set = pack("emoji", True)
    else:
        counts = (200, 40, 32)
        train_set, test_set = folder(args.images, "train", 200), folder(args.images, "test", 200)
        classes = split_of("tiny-imagenet", counts)
    log(f"headline: {len(train_set)} + {len(test_set)} images read")
    target = TargetConfig(
        "resnet18", width=4 if args.smoke else 64, stem="cifar" if args.images is None else "imagenet"
    )
    base = (*classes.train, *classes.validation)
    data = OnDevice([train_set], [base], 5 if args.smoke else 20, (2, 2, 2) if args.smoke else (5, 10, 10))
    novel, unseen = train_set.select_classes(classes.unseen), test_set.select_classes(classes.unseen)
    rows, began = [], time.perf_counter()
    for epochs in (1,) if args.smoke else (1, 1, 3, 10, 30):  # the first warms up and is thrown away
        config = ScratchConfig(
            target, optimiser="sgd", epochs=epochs, batch_size=64, flip=args.images is not None, crop=4, evaluations=1
        )
        result = train_from_scratch(novel, None, config)
        rows.append({"method": f"GC, {epochs} epochs", "seconds": result.seconds, **accuracies(result.network, unseen)})
        log(f"headline: {rows[-1]}")
    rows = rows if args.smoke else rows[1:]
    names = ("PudNet (paper), 1e-3", "shared network", "constant embedding")
    for number, name in enumerate(names):
        left = limit - (time.perf_counter() - began)
        rates = RATES[name] if args.smoke else tuple(0.1 * r for r in RATES[name])  # a deep target wants a tenth
        steps = 3 if args.smoke else 2000
        run = Run(build(name, target, 0), data, steps, rates, bf16=not args.smoke)
        run.record()
        whole = train([run], steps, left / (len(names) - number) - 3)
        seconds = []
        for _ in range(1 if args.smoke else 4):  # the first warms up
            network = predict(run.model.eval(), novel, PredictConfig(sketch_per_class=10))
            seconds.append(sum(network.seconds.values()))
        rows.append(
            {
                "method": name,
                "seconds": float(np.median(seconds[1:] or seconds)),
                "steps": run.done,
                "whole schedule": whole,
                **accuracies(network, unseen),
            }
        )
        log(f"headline: {rows[-1]}")
        del run
    return {"rows": rows, "images": len(novel), "classes": len(classes.unseen), "chance": 100 / len(classes.unseen)}


def accuracies(network: nn.Module, images: ImageDataset) -> dict[str, float]:
    """Top-1 and top-5 in %, with 95 % intervals over classes."""
    device = next(network.parameters()).device
    with torch.no_grad():
        logits = torch.cat([network(part.to(device)).float().cpu() for part in images.images.split(256)])
    right = logits.topk(5, 1).indices == images.labels[:, None]
    found = {}
    for k in (1, 5):
        hit = right[:, :k].any(1).double()
        per_class = torch.stack([hit[images.labels == c].mean() for c in range(images.num_classes)]) * 100
        found |= {
            f"top-{k}": float(per_class.mean()),
            f"top-{k} half": float(1.96 * per_class.std() / len(per_class) ** 0.5),
        }
    return found


def part_scale(args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """(c) Near gain, far gain and gain over the shared network against meta-training steps, at three widths."""
    names, splits = list(PACKS), [split_of(n) for n in PACKS]
    train_sets, test_sets = [pack(n, False) for n in names], [pack(n, True) for n in names]
    size = EpisodeConfig(4, 10, 10, 10)
    novel = EpisodeSampler(train_sets, size, 2_000_003, query_pool=test_sets, classes=[s.unseen for s in splits])
    near = EpisodeSampler(train_sets, size, 3_000_003, classes=[s.train for s in splits])
    widths, lengths = ((4,), (2, 4)) if args.smoke else ((8, 16, 64), (1000, 3000, 10_000, 30_000, 100_000))
    methods = [m for m in RATES if m != "constant embedding" and (m != "label-aware" or args.label_aware)]
    rows: list[dict[str, Any]] = []
    began = time.perf_counter()
    per_step = 0.0
    for length in lengths:  # each point is a run of its own, with its own schedule
        left = limit - (time.perf_counter() - began)
        if per_step * length > left - 12:
            log(f"scale: {length} steps would take {per_step * length:.0f} s, {left:.0f} s are left: not measured")
            break
        runs: dict[tuple[int, str], Run] = {}
        for number, (width, name) in enumerate((w, m) for w in widths for m in methods):
            ways, sizes = (5, (3, 3, 3)) if args.smoke else (5, (10, 10, 10))
            data = OnDevice(train_sets, [s.train for s in splits], ways, sizes, seed=number)
            model = build(name, TargetConfig(width=width), 0)
            runs[width, name] = Run(model, data, length, RATES[name])
            runs[width, name].record()
        trained = time.perf_counter()
        if not train([*runs.values()], length, limit - (trained - began)):
            log(f"scale: out of time within {length} steps")
            break
        seconds = time.perf_counter() - trained
        per_step = seconds / length
        for (width, name), run in runs.items():
            facts = {"width": width, "steps": length, "method": name, "seconds": seconds / len(runs)}
            rows += gains(run.model.eval(), novel, near, 1 if args.smoke else 10, facts)
        for width in widths:
            cell = summary(rows, width, length)
            log(f"scale: {length} steps of {len(runs)} models side by side in {seconds:.1f} s; width {width}: {cell}")
        save(args.out, "scale", {"rows": rows})
        del runs
    return {"rows": rows}


def gains(
    model: ParameterModel, novel: EpisodeSampler, near: EpisodeSampler, episodes: int, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Accuracy on novel episodes from the own sketch, another source's, and other classes' of the same source."""
    rows, sketches = [], []
    if hasattr(model, "ways"):
        model.ways = 0
    count = len(novel.pool)
    for index in range(episodes):
        for source in range(count):
            episode = novel.episode(index, source)
            given = ImageDataset(
                *episode.given(len(episode.support)), tuple(str(int(c)) for c in episode.classes), episode.source
            )
            swaps = {
                "own": episode,
                "far": novel.episode(index, (source + 1) % count),
                "near": near.episode(index, source),
            }
            if len(sketches) < 12:
                sketches.append((episode.sketch, episode.sketch_labels))
            for swap, other in swaps.items():
                network = predict(model, given, PredictConfig(), (other.sketch, other.sketch_labels))
                with torch.no_grad():
                    right = network(episode.query.to(DEVICE)).argmax(1).cpu() == episode.query_labels
                rows.append(
                    {
                        **facts,
                        "source": episode.source,
                        "episode": index,
                        "swap": swap,
                        "value": 100 * float(right.float().mean()),
                    }
                )
    moved = spread(model, sketches)
    return [row | {"spread": moved} for row in rows]


def summary(rows: list[dict[str, Any]], width: int, steps: int) -> str:
    """Means of one cell, for the log."""
    cell = [r for r in rows if (r["width"], r["steps"]) == (width, steps)]

    def mean(method: str, swap: str) -> float:
        return float(np.mean([r["value"] for r in cell if (r["method"], r["swap"]) == (method, swap)]))

    own = {m: mean(m, "own") for m in dict.fromkeys(r["method"] for r in cell)}
    return ", ".join(
        f"{m} {v:.1f} (far {v - mean(m, 'far'):+.1f}, near {v - mean(m, 'near'):+.1f})" for m, v in own.items()
    )


# -------------------------------------------------------------------------------------------------------------- main


def save(out: Path, part: str, found: dict[str, Any]) -> None:
    """Write a part's file at once: either the old one or the whole new one stands there."""
    text = json.dumps({"part": part, "where": where(), **found}, indent=1)
    temporary = out / f".{part}.json"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(out / f"gpu_{part}.json")


def where() -> dict[str, Any]:
    """Device, driver, versions."""
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
    }
    if DEVICE.type == "cuda":
        facts |= {"device": torch.cuda.get_device_name(), "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() / 1e6}
        version = Path("/proc/driver/nvidia/version")
        facts["driver"] = (re.findall(r"\d+\.\d+(?:\.\d+)?", version.read_text()) if version.exists() else [""])[0]
    return facts | {"seconds": time.perf_counter() - BEGAN, "command": " ".join(["scripts/on_gpu.py", *sys.argv[1:3]])}


def merge(parts: Path, path: Path) -> None:
    """Put the parts' files together into one result file of the report."""
    import pandas as pd

    from pudnet_lib.evaluate import interval
    from pudnet_lib.results import git_commit, write_result

    found = {name: json.loads((parts / f"gpu_{name}.json").read_text()) for name in PARTS}
    about = {"part": "speed", "metric": "milliseconds (median, quartiles)"}
    timed = [r for r in found["speed"]["rows"] if "ms" in r]
    rows: list[dict[str, Any]] = [
        {**about, "method": r["what"], "mean": r["ms"], **{k: r.get(k) for k in ("low", "high", "n", "busy")}}
        for r in timed
    ]
    for r in found["headline"]["rows"]:
        for k in (1, 5):
            mean, half = r[f"top-{k}"], r[f"top-{k} half"]
            rows.append(
                {
                    "part": "headline",
                    "method": r["method"],
                    "metric": f"top-{k} accuracy (%)",
                    "mean": mean,
                    "low": max(0.0, mean - half),
                    "high": min(100.0, mean + half),
                    "n": found["headline"]["classes"],
                    "chance": k * found["headline"]["chance"],
                    "prediction_seconds": r["seconds"],
                    "steps": r.get("steps"),
                }
            )
    table = pd.DataFrame(found["scale"]["rows"])
    wide = table.pivot_table(
        index=["width", "steps", "method", "episode"], columns="swap", values="value"
    ).reset_index()
    shared = wide[wide["method"] == "shared network"].set_index(["width", "steps", "episode"])["own"]
    for (width, steps, method), part in wide.groupby(["width", "steps", "method"], sort=False):
        rival = shared.loc[[(width, steps, e) for e in part["episode"]]].to_numpy()
        values = {
            "accuracy (%)": part["own"],
            "far gain (points)": part["own"] - part["far"],
            "near gain (points)": part["own"] - part["near"],
            "gain over the shared network (points)": part["own"] - rival,
        }
        moved = table[(table["width"] == width) & (table["steps"] == steps) & (table["method"] == method)][
            "spread"
        ].iloc[0]
        for metric, value in values.items():
            if method == "shared network" and "gain" in metric:
                continue
            at = interval(value.to_numpy())
            rows.append(
                {
                    "part": "scale",
                    "method": method,
                    "dataset": f"width {width}, {steps} steps",
                    "metric": metric,
                    "mean": at.mean,
                    "low": at.low,
                    "high": at.high,
                    "n": at.n,
                    "seeds": 1,
                    "spread": moved,
                }
            )
    where = found["speed"]["where"]
    facts = {
        "config": {n: found[n]["where"] | {"part_seconds": found[n].get("part_seconds")} for n in PARTS},
        "seed": 0,
        "seconds": sum(found[n].get("part_seconds", 0.0) for n in PARTS),
        "commit": git_commit(),
        "versions": {"torch": where["torch"], "python": where["python"], "cuda": str(where["cuda"])},
        "device": f"{where['device']}, driver {where['driver']}",
        "peak_memory_mb": where.get("peak_gpu_memory_mb", 0.0),
    }
    question = "What does a GPU change: in speed, at equal accuracy, and does conditioning come with scale?"
    write_result(path, "gpu", question, verdict(found, rows), pd.DataFrame(rows), facts, title="On a GPU")


def verdict(found: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The answer: the ratio at equal accuracy, then the step, then the gains at the longest schedule."""
    ms = {r["what"]: r["ms"] for r in found["speed"]["rows"] if "ms" in r}
    curve = [(r["seconds"], r["top-5"]) for r in found["headline"]["rows"] if r["method"].startswith("GC")]
    ours = next(r for r in found["headline"]["rows"] if r["method"].startswith("PudNet"))
    at = next((i for i in range(1, len(curve)) if curve[i][1] >= ours["top-5"] > curve[i - 1][1]), None)
    ratio = "no ratio at equal accuracy"
    if at is not None:
        (s0, a0), (s1, a1) = curve[at - 1], curve[at]
        seconds = s0 * (s1 / s0) ** ((ours["top-5"] - a0) / (a1 - a0))
        ratio = f"{seconds / ours['seconds']:.0f} times faster than GC from scratch at equal top-5 accuracy"
    last = max(r["steps"] for r in found["scale"]["rows"])
    near = [
        r for r in rows if r["part"] == "scale" and r["metric"].startswith("near") and f" {last} steps" in r["dataset"]
    ]
    gained = [r["mean"] for r in near]
    copied, replayed = ms["ResNet-18: state dict copied"], ms["ResNet-18: predicted, CUDA graph"]
    return (
        f"After {ours['steps']} meta-training steps, PudNet predicts a ResNet-18 for {found['headline']['classes']} "
        f"novel classes in {ours['seconds']:.3f} s: top-5 {ours['top-5']:.1f} %, {ratio} (the abstract claims 2,305 "
        f"times). A recorded prediction takes {replayed:.2f} ms, copying the state dict {copied:.2f} ms. After {last} "
        f"steps, near gains lie between {min(gained):+.1f} and {max(gained):+.1f} points; longer schedules were not "
        "measured."
    )


PARTS: dict[str, tuple[Callable[[argparse.Namespace, float], dict[str, Any]], float]] = {
    "speed": (part_speed, 0.15), "headline": (part_headline, 0.3), "scale": (part_scale, 0.55),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="all parts together")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where the parts' files go")
    parser.add_argument("--images", type=Path, help="Tiny-ImageNet's folder, with train/ and test/")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, for a CPU")
    parser.add_argument("--label-aware", action="store_true", help="with the label-aware design in part scale")
    parser.add_argument("--only", nargs="*", choices=[*PARTS], help="these parts only")
    parser.add_argument("--merge", type=Path, metavar="DIR", help="put the files in DIR together and measure nothing")
    args = parser.parse_args()
    if args.merge:
        merge(args.merge, ROOT / "reports" / "results" / "gpu.json")
        return
    if DEVICE.type != "cuda" and not args.smoke:
        sys.exit(
            "There is no GPU. Give --smoke to try the script on the CPU; nothing that it then measures is a result."
        )
    torch.set_float32_matmul_precision("high")
    args.out.mkdir(parents=True, exist_ok=True)
    log(f"{where().get('device', 'CPU')}, torch {torch.__version__}, {args.minutes} minutes")
    left, parts = 60 * args.minutes, {n: p for n, p in PARTS.items() if not args.only or n in args.only}
    for place, (name, (part, share)) in enumerate(parts.items()):
        began, shares = time.perf_counter(), sum(s for _, s in list(parts.values())[place:])
        try:
            found = part(args, left * share / shares)
        except Exception as error:  # one part's failure must not cost the others their minutes
            import traceback

            traceback.print_exc()
            found = {"rows": [], "error": f"{type(error).__name__}: {error}"[:500]}
            failed = args.out / f"gpu_{name}.json"
            if failed.exists():  # what it had saved before stays
                found = json.loads(failed.read_text()) | {"error": found["error"]}
        save(args.out, name, found | {"part_seconds": time.perf_counter() - began})
        left -= time.perf_counter() - began
        log(f"{name}: {len(found['rows'])} rows in {time.perf_counter() - began:.0f} s")
    if args.smoke and any("error" in json.loads(p.read_text()) for p in args.out.glob("gpu_*.json")):
        sys.exit("A part failed.")


if __name__ == "__main__":
    main()
