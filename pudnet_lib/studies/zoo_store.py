"""The zoo on disk: episodes of classes, and trained parameters, an episode a row, in files that grow and are reused.

Our choice. Training episodes are drawn from a source's training classes (validation ones included), held-out episodes
from its unseen classes; episode number i is a function of the seed and i alone. A zoo's folder is named after its
source, its initialisation and a checksum of its configuration and of the images; its files hold rows in float16
(safetensors, written whole or not at all), so that an interrupted run goes on where it was cut off. A small zoo of each
pack ships; what is grown lies in the cache folder. A zoo that starts from the mean of what a PudNet predicts makes
predicted and trained parameters comparable: from a random start the filters would stand in another order.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import Parameters
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import load_tensors, save_tensors
from pudnet_lib.images import load_images
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.studies.zoo import TrainingCancelledError, ZooTraining, accuracies, train_networks

Part = Literal["train", "held-out"]
PARTS: tuple[Part, Part] = ("train", "held-out")
Initialisation = Literal["same", "different", "predicted"]
CHUNK = 20  # episodes a file: some ten seconds of work at stake
SKETCH_PER_CLASS = 10  # an episode's first training images of each class are its sketch
MEAN_OF = 20  # training episodes whose predictions are averaged
SHIPPED = Path(__file__).parents[1] / "shipped" / "zoo"


class ZooEpisodes:
    """Draws the episodes of one source, from its training and test images; refuses where classes are too few."""

    def __init__(
        self, train: ImageDataset, test: ImageDataset, ways: int, per_class: int, test_per_class: int, seed: int
    ) -> None:
        self.train, self.test, self.seed = train, test, seed
        self.per_class, self.test_per_class = per_class, test_per_class
        self.indices = lru_cache(maxsize=1 << 16)(self._indices)
        self._train_ids, self._test_ids = ([ids.numpy() for ids in d.indices_by_class()] for d in (train, test))
        split = default_class_split(train.name, train.num_classes)
        parts = ((*split.train, *split.validation), split.unseen)
        self.classes = {part: self._enough(classes) for part, classes in zip(PARTS, parts, strict=True)}
        fewest = min(len(c) for c in self.classes.values())
        self.ways = ways or (5 if fewest >= 10 else 3)
        if fewest < self.ways or self.ways < 2:
            raise PudNetError(
                f"{train.name}: episodes of {self.ways} classes need that many training and held-out classes with "
                f"{per_class} training and {test_per_class} test images each; there are "
                f"{len(self.classes['train'])} and {len(self.classes['held-out'])}. Take fewer ways or images."
            )
        self.labels = torch.arange(self.ways).repeat_interleave(per_class)  # the same for every episode
        self.test_labels = torch.arange(self.ways).repeat_interleave(test_per_class)

    def _enough(self, classes: tuple[int, ...]) -> np.ndarray:
        ids = ((c, len(self._train_ids[c]), len(self._test_ids[c])) for c in sorted(classes))
        return np.array([c for c, m, n in ids if m >= self.per_class and n >= self.test_per_class], dtype=np.int64)

    def _indices(self, part: Part, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw an episode's classes (K,), training image ids (M,) and test image ids (N,); cached as ``indices``."""
        rng = np.random.default_rng((self.seed, PARTS.index(part), index))
        classes = np.sort(rng.choice(self.classes[part], self.ways, replace=False))
        train = [rng.choice(self._train_ids[c], self.per_class, replace=False) for c in classes]
        test = [rng.choice(self._test_ids[c], self.test_per_class, replace=False) for c in classes]
        return classes, np.concatenate(train), np.concatenate(test)

    def class_sets(self, part: Part, indices: np.ndarray) -> np.ndarray:
        """Name each episode's set of classes by its indices, (G, K)."""
        return np.stack([self.indices(part, int(i))[0] for i in indices])

    def image_ids(self, part: Part, indices: np.ndarray) -> np.ndarray:
        """Indices of each episode's training images, (G, M)."""
        return np.stack([self.indices(part, int(i))[1] for i in indices])

    def images(self, part: Part, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Training images (G, M, C, H, W) and test images (G, N, C, H, W), uint8."""
        test = np.stack([self.indices(part, int(i))[2] for i in indices])
        train = torch.from_numpy(self.image_ids(part, indices))
        return self.train.images[train], self.test.images[torch.from_numpy(test)]

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
    digest = hashlib.sha256()
    for data in (train, test):
        digest.update(data.images.numpy().tobytes())
        digest.update(data.labels.numpy().tobytes())
    return train, test, digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def _predictor_state() -> tuple[int, str]:
    model, digest = load_pudnet(), hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return model.config.target.width, digest.hexdigest()[:16]


def predictor_width() -> int:
    """Width of the ConvNet-3 that the shipped predictor predicts."""
    return _predictor_state()[0]


def predict_episodes(episodes: ZooEpisodes, part: Part, rows: np.ndarray) -> Parameters:
    """Predict the parameters of episodes, one after the other, each in one forward pass; name to (G, *shape)."""
    model = load_pudnet()
    ids = torch.from_numpy(episodes.image_ids(part, rows)).unflatten(1, (episodes.ways, -1))[:, :, :SKETCH_PER_CLASS]
    labels = torch.arange(episodes.ways).repeat_interleave(ids.shape[2])
    with torch.no_grad():
        drawn = [model(episodes.train.images[sketch.flatten()], labels) for sketch in ids]
    return {name: torch.stack([p[name].detach() for p in drawn]) for name in drawn[0]}


def predicted_mean(episodes: ZooEpisodes, width: int) -> Parameters:
    """Average the predictions for the first training episodes; refuses another width than the predictor's."""
    if width != predictor_width():
        raise PudNetError(
            f"The shipped PudNet predicts a ConvNet-3 of width {predictor_width()}, not {width}; a zoo that starts "
            f"from its predictions needs training.width = {predictor_width()}."
        )
    return {name: t.mean(0) for name, t in predict_episodes(episodes, "train", np.arange(MEAN_OF)).items()}


@dataclass(frozen=True)
class ZooConfig:
    """Which zoo; every field is part of its folder's name.

    ``"same"`` initial weights and order of images for all episodes, or ``"different"`` ones; ``"predicted"`` is the
    same for all, the mean of what the shipped PudNet predicts for training episodes.
    """

    source: str = "fashion"
    initialisation: Initialisation = "same"
    ways: int = 0
    per_class: int = 20
    test_per_class: int = 4
    training: ZooTraining = field(default_factory=ZooTraining)
    seed: int = 0


@dataclass(frozen=True)
class ZooPart:
    """One part's networks: (G, P) parameters in the target's order, episodes, accuracy in %; what diverged is left out.

    ``seconds`` is the time that training all episodes took.
    """

    parameters: np.ndarray
    indices: np.ndarray
    accuracy: np.ndarray
    diverged: int
    seconds: float


@dataclass(frozen=True)
class Zoo:
    """A loaded zoo: its configuration, episodes, and both parts."""

    config: ZooConfig
    episodes: ZooEpisodes
    train: ZooPart
    held_out: ZooPart

    def part(self, part: Part) -> ZooPart:
        """The networks of one part."""
        return self.train if part == "train" else self.held_out


def zoo_episodes(config: ZooConfig) -> ZooEpisodes:
    """Build the sampler of a zoo's episodes."""
    train, test, _ = source_images(config.source)
    return ZooEpisodes(train, test, config.ways, config.per_class, config.test_per_class, config.seed)


def zoo_name(config: ZooConfig) -> str:
    """Name a zoo's folder; another configuration, or other images, give another name."""
    train, _, fingerprint = source_images(config.source)
    facts = asdict(config) | {"source": train.name, "images": fingerprint}
    if config.initialisation == "predicted":
        facts |= {"predictor": _predictor_state()[1], "mean of": MEAN_OF, "sketch": SKETCH_PER_CLASS}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    return f"{train.name}-{config.initialisation}-{digest}".replace("/", "_").replace(" ", "_")


def parameter_shapes(config: ZooConfig) -> dict[str, torch.Size]:
    """Names and shapes of the target's tensors, in the order in which rows hold them."""
    target = build_target(TargetConfig("convnet3", config.training.width))
    return {name: tensor.shape for name, tensor in target.named_parameters()}


def load_zoo(
    config: ZooConfig,
    train: int,
    held_out: int,
    progress: Callable[[int, int], bool] | None = None,  # (trained in this call, to train) → go on? By default a bar
    root: Path | None = None,  # where it grows; by default the cache folder
) -> Zoo:
    """Load a zoo of so many training and held-out episodes, less those that diverged, and train what it lacks."""
    if min(train, held_out) < 2:
        raise PudNetError(f"A zoo of {train} training and {held_out} held-out episodes tells nothing; take at least 2.")
    folder = (cache_folder() / "zoo" if root is None else root) / zoo_name(config)
    episodes, wanted = zoo_episodes(config), dict(zip(PARTS, (train, held_out), strict=True))
    missing = [
        (part, start, min(start + CHUNK, wanted[part]))
        for part in PARTS
        for start in range(sum(b - a for a, b, _ in _chunks(folder, part)), wanted[part], CHUNK)
    ]
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
            write_rows(folder, part, start, stop, tensors, config)
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
    return {
        "parameters": halves,
        "finite": trained.finite & halves.isfinite().all(1),
        "accuracy": accuracies(trained.parameters, test, episodes.test_labels),
        "loss": trained.loss,
        "seconds": torch.full((len(rows),), (time.perf_counter() - began) / len(rows)),
    }


def write_rows(folder: Path, part: Part, start: int, stop: int, tensors: dict[str, Tensor], config: ZooConfig) -> None:
    """Write rows ``start`` to ``stop`` of a part: the whole file, or none."""
    save_tensors(folder / f"{part}-{start:06d}-{stop:06d}.safetensors", tensors, {"zoo": asdict(config)})


def _chunks(folder: Path, part: Part) -> list[tuple[int, int, Path]]:
    """Files of a part in order, shipped and grown; a gap ends the list, an overlap is skipped over."""
    found = sorted(
        (int(path.stem.split("-")[-2]), -int(path.stem.split("-")[-1]), path)
        for place in (SHIPPED / folder.name, folder)
        if place.is_dir()
        for path in place.glob(f"{part}-*.safetensors")
    )
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
            raise PudNetError(
                f"The zoo's file {path} is damaged ({error}); delete it, and it is trained anew."
            ) from None
        rows -= take
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _read(folder: Path, part: Part, rows: int, config: ZooConfig) -> ZooPart:
    tensors = read_tensors(folder, part, rows)
    finite = tensors["finite"].bool().numpy()
    if finite.sum() < max(2, rows // 2):
        raise PudNetError(
            f"{config.source}: training diverged for {rows - int(finite.sum())} of {rows} {part} episodes; "
            f"lower training.learning_rate (now {config.training.learning_rate:g})."
        )
    kept, lost = (tensors[n].numpy()[finite] for n in ("parameters", "accuracy")), int((~finite).sum())
    parameters, accuracy = kept
    seconds = float(tensors["seconds"].sum())
    return ZooPart(parameters.astype(np.float32), np.flatnonzero(finite), accuracy, lost, seconds)
