"""The zoo on disk: trained parameters, an episode a row, in memory-mapped chunks; it grows and is reused.

Our choice. A zoo has a folder named after its source, its initialisation and a checksum of its configuration and of the
images; in it, files of rows in float16 (safetensors, JSON in its metadata, written whole or not at all). An interrupted
run goes on where it was cut off. A small zoo of each pack ships with the kit; what is grown lies in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from pudnet_lib.core.model import Parameters
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.studies.zoo import TrainingCancelledError, ZooTraining, accuracies, train_networks
from pudnet_lib.studies.zoo_episodes import PARTS, Part, ZooEpisodes, source_images
from pudnet_lib.studies.zoo_predicted import MEAN_OF, SKETCH_PER_CLASS, predicted_mean, predictor_fingerprint

Initialisation = Literal["same", "different", "predicted"]
CHUNK = 20  # episodes a file: some ten seconds of work at stake
SHIPPED = Path(__file__).parents[1] / "shipped" / "zoo"


@dataclass(frozen=True)
class ZooConfig:
    """Which zoo.

    Attributes:
        source: A pack, a dataset's name, or an image folder.
        initialisation: ``"same"`` initial weights and order of images for all episodes, or ``"different"`` ones;
            ``"predicted"`` is the same for all, the mean of what the shipped PudNet predicts for training episodes.
        ways: K, classes an episode; 0 takes 5, or 3 where there are too few classes.
        per_class: Training images a class.
        test_per_class: Test images a class, for the accuracy that is kept beside the parameters.
        training: How each network is trained.
        seed: Seed of episodes and of the initialisation.
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
    """The networks of one part.

    Attributes:
        parameters: (G, P) float32, every tensor of the target flattened in the order of its definition.
        indices: (G,) the episodes' numbers; those that diverged are left out.
        accuracy: (G,) on test images of the episode's classes, in %.
        diverged: How many episodes were left out.
        seconds: Seconds of training, all episodes.
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
        facts |= {"predictor": predictor_fingerprint(), "mean of": MEAN_OF, "sketch": SKETCH_PER_CLASS}
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
    progress: Callable[[int, int], bool] | None = None,
    root: Path | None = None,
) -> Zoo:
    """Load a zoo, and train what it lacks.

    Args:
        config: Which zoo.
        train: Training episodes wanted.
        held_out: Held-out episodes wanted.
        progress: Called with (episodes trained in this call, episodes to train) after each chunk and before each epoch;
            returning False cancels. By default a progress bar that cannot be cancelled.
        root: Where it grows; by default the cache folder.

    Returns:
        The zoo, with exactly the episodes wanted, less those that diverged.

    Raises:
        TrainingCancelledError: If it was cancelled; finished chunks are kept.
        PudNetError: If most episodes diverged, or a file is damaged.
    """
    if min(train, held_out) < 2:
        raise PudNetError(f"A zoo of {train} training and {held_out} held-out episodes tells nothing; take at least 2.")
    folder = (cache_folder() / "zoo" if root is None else root) / zoo_name(config)
    episodes, wanted = zoo_episodes(config), dict(zip(PARTS, (train, held_out), strict=True))
    missing = [
        (part, start, min(start + CHUNK, wanted[part]))
        for part in PARTS
        for start in range(_rows_there(folder, part), wanted[part], CHUNK)
    ]
    total, done = sum(stop - start for _, start, stop in missing), 0
    mean = predicted_mean(episodes, config.training.width) if missing and config.initialisation == "predicted" else None
    with _bar(progress, total, config.source) as tell:
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


@contextmanager
def _bar(progress: Callable[[int, int], bool] | None, total: int, source: str) -> Iterator[Callable[[int, int], bool]]:
    if progress is not None:
        yield progress
        return
    with tqdm(total=total, desc=f"training networks for {source}", unit="network", disable=total == 0) as bar:

        def tell(done: int, _total: int) -> bool:
            bar.update(done - bar.n)
            return True

        yield tell


def _train_chunk(
    config: ZooConfig,
    episodes: ZooEpisodes,
    part: Part,
    rows: range,
    mean: Parameters | None,
    go_on: Callable[[], bool],
) -> dict[str, Tensor]:
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
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}-{start:06d}-{stop:06d}.safetensors"
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, {"zoo": json.dumps(asdict(config))})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _rows_there(folder: Path, part: Part) -> int:
    return sum(last - first for first, last, _ in _chunks(folder, part))


def read_tensors(folder: Path, part: Part, rows: int) -> dict[str, Tensor]:
    """Read the first ``rows`` rows of a part; only what is asked for leaves the memory map."""
    pieces: dict[str, list[Tensor]] = {}
    left = rows
    for first, last, path in _chunks(folder, part):
        take = min(last - first, left)
        if take <= 0:
            break
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  (not a dict)
                    pieces.setdefault(name, []).append(file.get_slice(name)[first : first + take])
        except Exception as error:
            raise PudNetError(
                f"The zoo's file {path} is damaged ({error}); delete it, and it is trained anew."
            ) from None
        left -= take
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _read(folder: Path, part: Part, rows: int, config: ZooConfig) -> ZooPart:
    tensors = read_tensors(folder, part, rows)
    finite = tensors["finite"].bool().numpy()
    if finite.sum() < max(2, rows // 2):
        raise PudNetError(
            f"{config.source}: training diverged for {rows - int(finite.sum())} of {rows} {part} episodes; "
            f"lower training.learning_rate (now {config.training.learning_rate:g})."
        )
    return ZooPart(
        tensors["parameters"].numpy()[finite].astype(np.float32),
        np.flatnonzero(finite),
        tensors["accuracy"].numpy()[finite],
        int((~finite).sum()),
        float(tensors["seconds"].sum()),
    )
