"""The predictor for photographs: a plain classifier of many classes first, episodes after it, then one file of the kit.

    python scripts/train_photographs.py --out runs/photographs --seed 0 [--start FILE]
    python scripts/train_photographs.py --out DIR --smoke                      # seconds, on the embedded packs alone

Tiny-ImageNet must lie below PUDNET_DATA; its 40 novel classes are left out. On one core of a processor with 16-bit
matrix units a step takes 0.24 seconds, and all of them 26 minutes; every 100 are saved, and a run goes on. What ships
began with a network that an earlier version of this script had trained on an NVIDIA H100 for 18 seconds (``--start``):
2,500 steps of 512 images of 64 pixels. ``scripts/measure_photographs.py`` measures the result.

Our choice throughout. Photographs are Tiny-ImageNet's; emoji, fashion and glyphs stand beside them in every batch, so
that shape is learned as well as texture. The result is a shared network whose last block is refined on the labelled
images; a hypernetwork was not trained on top: elsewhere it adds nothing to that (docs/conditioning.md).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.heads import class_means, cosine_logits
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.export.models import load_model, save
from pudnet_lib.files import load_tensors, save_tensors
from pudnet_lib.images import load_images
from pudnet_lib.images.pool import default_class_split

TARGET = TargetConfig("resnet18", width=32, channels=3, stem="imagenet")  # 2.8 M parameters
SIZE = 64
CROP = 56  # photographs' crops: things look larger in crops than in whole pictures (FixRes, arXiv 1906.06423)
REFINE = LastBlock(choose_steps=False)  # choosing their number takes three times as long
STEPS, BATCH, RATE, DECAY, WARM_UP, SCALE, CUT_SHARE = 6_000, 256, 0.1, 5e-4, 0.05, 16.0, 0.5
EPISODES, EPISODE_RATE, SCALE_RATE = 250, 0.02, 0.05
KINDS = {
    "photographs": 0.8125,
    "emoji": 0.09375,
    "fashion": 0.046875,
    "glyphs": 0.046875,
}  # shares of a batch, on average
EPISODE_KINDS = {"photographs": 0.6, "emoji": 0.2, "fashion": 0.1, "glyphs": 0.1}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MIXED = DEVICE.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))  # 16 bits are slow elsewhere
SAVE_EVERY = 100


def pool(smoke: bool) -> dict[str, tuple[Tensor, Tensor, int]]:
    """Each kind's images (N, 3, 64, 64) on the device, labels (N,) and number of classes."""
    found, size = {}, 32 if smoke else SIZE
    for kind in ("emoji", "fashion", "glyphs") if smoke else KINDS:
        name = "tiny-imagenet" if kind == "photographs" else kind
        data = load_images(name, split="all" if name == "tiny-imagenet" else "train", size=size, channels=3)
        split = default_class_split(name, data.num_classes)
        # Of the packs only the training classes: their validation classes selected; all novel classes measure.
        data = data.select_classes(sorted(split.train if kind != "photographs" else (*split.train, *split.validation)))
        found[kind] = (data.images.to(DEVICE), data.labels.to(DEVICE), data.num_classes)
    return found


def uniform(n: int, low: float, high: float) -> Tensor:
    return torch.rand(n, device=DEVICE) * (high - low) + low


def augmented(images: Tensor, photo: bool, area: float, side: int) -> Tensor:
    """Random crops, flips, some colour, gray and coarseness: (N, 3, H, W) uint8 to (N, 3, side, side) in [0, 1]."""
    n = len(images)
    share, ratio = uniform(n, area, 1.0 if photo else 1.1), torch.exp(uniform(n, math.log(3 / 4), math.log(4 / 3)))
    w, h = (share * ratio).sqrt().clamp_max(1), (share / ratio).sqrt().clamp_max(1)
    flip, turn = torch.where(torch.rand(n, device=DEVICE) < 0.5, -1.0, 1.0), uniform(n, -0.15, 0.15) * (not photo)
    x0, y0 = uniform(n, -1, 1) * (1 - w), uniform(n, -1, 1) * (1 - h)
    rows = [w * flip * turn.cos(), -h * turn.sin(), x0, w * flip * turn.sin(), h * turn.cos(), y0]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), [n, 3, side, side], align_corners=False)
    x = F.grid_sample(images.float() / 255, grid, "bilinear", "reflection", align_corners=False)

    gray, column = x.mean(1, keepdim=True), (n, 1, 1, 1)
    colour = uniform(n, 0.5, 1.5) * (torch.rand(n, device=DEVICE) >= (0.15 if photo else 0.1))
    x = gray + (x - gray) * colour.view(column)
    mix = torch.eye(3, device=DEVICE) + 0.06 * torch.randn(n, 3, 3, device=DEVICE)
    x = torch.einsum("nij,njhw->nihw", mix, x)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * uniform(n, 0.6, 1.4).view(column) + mean * uniform(n, 0.65, 1.35).view(column)
    if not photo:
        x = torch.where((torch.rand(n, device=DEVICE) < 0.2).view(column), 1 - x, x)
    coarse = F.interpolate(F.avg_pool2d(x, 2), size=(side, side), mode="bilinear", align_corners=False)
    return torch.where((torch.rand(n, device=DEVICE) < 0.25).view(column), coarse, x).clamp(0, 1)


class _SmallMaps(torch.autograd.Function):
    """A 3 x 3 convolution whose weights' gradient is one product: on a CPU, and 4 x 4 maps, several times as fast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (x, weight), s = ctx.saved_tensors, ctx.stride
        given = torch.nn.grad.conv2d_input(x.shape, weight, grad, s, 1)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (N, h + 2, w + 2, C)
        n, row, column, one = padded.stride()
        shape = (len(x), *grad.shape[2:], 3, 3, x.shape[1])
        patches = padded.as_strided(shape, (n, s * row, s * column, row, column, one)).flatten(3).flatten(0, 2)
        product = grad.permute(0, 2, 3, 1).flatten(0, 2).T @ patches  # (C', 9 C)
        return given, product.view(-1, 3, 3, x.shape[1]).permute(0, 3, 1, 2), None


class _SmallMapsConv(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x, weight = x.bfloat16(), weight.bfloat16()
        found: Tensor = _SmallMaps.apply(x, weight, self.stride[0])
        return found


class Learner(nn.Module):
    """The network, and a cosine head over all classes of all kinds."""

    def __init__(self, target: TargetConfig, classes: int) -> None:
        super().__init__()
        self.net = build_target(target)
        for name, module in self.net.named_modules():
            small = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name[:6] in ("layer3", "layer4")
            if small and DEVICE.type == "cpu":
                module.__class__ = _SmallMapsConv
        self.head = nn.Parameter(F.normalize(torch.randn(classes, int(self.net.feature_dim)), dim=1))
        self.turns = nn.Linear(int(self.net.feature_dim), 4)  # which way up a turned image stands
        self.scale = nn.Parameter(torch.tensor(10.0))  # of the episodes; the classifier's is fixed

    def features(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] to features (N, F)."""
        with torch.autocast(DEVICE.type, torch.bfloat16) if MIXED else nullcontext():
            found: Tensor = self.net(normalise(images).contiguous(memory_format=torch.channels_last))
        return found.float()


def classify(learner: Learner, images: dict[str, Any], first: dict[str, int], batch: int) -> Tensor:
    """The loss of one batch: photographs, and one of the packs, each with its own batch statistics."""
    packs = [kind for kind in images if kind != "photographs"]
    chosen = packs[int(torch.multinomial(torch.tensor([KINDS[kind] for kind in packs]), 1))]
    photos = round(KINDS["photographs"] * batch) if "photographs" in images else 0
    parts = {"photographs": photos, chosen: batch - photos} if photos else {chosen: batch}
    loss = torch.zeros((), device=DEVICE)
    for kind, count in parts.items():
        data, labels, _ = images[kind]
        rows, photo = torch.randint(len(data), (count,), device=DEVICE), kind == "photographs"
        crops = augmented(data[rows], photo, 0.25 if photo else 0.6, CROP if photo else data.shape[-1])
        share, own = 1.0, labels[rows] + first[kind]
        turned = len(crops) // 4 if photo else 0
        for way in range(4):
            crops[way:turned:4] = crops[way:turned:4].rot90(way, (2, 3))
        if photo and torch.rand(()) < CUT_SHARE:
            crops[turned:], share = cut_and_mixed(crops[turned:])
        found = learner.features(crops)
        logits = SCALE * F.normalize(found, dim=1) @ F.normalize(learner.head, dim=1).T
        other = torch.cat([own[:turned], own[turned:].flip(0)])
        mixed = share * F.cross_entropy(logits, own) + (1 - share) * F.cross_entropy(logits, other)
        loss = loss + count / batch * mixed
        if turned:
            ways = torch.arange(turned, device=DEVICE) % 4
            loss = loss + turned / batch * F.cross_entropy(learner.turns(found[:turned]), ways)
    return loss


def cut_and_mixed(crops: Tensor) -> tuple[Tensor, float]:
    """Images (N, C, H, W) with a box of another one each, and the share that stays (CutMix, arXiv 1905.04899)."""
    side = crops.shape[-1]
    reach = round(side * math.sqrt(float(torch.rand(()))))
    top, left = (int(torch.randint(side - reach + 1, ())) for _ in "yx")
    found = crops.clone()
    found[:, :, top : top + reach, left : left + reach] = crops.flip(0)[:, :, top : top + reach, left : left + reach]
    return found, 1 - (reach / side) ** 2


def episode(learner: Learner, images: dict[str, Any], ways: int = 5, support: int = 20, query: int = 15) -> Tensor:
    """The loss of one episode: cosine of the queries to the class means of the support."""
    kinds = list(images)
    kind = kinds[int(torch.multinomial(torch.tensor([EPISODE_KINDS[k] for k in kinds]), 1))]
    data, labels, count = images[kind]
    ways, photo = min(ways, count), kind == "photographs"
    rows = []
    for label in torch.randperm(count)[:ways].tolist():
        own = torch.nonzero(labels == label).flatten()
        rows.append(own[torch.randperm(len(own), device=DEVICE)[: support + query].repeat(35)[: support + query]])
    ids = torch.stack(rows)  # (K, support + query)
    both = torch.cat([ids[:, :support].flatten(), ids[:, support:].flatten()])
    found = learner.features(augmented(data[both], photo, 0.5, data.shape[-1]))
    own = torch.arange(ways, device=DEVICE)
    means = class_means(found[: ways * support], own.repeat_interleave(support), ways)
    logits = cosine_logits(found[ways * support :], means, learner.scale)
    return F.cross_entropy(logits, own.repeat_interleave(query))


def train(out: Path, seed: int, smoke: bool, start: Path | None = None, stop_at: int = 0) -> Path:
    """Train one network into the kit's file; a run that was cut off (``stop_at`` steps in a test) goes on."""
    name = f"base-{seed}"
    state_file, file = out / f"{name}.state.safetensors", out / f"{name}.safetensors"
    if file.is_file():
        return file
    target = TargetConfig("resnet10", 4, stem="cifar") if smoke else TARGET
    steps, episodes, batch = (6, 3, 32) if smoke else (STEPS, EPISODES, BATCH)
    images = pool(smoke)
    counts = [classes for _, _, classes in images.values()]
    first = dict(zip(images, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
    torch.manual_seed(seed)
    learner = Learner(target, sum(counts)).to(DEVICE).to(memory_format=torch.channels_last).train()
    if start:
        weights_of(learner.net, start)
    weights = [p for p in learner.parameters() if p.ndim > 1]
    rest = [p for p in learner.net.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": rest}]
    sgd = torch.optim.SGD(groups, RATE, momentum=0.9, nesterov=True)
    adam = torch.optim.Adam([learner.scale], SCALE_RATE)
    done, seconds = _load(state_file, learner, sgd, adam)
    while done < (stop_at or steps + episodes):
        began, share = time.perf_counter(), done / steps
        torch.manual_seed(1_000_003 * (seed + 1) + done)  # so that a run goes on as if nothing had happened
        plain = done < steps
        if done == steps:  # the episodes begin: no momentum of the classifier's
            sgd.state.clear()
        if not plain:
            rate = EPISODE_RATE * 0.5 * (1 + math.cos(math.pi * (done - steps) / episodes))
        elif share < WARM_UP:
            rate = RATE * share / WARM_UP
        else:
            rate = RATE * 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))
        for group in sgd.param_groups:
            group["lr"] = rate
        loss = classify(learner, images, first, batch) if plain else episode(learner, images)
        sgd.zero_grad()
        adam.zero_grad()
        loss.backward()
        sgd.step()
        if not plain:
            adam.step()
        done, seconds = done + 1, seconds + time.perf_counter() - began
        if done % SAVE_EVERY == 0 or done == stop_at:
            _save(state_file, learner, (sgd, adam), done, seconds)
            print(f"{name}: step {done} of {steps + episodes}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    if done == steps + episodes:
        device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
        facts = {"classes": sum(counts), "steps": done, "seconds": round(seconds, 1), "device": device}
        facts |= {"start": load_model(start)[1]} if start else {}
        save_model(file, learner.net.state_dict(), target, size=32 if smoke else SIZE, seed=seed, **facts)
        state_file.unlink(missing_ok=True)
    return file


def weights_of(net: nn.Module, path: Path) -> None:
    """Give a network the weights of a file that ``save_model`` wrote."""
    known = dict(net.named_parameters())
    with torch.no_grad():
        for name, tensor in load_model(path)[0].initial(torch.empty(0)).items():
            known[name].copy_(tensor)


def _save(path: Path, learner: Learner, optimisers: Any, done: int, seconds: float) -> None:
    tensors = {f"learner/{name}": tensor for name, tensor in learner.state_dict().items()}
    for place, optimiser in enumerate(optimisers):
        for i, slots in optimiser.state_dict()["state"].items():
            tensors |= {f"{place}/{i}/{slot}": tensor for slot, tensor in slots.items()}
    save_tensors(path, tensors, {"training": {"done": done, "seconds": seconds}})


def _load(path: Path, learner: Learner, *optimisers: torch.optim.Optimizer) -> tuple[int, float]:
    if not path.is_file():
        return 0, 0.0
    tensors, about = load_tensors(path)
    learner.load_state_dict({n.removeprefix("learner/"): t for n, t in tensors.items() if n.startswith("learner/")})
    for place, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for name in (n for n in tensors if n.startswith(f"{place}/")):
            _, i, slot = name.split("/")
            state.setdefault(int(i), {})[slot] = tensors[name]
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return about["training"]["done"], about["training"]["seconds"]


def save_model(path: Path, state: dict[str, Tensor], target: TargetConfig, **notes: Any) -> None:
    """Save a target network's weights as a refined shared network, in 16 bits; batch norm is the user's images' own."""
    model = SharedNetwork(SharedConfig(target, refine=REFINE))
    with torch.no_grad():
        for name, tensor in model.initial(torch.empty(0)).items():
            tensor.copy_(state[name].float())
    model.notes = notes | {"derived from": "Tiny-ImageNet (research use), and the packs emoji, fashion and glyphs"}
    save(model.half(), path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the state and the result")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="the packs alone, a narrow network, a few steps")
    parser.add_argument("--start", type=Path, help="a network that an earlier run made, to begin with")
    given = parser.parse_args(arguments)
    print(train(given.out, given.seed, given.smoke, given.start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
