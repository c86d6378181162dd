"""Notebook 01's working parts: any cell of the correlations once, the linked figure, data sets placed in it.

Our choice; the paper has no counterpart. The figure is a small widget of the kit's own (``explore.js``, drawn by the
browser, so that hovering, selecting, zooming and the choice of a cell ask no kernel); the notebook puts controls above
it, and writes it as one HTML page. All that they do is call the plain functions of this module.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.studies import correlation, features
from pudnet_lib.studies.correlation import Canonical, Reduced
from pudnet_lib.studies.features import DATASET_FEATURES, LAYERS, DatasetFeature, ParameterFeature
from pudnet_lib.studies.zoo import (
    PARTS,
    Initialisation,
    Part,
    Zoo,
    ZooConfig,
    ZooTraining,
    load_zoo,
    parameter_shapes,
    train_networks,
)  # fmt: skip

POOLED, WITHIN = "all sources", "all sources, shuffled within"
SCRIPT = Path(__file__).with_name("explore.js")
Side = Literal["dataset", "parameters", "strata", "class set"]
CELLS = [(layer, feature, f"{layer}|{feature}") for layer in LAYERS for feature in DATASET_FEATURES]


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
        self._own: dict[tuple[int, int], tuple[Any, ...]] = {}
        self.load(train, held_out)
        self.canonical = lru_cache(maxsize=4096)(self._canonical)
        self.reduced = lru_cache(maxsize=4096)(self._reduce)
        self._of_datasets = lru_cache(maxsize=None)(self._describe)

    def load(self, train: int, held_out: int) -> None:
        """Load so many episodes of every zoo; what is lacking is trained."""
        which = [ZooConfig(s, i, training=self.training, seed=self.seed) for s in self.names for i in self.starts]
        self.zoos = {(c.source, str(c.initialisation)): load_zoo(c, train, held_out) for c in which}
        self.shapes = parameter_shapes(which[0])

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

    def locate(self, cell: Cell, number: int) -> tuple[str, int]:
        """Find a held-out episode by its place among the cell's: its source, and its row in that zoo's part."""
        places = [(name, row) for name, zoo in self.members(cell) for row in range(len(zoo.held_out.indices))]
        return places[number % len(places)]

    def side(self, cell: Cell, side: Side) -> tuple[np.ndarray, np.ndarray]:
        """One description of all of a cell's episodes: rows to fit on, rows to test on."""
        fit, test = (
            np.concatenate([self._rows(cell, side, part, *member) for member in self.members(cell)]) for part in PARTS
        )
        last = np.arange(len(fit)) % 3 == 2
        return (fit[~last], fit[last]) if cell.same_classes else (fit, test)

    def _rows(self, cell: Cell, side: Side, part: Part, source: str, zoo: Zoo) -> np.ndarray:
        kept = slice(None, cell.episodes or None) if part == "train" else slice(None)
        indices = zoo.part(part).indices[kept]
        if side == "dataset":
            rows: np.ndarray = self._of_datasets(source, cell.feature, part, int(indices.max()) + 1)[indices]
            return rows
        if side == "parameters":
            found = zoo.part(part).parameters[kept]
            return features.parameter_features(found, self.shapes, cell.layer, cell.parameters)
        if side == "strata":
            return np.full(len(indices), self.names.index(source))
        return np.array([f"{source} {'-'.join(map(str, row))}" for row in zoo.episodes.drawn(part, indices)[0]])

    def _describe(self, source: str, feature: DatasetFeature, part: Part, count: int) -> np.ndarray:
        episodes = self.zoos[source, self.starts[0]].episodes  # the same ones for every initialisation
        return features.dataset_features(feature, source, episodes, part, np.arange(count))

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

    def place(self, cell: Cell, dataset: ImageDataset) -> np.ndarray:
        """Place a data set (RGB, 32 pixels) in a cell's scatter, (2, k): described, and a network trained on it."""
        zoo, (x, y), axes = self.members(cell)[0][1], self.sides(cell), self.canonical(cell).axes
        images, labels, row = self._trained(dataset, zoo)
        described = features.describe_images(cell.feature, images, labels)[None]
        found = features.parameter_features(row, self.shapes, cell.layer, cell.parameters)
        return np.concatenate([x.steps.transform(described) @ axes[0], y.steps.transform(found) @ axes[1]])

    def _trained(self, dataset: ImageDataset, zoo: Zoo) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Images and labels of an episode from a data set, and the parameters (1, P) of a network trained on it."""
        key = id(dataset), zoo.episodes.ways
        if key in self._own:
            return self._own[key][:3]
        classes = [ids[: zoo.config.per_class] for ids in dataset.indices_by_class() if len(ids) >= 2]
        kept = classes[: zoo.episodes.ways]
        if len(kept) < 2 or dataset.channels != 3:
            raise PudNetError(f"{dataset.name}: expected RGB images of two classes or more, with two images each.")
        images = dataset.images[torch.cat(kept)]
        labels = torch.arange(len(kept)).repeat_interleave(torch.tensor([*map(len, kept)]))
        trained = train_networks(images[None], labels, self.training, [self.seed]).parameters
        row = torch.cat([trained[name].flatten(1) for name in self.shapes], 1).numpy()
        self._own[key] = images, labels, row, dataset  # the data set is kept, so that its id stays its own
        return images, labels, row


def explorer_data(study: Study, cell: Cell, added: Sequence[ImageDataset] = ()) -> dict[str, Any]:
    """Everything that the linked figure shows of one source, initialisation and description of parameters."""
    data = _shown(study, cell._replace(layer="", feature="HOG"))
    cells = dict(data["cells"])
    for layer, feature, name in CELLS if added else ():
        places = [study.place(cell._replace(layer=layer, feature=feature), dataset) for dataset in added]
        cells[name] = cells[name] | {"added": np.stack(places).transpose(2, 1, 0).round(3).tolist()}
    return data | {"cells": cells, "added": [dataset.name for dataset in added]}


@lru_cache(maxsize=32)
def _shown(study: Study, cell: Cell) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for layer, feature, name in CELLS:
        found = study.canonical(cell._replace(layer=layer, feature=feature))
        value = found.held_out
        cells[name] = {
            "mean": round(value.value, 3), "null": round(value.null_high, 3),
            "survives": value.p < 0.05 and value.p_transfer < 0.05,
            "r": found.spectrum.round(3).tolist(),
            "high": np.quantile(found.spectrum_null, 0.95, 0).round(3).tolist(),
            "points": found.scores.transpose(2, 1, 0).round(3).tolist(), "added": [],
        }  # fmt: skip
    episodes = []
    for source, zoo in study.members(cell):
        for index, accuracy in zip(zoo.held_out.indices.tolist(), zoo.held_out.accuracy.tolist(), strict=True):
            images = zoo.episodes.images("held-out", np.array([index]))[0][0].unflatten(0, (zoo.episodes.ways, -1))
            pixels = images[:, :5].permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)  # (K·H, 5·W, 3), a row a class
            Image.fromarray(pixels.numpy()).save(buffer := io.BytesIO(), "webp", quality=40)
            picture = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
            facts = {"classes": zoo.episodes.names("held-out", index), "picture": picture}
            episodes.append({"name": f"{source} {index}", "source": source, "accuracy": round(accuracy, 1), **facts})
    limit = round(1.05 * max(float(np.abs(c["points"]).max()) for c in cells.values()), 2)
    return {"layers": [*LAYERS], "features": [*DATASET_FEATURES], "cells": cells, "episodes": episodes, "limit": limit}


class Explorer(anywidget.AnyWidget):
    """The linked figure; ``layer``, ``feature``, ``pair``, ``episode`` and ``selected`` follow what is clicked."""

    _esm = SCRIPT
    data = traitlets.Dict().tag(sync=True)
    layer = traitlets.Unicode("whole network").tag(sync=True)
    feature = traitlets.Unicode("HOG").tag(sync=True)
    pair = traitlets.Int(0).tag(sync=True)
    episode = traitlets.Int(0).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
