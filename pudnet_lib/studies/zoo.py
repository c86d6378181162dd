"""The zoo: many small ConvNets, one an episode of classes, trained side by side, and kept in files that grow.

Paper, Section 1 [rec]: one ConvNet an episode, to see whether datasets and optimal parameters correlate. Our choice: a
linear head, Adam with a half-cosine schedule, no augmentation; each episode has a seed that fixes both initial weights
and order of images. G networks run as one network with G-fold channels and grouped convolutions, channels last: faster
on a processor than ``torch.func.vmap`` over stacked modules and than a loop (``benchmarks/bench_zoo.py``).

Training episodes have a source's training classes (validation ones included), held-out episodes its unseen ones;
episode number i depends on the seed and i alone. A zoo's folder is named after source, initialisation and a checksum
of configuration and images; its files hold rows in float16. A small zoo of each pack ships; what is grown lies in the
cache folder. A zoo that starts from the mean of what a PudNet predicts makes predicted and trained parameters
comparable: their filters share one order.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm.auto import tqdm

from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.core.model import Parameters, seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import load_tensors, save_tensors
from pudnet_lib.images import load_images
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.shipped import load_pudnet

Part = Literal["train", "held-out"]
PARTS: tuple[Part, Part] = ("train", "held-out")
#: Initial weights and order of images: one for all, one each, or one for all: the mean of PudNet's predictions.
Initialisation = Literal["same", "different", "predicted"]
CHUNK = 20  # episodes a file: some ten seconds of work at stake
SKETCH_PER_CLASS = 10  # an episode's first training images of each class are its sketch
MEAN_OF = 20  # training episodes whose predictions are averaged
SHIPPED = Path(__file__).parents[1] / "shipped" / "zoo"


class TrainingCancelledError(PudNetError):
    """The user stopped a long training; nothing is wrong."""


@dataclass(frozen=True)
class ZooTraining:
    """How every network is trained: ConvNet-3's width, epochs, images a step, Adam's peak rate (half a cosine to 0)."""

    width: int = 8
    epochs: int = 10
    batch_size: int = 20
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.width, self.epochs, self.batch_size) < 1 or self.learning_rate <= 0:
            raise PudNetError(f"{self}: width, epochs and batch_size must be at least 1, learning_rate above 0.")


class TrainedNetworks(NamedTuple):
    """G networks: name to (G, *shape) with the head's ``head.weight``, ``head.bias``; last loss; which are finite."""

    parameters: Parameters
    loss: Tensor
    finite: Tensor


def initial_parameters(config: ZooTraining, classes: int, channels: int, seeds: Sequence[int]) -> Parameters:
    """Draw (G, *shape) parameters as PyTorch initialises the modules; equal seeds give equal parameters."""
    drawn: dict[int, Parameters] = {}
    for seed in set(seeds):
        with seeded(seed):
            target = build_target(TargetConfig("convnet3", config.width, channels))
            modules = {"": target, "head.": nn.Linear(config.width, classes)}
        drawn[seed] = {p + n: t.detach() for p, m in modules.items() for n, t in m.named_parameters()}
    return {name: torch.stack([drawn[seed][name] for seed in seeds]) for name in drawn[seeds[0]]}


def image_orders(config: ZooTraining, images: int, seeds: Sequence[int]) -> Tensor:
    """Draw the order of images, a permutation an epoch, (G, epochs, M) int64; equal seeds give equal orders."""
    generators = {seed: torch.Generator().manual_seed(seed) for seed in set(seeds)}
    drawn = {s: torch.stack([torch.randperm(images, generator=g) for _ in range(config.epochs)])
             for s, g in generators.items()}  # fmt: skip
    return torch.stack([drawn[seed] for seed in seeds])


def grouped_logits(parameters: Parameters, images: Tensor) -> Tensor:
    """Run G ConvNet-3 with heads on (G, N, C, H, W) normalised images to (G, N, K); batch norms on own statistics."""
    g, n = images.shape[:2]
    maps = images.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)  # (N, G·C, H, W)
    for block in range(3):
        weight, scale, shift = (parameters[f"blocks.{block}.{t}"] for t in ("0.weight", "1.weight", "1.bias"))
        maps = F.conv2d(maps, weight.flatten(0, 1), padding=1, groups=g)  # (N, G·width, H, W)
        maps = F.batch_norm(maps, None, None, scale.flatten(), shift.flatten(), training=True)
        maps = F.relu(F.max_pool2d(maps, 2))  # this order: the same result, a quarter of the ReLUs
    features = maps.mean((2, 3)).view(n, g, -1).transpose(0, 1)  # (G, N, width)
    return torch.baddbmm(parameters["head.bias"][:, None], features, parameters["head.weight"].transpose(1, 2))


def train_networks(
    images: Tensor, labels: Tensor, config: ZooTraining, seeds: Sequence[int], dtype: torch.dtype = torch.float32,
    keep_going: Callable[[], bool] | None = None,  # asked before every epoch; False cancels
    start: Parameters | None = None,  # initial parameters for all episodes; what it lacks (the head) stays random
    at_once: int | None = None,  # side by side: five on a processor (more leave its cache), all on a GPU
) -> TrainedNetworks:  # fmt: skip
    """Train G networks on (G, M, C, H, W) uint8 images; each ends where a plain loop would have ended."""
    (episodes, m), device = images.shape[:2], images.device
    size = at_once or (5 if device.type == "cpu" else episodes)
    if episodes > size:
        how = dtype, keep_going, start, size
        blocks = zip(images.split(size), range(0, episodes, size), strict=True)
        parts = [train_networks(block, labels, config, seeds[i : i + size], *how) for block, i in blocks]
        parameters = {name: torch.cat([part.parameters[name] for part in parts]) for name in parts[0].parameters}
        return TrainedNetworks(parameters, torch.cat([p.loss for p in parts]), torch.cat([p.finite for p in parts]))
    pixels = normalise(images.flatten(0, 1)).unflatten(0, (episodes, m)).to(dtype)
    initial = initial_parameters(config, int(labels.max()) + 1, images.shape[2], seeds)
    initial |= {name: t.expand(episodes, *t.shape).clone() for name, t in (start or {}).items()}
    parameters = {name: t.to(device, dtype).requires_grad_() for name, t in initial.items()}
    orders = image_orders(config, m, seeds).to(device)
    optimiser = torch.optim.Adam(parameters.values(), config.learning_rate)
    rows, labels = torch.arange(episodes, device=device)[:, None], labels.to(device)
    schedule = CosineAnnealingLR(optimiser, config.epochs * math.ceil(m / config.batch_size))
    finite, loss = torch.ones(episodes, dtype=torch.bool, device=device), torch.zeros(episodes, device=device)
    for epoch in range(config.epochs):
        if keep_going is not None and not keep_going():
            raise TrainingCancelledError("Training of the zoo was cancelled.")
        loss = torch.zeros(episodes, device=device, dtype=dtype)
        for part in orders[:, epoch].split(config.batch_size, 1):  # (G, B)
            logits = grouped_logits(parameters, pixels[rows, part])
            losses = F.cross_entropy(logits.transpose(1, 2), labels[part], reduction="none").mean(1)  # (G,)
            optimiser.zero_grad(set_to_none=True)
            losses.sum().backward()  # an episode's loss reaches its own parameters only
            optimiser.step()
            schedule.step()
            loss += losses.detach() * part.shape[1] / m
        finite &= loss.isfinite()
    trained = {name: t.detach() for name, t in parameters.items()}
    for tensor in trained.values():
        finite &= tensor.flatten(1).isfinite().all(1)
    return TrainedNetworks(trained, loss, finite)


def accuracies(parameters: Parameters, images: Tensor, labels: Tensor) -> Tensor:
    """Accuracy of G networks on (G, N, C, H, W) uint8 in %, (G,); batch norms on these images' own statistics."""
    pixels = normalise(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    with torch.no_grad():
        guesses = grouped_logits(parameters, pixels.to(parameters["head.bias"].dtype)).argmax(2)
    return 100 * (guesses == labels.to(images.device)).float().mean(1)


class ZooEpisodes:
    """Draws the episodes of one source, from its training and test images; refuses where classes are too few."""

    def __init__(self, config: ZooConfig, images: tuple[ImageDataset, ImageDataset] | None = None) -> None:
        self.train, self.test = train, test = images or source_images(config.source)[:2]
        self.per_class, self.test_per_class = per_class, test_per_class = config.per_class, config.test_per_class
        self.seed = config.seed
        self.indices = lru_cache(maxsize=1 << 16)(self._indices)
        self._train_ids, self._test_ids = ([ids.numpy() for ids in d.indices_by_class()] for d in (train, test))
        split = default_class_split(train.name, train.num_classes)
        parts = ((*split.train, *split.validation), split.unseen)
        counts = [(len(m), len(n)) for m, n in zip(self._train_ids, self._test_ids, strict=True)]
        enough = [c for c, (m, n) in enumerate(counts) if m >= per_class and n >= test_per_class]
        self.classes = {p: np.intersect1d(enough, classes) for p, classes in zip(PARTS, parts, strict=True)}
        fewest = min(len(c) for c in self.classes.values())
        self.ways = config.ways or (5 if fewest >= 10 else 3)
        if fewest < self.ways or self.ways < 2:
            numbers = " and ".join(str(len(classes)) for classes in self.classes.values())
            need = f"that many training and held-out classes with {per_class} training and {test_per_class} test images"
            wanted = f"{train.name}: episodes of {self.ways} classes need {need} each"
            raise PudNetError(f"{wanted}; there are {numbers}. Take fewer ways or images.")
        self.labels = torch.arange(self.ways).repeat_interleave(per_class)  # the same for every episode
        self.test_labels = torch.arange(self.ways).repeat_interleave(test_per_class)

    def _indices(self, part: Part, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw an episode's classes (K,), training image ids (M,) and test image ids (N,); cached as ``indices``."""
        rng = np.random.default_rng((self.seed, PARTS.index(part), index))
        classes = np.sort(rng.choice(self.classes[part], self.ways, replace=False))
        train = [rng.choice(self._train_ids[c], self.per_class, replace=False) for c in classes]
        test = [rng.choice(self._test_ids[c], self.test_per_class, replace=False) for c in classes]
        return classes, np.concatenate(train), np.concatenate(test)

    def drawn(self, part: Part, indices: np.ndarray) -> list[np.ndarray]:
        """Each episode's classes (G, K), and indices of its training (G, M) and test images (G, N)."""
        return [np.stack(rows) for rows in zip(*(self.indices(part, int(i)) for i in indices), strict=True)]

    def images(self, part: Part, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Training images (G, M, C, H, W) and test images (G, N, C, H, W), uint8."""
        _, train, test = map(torch.from_numpy, self.drawn(part, indices))
        return self.train.images[train], self.test.images[test]

    def names(self, part: Part, index: int) -> tuple[str, ...]:
        """Names of an episode's classes."""
        return tuple(self.train.class_names[c] for c in self.indices(part, index)[0])

    def dataset(self, part: Part, index: int) -> ImageDataset:
        """An episode's training images as a dataset of their own."""
        name = f"{self.train.name}, episode {index}"
        return ImageDataset(self.images(part, np.array([index]))[0][0], self.labels, self.names(part, index), name)


@lru_cache(maxsize=8)
def source_images(source: str) -> tuple[ImageDataset, ImageDataset, str]:
    """Load a source's training and test images (RGB, 32 pixels) and their fingerprint."""
    train, test = (load_images(source, split=split) for split in ("train", "test"))  # type: ignore[arg-type]
    return train, test, _checksum(t.numpy().tobytes() for data in (train, test) for t in (data.images, data.labels))


def _checksum(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def predict_episodes(episodes: ZooEpisodes, part: Part, rows: np.ndarray) -> Parameters:
    """Predict the parameters of episodes, one after the other, each in one forward pass; name to (G, *shape)."""
    model = load_pudnet()
    ids = torch.from_numpy(episodes.drawn(part, rows)[1]).unflatten(1, (episodes.ways, -1))[:, :, :SKETCH_PER_CLASS]
    labels = torch.arange(episodes.ways).repeat_interleave(ids.shape[2])
    with torch.no_grad():
        drawn = [model(episodes.train.images[sketch.flatten()], labels) for sketch in ids]
    return {name: torch.stack([p[name].detach() for p in drawn]) for name in drawn[0]}


def predicted_mean(episodes: ZooEpisodes, width: int) -> Parameters:
    """Average the predictions for the first training episodes; refuses another width than the predictor's."""
    if width != (own := load_pudnet().config.target.width):
        needs = f"a zoo that starts from its predictions needs training.width = {own}"
        raise PudNetError(f"The shipped PudNet predicts a ConvNet-3 of width {own}, not {width}; {needs}.")
    return {name: t.mean(0) for name, t in predict_episodes(episodes, "train", np.arange(MEAN_OF)).items()}


@dataclass(frozen=True)
class ZooConfig:
    """Which zoo; every field is part of its folder's name."""

    source: str = "fashion"
    initialisation: Initialisation = "same"
    ways: int = 0
    per_class: int = 20
    test_per_class: int = 4
    training: ZooTraining = field(default_factory=ZooTraining)
    seed: int = 0


class ZooPart(NamedTuple):
    """One part's networks; what diverged is left out."""

    parameters: np.ndarray  # (G, P) in the target's order
    indices: np.ndarray  # (G,) episodes
    accuracy: np.ndarray  # (G,) in %
    diverged: int
    seconds: float  # of training all episodes


class Zoo(NamedTuple):
    """A loaded zoo: its configuration, episodes, and both parts."""

    config: ZooConfig
    episodes: ZooEpisodes
    train: ZooPart
    held_out: ZooPart

    def part(self, part: Part) -> ZooPart:
        """The networks of one part."""
        return self.train if part == "train" else self.held_out


def zoo_name(config: ZooConfig) -> str:
    """Name a zoo's folder; another configuration, or other images, give another name."""
    train, _, fingerprint = source_images(config.source)
    facts = asdict(config) | {"source": train.name, "images": fingerprint}
    if config.initialisation == "predicted":
        state = sorted(load_pudnet().state_dict().items())
        which = _checksum(name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in state)
        facts |= {"predictor": which, "mean of": MEAN_OF, "sketch": SKETCH_PER_CLASS}
    digest = _checksum([json.dumps(facts, sort_keys=True).encode()])[:10]
    return f"{train.name}-{config.initialisation}-{digest}".replace("/", "_").replace(" ", "_")


def parameter_shapes(config: ZooConfig) -> dict[str, torch.Size]:
    """Names and shapes of the target's tensors, in the order in which rows hold them."""
    target = build_target(TargetConfig("convnet3", config.training.width))
    return {name: tensor.shape for name, tensor in target.named_parameters()}


def load_zoo(
    config: ZooConfig, train: int, held_out: int,
    progress: Callable[[int, int], bool] | None = None,  # (trained in this call, to train) → go on? By default a bar
    root: Path | None = None,  # where it grows; by default the cache folder
) -> Zoo:  # fmt: skip
    """Load a zoo of so many training and held-out episodes, less those that diverged, and train what it lacks."""
    if min(train, held_out) < 2:
        raise PudNetError(f"A zoo of {train} training and {held_out} held-out episodes tells nothing; take at least 2.")
    folder = (cache_folder() / "zoo" if root is None else root) / zoo_name(config)
    episodes, wanted = ZooEpisodes(config), dict(zip(PARTS, (train, held_out), strict=True))
    there = {part: sum(stop - start for start, stop, _ in _chunks(folder, part)) for part in PARTS}
    starts = [(part, start) for part in PARTS for start in range(there[part], wanted[part], CHUNK)]
    missing = [(part, start, min(start + CHUNK, wanted[part])) for part, start in starts]
    total, done = sum(stop - start for _, start, stop in missing), 0
    mean = predicted_mean(episodes, config.training.width) if missing and config.initialisation == "predicted" else None
    quiet = total == 0 or progress is not None
    with tqdm(total=total, desc=f"networks for {config.source}", disable=quiet, leave=False) as bar:
        tell = progress or (lambda done, _total: bar.update(done - bar.n) is not False)
        for part, start, stop in missing:
            try:
                tensors = _train_chunk(config, episodes, part, range(start, stop), mean, partial(tell, done, total))
            except TrainingCancelledError as error:
                kept = f"{done} of {total} episodes are kept; the next run goes on there."
                raise TrainingCancelledError(f"{error} {kept}") from None
            save_tensors(folder / f"{part}-{start:06d}-{stop:06d}.safetensors", tensors, {"zoo": asdict(config)})
            done += stop - start
            tell(done, total)
    return Zoo(config, episodes, *(_read(folder, part, wanted[part], config) for part in PARTS))


def _train_chunk(
    config: ZooConfig, episodes: ZooEpisodes, part: Part, rows: range, mean: Parameters | None,
    go_on: Callable[[], bool],
) -> dict[str, Tensor]:  # fmt: skip
    began = time.perf_counter()
    images, test = episodes.images(part, np.array(rows))
    seeds = [config.seed] * len(rows)
    if config.initialisation == "different":
        drawn = np.random.default_rng((config.seed, 7, PARTS.index(part))).permutation(1_000_000)
        seeds = drawn[rows.start : rows.stop].tolist()
    trained = train_networks(images, episodes.labels, config.training, seeds, keep_going=go_on, start=mean)
    halves = torch.cat([trained.parameters[name].flatten(1) for name in parameter_shapes(config)], 1).half()
    finite = trained.finite & halves.isfinite().all(1)
    right = accuracies(trained.parameters, test, episodes.test_labels)
    took = torch.full((len(rows),), (time.perf_counter() - began) / len(rows))
    return {"parameters": halves, "finite": finite, "accuracy": right, "loss": trained.loss, "seconds": took}


def _chunks(folder: Path, part: Part) -> list[tuple[int, int, Path]]:
    """Files of a part in order, shipped and grown; a gap ends the list, an overlap is skipped over."""
    paths = [path for place in (SHIPPED / folder.name, folder) for path in place.glob(f"{part}-*.safetensors")]
    found = sorted((int(start), -int(stop), path) for path in paths for start, stop in [path.stem.split("-")[-2:]])
    chunks, end = [], 0
    for start, negative_stop, path in found:
        if start <= end < -negative_stop:
            chunks.append((end - start, -negative_stop - start, path))
            end = -negative_stop
    return chunks


def read_tensors(folder: Path, part: Part, rows: int) -> dict[str, Tensor]:
    """Read the first ``rows`` rows of a part, from files whose checksums are right."""
    pieces: dict[str, list[Tensor]] = {}
    for first, last, path in _chunks(folder, part):
        take = min(last - first, rows)
        if take <= 0:
            break
        try:
            for name, tensor in load_tensors(path)[0].items():
                pieces.setdefault(name, []).append(tensor[first : first + take])
        except PudNetError as error:
            raise PudNetError(f"The zoo's file {path} is damaged ({error}); delete it to train it anew.") from None
        rows -= take
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _read(folder: Path, part: Part, rows: int, config: ZooConfig) -> ZooPart:
    tensors = read_tensors(folder, part, rows)
    finite = tensors["finite"].bool().numpy()
    if finite.sum() < max(2, rows // 2):
        which = f"{rows - int(finite.sum())} of {rows} {part} episodes"
        lower = f"lower training.learning_rate (now {config.training.learning_rate:g})"
        raise PudNetError(f"{config.source}: training diverged for {which}; {lower}.")
    parameters, accuracy = (tensors[n].numpy()[finite] for n in ("parameters", "accuracy"))
    lost, seconds = int((~finite).sum()), float(tensors["seconds"].sum())
    return ZooPart(parameters.astype(np.float32), np.flatnonzero(finite), accuracy, lost, seconds)
