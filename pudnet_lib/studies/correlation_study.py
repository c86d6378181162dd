"""The study behind the correlations: zoos and features loaded once, any cell of the table computed once.

Our choice; what is measured, and why, is in ``parameter_correlations.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.studies.atlas import AtlasConfig
from pudnet_lib.studies.correlation import Canonical, canonical, shuffles
from pudnet_lib.studies.dataset_features import DATASET_FEATURES, DatasetFeature, dataset_features
from pudnet_lib.studies.parameter_features import ParameterFeature, parameter_features
from pudnet_lib.studies.reduction import Reduced, reduce_side, standardise
from pudnet_lib.studies.similarity import Against, linear_cka, mantel
from pudnet_lib.studies.zoo import ZooTraining
from pudnet_lib.studies.zoo_episodes import PARTS, Part
from pudnet_lib.studies.zoo_store import Initialisation, Zoo, ZooConfig, load_zoo, parameter_shapes

POOLED, WITHIN = "all sources", "all sources, shuffled within"
CKA, MANTEL = "linear CKA, held-out classes", "Mantel test, held-out classes"

Side = Literal["dataset", "parameters", "strata", "class set"]
Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Config:
    """What is correlated.

    Attributes:
        sources: Packs, names or image folders.
        initialisations: ``"same"`` and/or ``"different"``.
        train_episodes: Episodes of training classes that directions are fitted on (a small zoo of 120 ships).
        held_out_episodes: Episodes of held-out classes (60 ship).
        dataset_features: Descriptions of the datasets.
        components: k, principal components a side, and pairs of canonical directions.
        permutations: Shuffles of the nulls, and bootstrap samples.
        training: How each network of the zoo is trained.
        atlas: The map of trained and predicted parameters.
        seed: Of zoo, shuffles and bootstrap.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    initialisations: tuple[Initialisation, ...] = ("same", "different")
    train_episodes: int = 120
    held_out_episodes: int = 60
    dataset_features: tuple[DatasetFeature, ...] = DATASET_FEATURES
    components: int = 5
    permutations: int = 1000
    training: ZooTraining = field(default_factory=ZooTraining)
    atlas: AtlasConfig = field(default_factory=AtlasConfig)
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """One cell of the study.

    Attributes:
        source: One of the config's sources, ``POOLED``, or ``WITHIN`` (pooled, the null shuffles within sources).
        initialisation: Which zoo.
        layer: One of ``LAYERS``.
        dataset_feature: The datasets' side.
        parameter_feature: The parameters' side.
        components: k.
        episodes: Training episodes used, the first ones; 0 for all.
        same_classes: Test on the last third of the training episodes and fit on the others, instead of on the held-out
            classes: what a lazy hold-out would find.
    """

    source: str
    initialisation: Initialisation = "same"
    layer: str = "whole network"
    dataset_feature: DatasetFeature = "HOG"
    parameter_feature: ParameterFeature = "weights"
    components: int = 5
    episodes: int = 0
    same_classes: bool = False


class Study:
    """Zoos and features of a config, loaded once; answers for any cell, each computed once.

    Args:
        config: What is correlated.

    Raises:
        PudNetError: If a zoo cannot be loaded.
    """

    def __init__(self, config: Config) -> None:
        if not (config.sources and config.initialisations and config.dataset_features):
            raise PudNetError("sources, initialisations and dataset_features of the config need an entry each.")
        self.config = config
        self.zoos: dict[tuple[str, str], Zoo] = {
            (source, initialisation): load_zoo(
                ZooConfig(source, initialisation, training=config.training, seed=config.seed),
                config.train_episodes,
                config.held_out_episodes,
            )
            for source in config.sources
            for initialisation in config.initialisations
        }
        self.shapes = parameter_shapes(next(iter(self.zoos.values())).config)
        self.canonical = lru_cache(maxsize=4096)(self._canonical)
        self._reduced = lru_cache(maxsize=4096)(self._reduce)
        self._of_datasets = lru_cache(maxsize=None)(self._describe_datasets)

    @property
    def sources(self) -> list[str]:
        """The sources, and all of them together where there are several."""
        return [*self.config.sources, *([POOLED, WITHIN] if len(self.config.sources) > 1 else [])]

    def members(self, source: str) -> Sequence[str]:
        """Sources that a choice draws on."""
        if source not in self.sources:
            raise unknown_name("source", source, self.sources)
        return self.config.sources if source in (POOLED, WITHIN) else [source]

    def zoo(self, source: str, initialisation: str) -> Zoo:
        """The zoo of one source.

        Raises:
            PudNetError: If the study has none such.
        """
        if (source, initialisation) not in self.zoos:
            raise unknown_name("zoo", f"{source}, {initialisation}", [", ".join(key) for key in self.zoos])
        return self.zoos[source, initialisation]

    def locate(self, choice: Choice, number: int) -> tuple[str, int]:
        """Find a held-out episode by its place among the cell's: its source, and its row in that zoo's part.

        Args:
            choice: The cell.
            number: Place among the cell's held-out episodes; the last is followed by the first again.
        """
        zoos = ((source, self.zoo(source, choice.initialisation)) for source in self.members(choice.source))
        places = [(source, row) for source, zoo in zoos for row in range(len(zoo.held_out.indices))]
        return places[number % len(places)]

    def side(self, choice: Choice, side: Side) -> Split:
        """One description of all episodes of a cell.

        Args:
            choice: The cell.
            side: ``"dataset"``, ``"parameters"``, ``"strata"`` (number of the episode's source) or ``"class set"``.

        Returns:
            Rows of the episodes to fit on, and of those to test on.
        """
        by_part = [
            np.concatenate([self._rows(choice, side, part, source) for source in self.members(choice.source)])
            for part in PARTS
        ]
        if choice.same_classes:
            last = np.arange(len(by_part[0])) % 3 == 2
            return by_part[0][~last], by_part[0][last]
        return by_part[0], by_part[1]

    def _rows(self, choice: Choice, side: Side, part: Part, source: str) -> np.ndarray:
        zoo = self.zoo(source, choice.initialisation)
        kept = slice(None, choice.episodes or None) if part == "train" else slice(None)
        indices = zoo.part(part).indices[kept]
        if side == "dataset":
            described: np.ndarray = self._of_datasets(source, choice.dataset_feature, part)[indices]
            return described
        if side == "parameters":
            rows = zoo.part(part).parameters[kept]
            return parameter_features(rows, self.shapes, choice.layer, choice.parameter_feature)
        if side == "strata":
            return np.full(len(indices), self.config.sources.index(source))
        return np.array([f"{source} {'-'.join(map(str, row))}" for row in zoo.episodes.class_sets(part, indices)])

    def _describe_datasets(self, source: str, feature: DatasetFeature, part: Part) -> np.ndarray:
        """Describe the datasets of all episodes of a part, (G, p): the same ones for every initialisation."""
        episodes = self.zoo(source, self.config.initialisations[0]).episodes
        count = self.config.train_episodes if part == "train" else self.config.held_out_episodes
        return dataset_features(feature, source, episodes, part, np.arange(count))

    def _reduce(self, choice: Choice, side: Side) -> Reduced:
        return reduce_side(*self.side(choice, side), choice.components, _name(choice, side))

    def _canonical(self, choice: Choice) -> Canonical:
        """Canonical correlations of a cell; cached as ``canonical``."""
        plain = Choice("")  # a side is reduced once for all cells that share it
        x = self._reduced(replace(choice, layer=plain.layer, parameter_feature=plain.parameter_feature), "dataset")
        y = self._reduced(replace(choice, dataset_feature=plain.dataset_feature), "parameters")
        fit, test = (tuple(rows.tolist()) for rows in self.side(choice, "strata"))
        strata = (fit, test) if choice.source == WITHIN else None
        clusters = self.side(choice, "class set")[1]
        return canonical(x, y, self.config.permutations, clusters, strata, self.config.seed)

    def similarities(self, choice: Choice) -> dict[str, Against]:
        """Linear CKA and the Mantel test on held-out episodes."""
        sides: tuple[Side, Side] = ("dataset", "parameters")
        x, y = (standardise(*self.side(choice, side), _name(choice, side))[1] for side in sides)
        strata = tuple(self.side(choice, "strata")[1].tolist()) if choice.source == WITHIN else None
        orders = shuffles(self.config.permutations, len(x), self.config.seed, strata)
        return {CKA: linear_cka(x, y, orders), MANTEL: mantel(x, y, orders)}


def _name(choice: Choice, side: Side) -> str:
    return choice.dataset_feature if side == "dataset" else f"{choice.parameter_feature} of the {choice.layer}"


@lru_cache(maxsize=4)
def study(config: Config) -> Study:
    """The study of a config; the same object on every call."""
    return Study(config)
