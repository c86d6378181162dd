"""What is correlated: one vector an episode of its images, one of its network's parameters; and any cell, once.

HOG is what the paper uses [rec], from scikit-image; pixel statistics, PudNet's own embedding, and that of an untrained
PudNet (its control) are ours. Flattened weights (the paper's side [rec]) depend on which filter ended where; norms and
spectra do not, so that they can be compared between networks from different initialisations, too.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from skimage.feature import hog
from torch import Tensor

from pudnet_lib.core import PudNet
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.studies import correlation, zoo
from pudnet_lib.studies.correlation import Canonical, Reduced
from pudnet_lib.studies.zoo import PARTS, Initialisation, Part, Zoo, ZooConfig, ZooEpisodes, ZooTraining

DatasetFeature = Literal["HOG", "pixel statistics", "PudNet's embedding", "untrained embedding"]
DATASET_FEATURES: tuple[DatasetFeature, ...] = get_args(DatasetFeature)
ParameterFeature = Literal["weights", "norms", "spectra"]
PARAMETER_FEATURES: tuple[ParameterFeature, ...] = get_args(ParameterFeature)
POOLED, WITHIN = "all sources", "all sources, shuffled within"
Side = Literal["dataset", "parameters", "strata", "class set"]
LAYERS: dict[str, tuple[str, ...]] = {f"convolution {b + 1}": (f"blocks.{b}.0.weight",) for b in range(3)}
LAYERS["batch norms"] = tuple(f"blocks.{b}.1.{t}" for b in range(3) for t in ("weight", "bias"))
LAYERS["whole network"] = tuple(name for names in LAYERS.values() for name in names)


@lru_cache(maxsize=128)
def dataset_features(feature: DatasetFeature, episodes: ZooEpisodes, part: Part, count: int) -> np.ndarray:
    """Describe the first G episodes by their training images, (G, p) float64; a recurring image once."""
    ids = torch.from_numpy(episodes.drawn(part, np.arange(count))[1])  # (G, M)
    if feature not in OF_IMAGES:
        return np.stack([describe_images(feature, episodes.train.images[row], episodes.labels) for row in ids])
    asked, places = ids.unique(return_inverse=True)
    codes = OF_IMAGES[feature](episodes.train.images[asked])[places]  # (G, M, p / 2)
    return np.concatenate([codes.mean(1), codes.std(1)], 1).astype(float)


def describe_images(feature: DatasetFeature, images: Tensor, labels: Tensor) -> np.ndarray:
    """Describe one data set, (N, C, H, W) uint8 with labels (N,), the way ``dataset_features`` does, (p,) float64."""
    if feature not in DATASET_FEATURES:
        raise unknown_name("dataset feature", feature, DATASET_FEATURES)
    if feature in OF_IMAGES:
        codes = OF_IMAGES[feature](images)
        return np.concatenate([codes.mean(0), codes.std(0)]).astype(float)
    with torch.no_grad():
        return _predictor(feature == "PudNet's embedding").embed(images, labels).flatten().numpy().astype(float)


@lru_cache(maxsize=2)
def _predictor(trained: bool) -> PudNet:
    model = load_pudnet()
    assert isinstance(model, PudNet)
    return model if trained else PudNet(model.config).eval()


def image_hog(images: Tensor) -> np.ndarray:
    """Histogram of oriented gradients of gray images, 8 orientations in cells of a quarter of the side, (N, 128)."""
    cell = images.shape[2] // 4
    gray = images.float().mean(1).div(255).numpy()
    rows = [hog(one, orientations=8, pixels_per_cell=(cell, cell), cells_per_block=(1, 1)) for one in gray]
    return np.stack(rows).astype(np.float32)


def pixel_statistics(images: Tensor) -> np.ndarray:
    """Describe each image by brightness, contrast, edges and a histogram, on the scale of [0, 1], (N, 2·C + 2 + 8)."""
    pixels = images.float().div(255)
    gray = pixels.mean(1)  # (N, H, W)
    edges = torch.stack([gray.diff(dim=d).abs().mean((1, 2)) for d in (1, 2)], 1)
    shares = torch.nn.functional.one_hot((gray * 8).long().clamp_max(7).flatten(1), 8).float().mean(1)  # (N, 8)
    return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3)), edges, shares], 1).numpy()


OF_IMAGES = {"HOG": image_hog, "pixel statistics": pixel_statistics}  # what describes single images


def layer_tensors(rows: np.ndarray, shapes: Mapping[str, tuple[int, ...]], layer: str) -> list[np.ndarray]:
    """Cut one layer's tensors, (G, *shape) each, out of flattened parameters (G, P) in the order of ``shapes``."""
    if layer not in LAYERS:
        raise unknown_name("layer", layer, LAYERS)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    flat = dict(zip(shapes, np.split(rows[:, : ends[-1]], ends[:-1], axis=1), strict=True))
    return [flat[name].reshape(len(rows), *shapes[name]) for name in LAYERS[layer]]


def parameter_features(
    rows: np.ndarray, shapes: Mapping[str, tuple[int, ...]], layer: str, feature: ParameterFeature
) -> np.ndarray:
    """Describe trained networks, (G, P) flattened parameters, by (G, q) float64."""
    if feature not in PARAMETER_FEATURES:
        raise unknown_name("parameter feature", feature, PARAMETER_FEATURES)
    tensors = [t.astype(float) for t in layer_tensors(rows, shapes, layer)]
    describe = {"weights": lambda t: t.reshape(len(t), -1), "norms": _norms, "spectra": _spectra}[feature]
    return np.concatenate([describe(t) for t in tensors], 1)


def _norms(tensor: np.ndarray) -> np.ndarray:
    flat = tensor.reshape(len(tensor), tensor.shape[1], -1)  # (G, out, rest)
    filters = np.sort(np.linalg.norm(flat, axis=2) if tensor.ndim > 2 else flat[..., 0], 1)
    whole = np.linalg.norm(flat, axis=(1, 2))[:, None]
    return np.concatenate([whole, flat.mean((1, 2))[:, None], filters], 1)


def _spectra(tensor: np.ndarray) -> np.ndarray:
    if tensor.ndim == 2:
        return np.sort(tensor, 1)
    singular = np.linalg.svd(tensor.reshape(len(tensor), tensor.shape[1], -1), compute_uv=False)  # (G, out)
    power = np.abs(np.fft.rfft2(tensor)) ** 2  # (G, out, in, k, k // 2 + 1)
    return np.concatenate([singular, power.mean((1, 2)).reshape(len(tensor), -1)], 1)


class Cell(NamedTuple):
    """One cell: a source (or ``POOLED``; or ``WITHIN``, its null shuffled within sources), and both sides."""

    source: str
    initialisation: Initialisation = "same"
    layer: str = "whole network"
    feature: DatasetFeature = "HOG"
    parameters: ParameterFeature = "weights"
    components: int = 5
    episodes: int = 0
    same_classes: bool = False


class Study:
    """Zoos and features of some sources, loaded once; answers for any cell, each computed once."""

    def __init__(
        self, sources: Sequence[str], initialisations: Sequence[Initialisation], train: int, held_out: int,
        training: ZooTraining | None = None, permutations: int = 1000, seed: int = 0,
    ) -> None:  # fmt: skip
        if not (sources and initialisations):
            raise PudNetError("The study needs at least one source and one initialisation.")
        self.names, self.starts = tuple(sources), tuple(initialisations)
        self.training, self.permutations, self.seed = training or ZooTraining(), permutations, seed
        self.load(train, held_out)
        self.canonical = lru_cache(maxsize=4096)(self._canonical)
        self.reduced = lru_cache(maxsize=4096)(self._reduce)

    def load(self, train: int, held_out: int) -> None:
        """Load so many episodes of every zoo; what is lacking is trained."""
        which = [ZooConfig(s, i, training=self.training, seed=self.seed) for s in self.names for i in self.starts]
        self.zoos = {(c.source, str(c.initialisation)): zoo.load_zoo(c, train, held_out) for c in which}
        self.shapes = zoo.parameter_shapes(which[0])

    @property
    def sources(self) -> list[str]:
        """The sources, and all of them together where there are several."""
        return [*self.names, *([POOLED, WITHIN] if len(self.names) > 1 else [])]

    def members(self, cell: Cell) -> list[tuple[str, Zoo]]:
        """Sources and zoos that a cell draws on."""
        if cell.source not in self.sources:
            raise unknown_name("source", cell.source, self.sources)
        if cell.initialisation not in self.starts:
            raise unknown_name("initialisation", cell.initialisation, self.starts)
        names = self.names if cell.source in (POOLED, WITHIN) else (cell.source,)
        return [(name, self.zoos[name, cell.initialisation]) for name in names]

    def side(self, cell: Cell, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """One description of all of a cell's episodes: rows to fit on, rows to test on."""
        members = self.members(cell)
        fit, test = (np.concatenate([self._rows(cell, side, part, *m) for m in members]) for part in PARTS)
        last = np.arange(len(fit)) % 3 == 2
        return (fit[~last], fit[last]) if cell.same_classes else (fit, test)

    def _rows(self, cell: Cell, side: Side, part: Part, source: str, zoo: Zoo) -> np.ndarray:
        kept = slice(None, cell.episodes or None) if part == "train" else slice(None)
        indices = zoo.part(part).indices[kept]
        if side == "dataset":
            episodes = self.zoos[source, self.starts[0]].episodes  # the same ones for every initialisation
            count = len(zoo.part(part).indices) + zoo.part(part).diverged  # described once, whatever is chosen of them
            return dataset_features(cell.feature, episodes, part, count)[indices]  # type: ignore[no-any-return]
        if side == "parameters":
            return parameter_features(zoo.part(part).parameters[kept], self.shapes, cell.layer, cell.parameters)
        if side == "strata":
            return np.full(len(indices), self.names.index(source))
        return np.array([f"{source} {'-'.join(map(str, row))}" for row in zoo.episodes.drawn(part, indices)[0]])

    def _reduce(self, cell: Cell, side: Side) -> Reduced:
        what = cell.feature if side == "dataset" else f"{cell.parameters} of the {cell.layer}"
        return correlation.reduce_side(*self.side(cell, side), cell.components, what)

    def sides(self, cell: Cell) -> tuple[Reduced, Reduced]:
        """Both sides in principal components; each is reduced once for all cells that share it."""
        plain = Cell("")
        datasets = cell._replace(layer=plain.layer, parameters=plain.parameters)
        return self.reduced(datasets, "dataset"), self.reduced(cell._replace(feature=plain.feature), "parameters")

    def _canonical(self, cell: Cell) -> Canonical:
        fit, test = (tuple(rows.tolist()) for rows in self.side(cell, "strata"))
        strata, clusters = (fit, test) if cell.source == WITHIN else None, self.side(cell, "class set")[1]
        return correlation.canonical(*self.sides(cell), self.permutations, clusters, strata, self.seed)
