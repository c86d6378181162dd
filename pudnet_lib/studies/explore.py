"""Notebook 01's working part: the value of any cell of its correlations, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.studies import correlation, features
from pudnet_lib.studies.correlation import Canonical, Reduced
from pudnet_lib.studies.features import DatasetFeature, ParameterFeature
from pudnet_lib.studies.zoo import PARTS, Initialisation, Part, Zoo, ZooConfig, ZooTraining, load_zoo, parameter_shapes

POOLED, WITHIN = "all sources", "all sources, shuffled within"
Side = Literal["dataset", "parameters", "strata", "class set"]


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
            episodes = self.zoos[source, self.starts[0]].episodes  # the same ones for every initialisation
            return features.dataset_features(cell.feature, episodes, part, int(zoo.part(part).indices.max()) + 1)[
                indices
            ]
        if side == "parameters":
            found = zoo.part(part).parameters[kept]
            return features.parameter_features(found, self.shapes, cell.layer, cell.parameters)
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
