"""The study behind the correlations: zoos and features loaded once, any cell of the table computed once.

Our choice; what is measured, and why, is in ``parameter_correlations.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.experiments.atlas import AtlasConfig
from pudnet_lib.experiments.correlation import Canonical, canonical, shuffles
from pudnet_lib.experiments.dataset_features import DatasetFeature, dataset_features
from pudnet_lib.experiments.parameter_features import ParameterFeature, parameter_features
from pudnet_lib.experiments.reduction import reduce_side, standardise
from pudnet_lib.experiments.similarity import Against, linear_cka, mantel
from pudnet_lib.experiments.zoo import ZooTraining
from pudnet_lib.experiments.zoo_groups import PARTS, Part
from pudnet_lib.experiments.zoo_store import Initialisation, Zoo, ZooConfig, load_zoo, parameter_shapes

POOLED, WITHIN = "all sources", "all sources, shuffled within"
CKA, MANTEL = "linear CKA, held-out classes", "Mantel test, held-out classes"


@dataclass(frozen=True)
class Config:
    """What is correlated.

    Attributes:
        sources: Packs, names or image folders.
        initialisations: ``"same"`` and/or ``"different"``.
        train_groups: Groups of training classes that directions are fitted on (a small zoo of 120 ships).
        held_out_groups: Groups of held-out classes (60 ship).
        components: k, principal components a side, and pairs of canonical directions.
        permutations: Shuffles of the nulls, and bootstrap samples.
        training: How each network of the zoo is trained.
        atlas: The map of trained and predicted parameters.
        seed: Of zoo, shuffles and bootstrap.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    initialisations: tuple[Initialisation, ...] = ("same", "different")
    train_groups: int = 120
    held_out_groups: int = 60
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
        groups: Training groups used, the first ones; 0 for all.
        same_classes: Test on the last third of the training groups and fit on the others, instead of on the held-out
            classes: what a lazy hold-out would find.
    """

    source: str
    initialisation: Initialisation = "same"
    layer: str = "whole network"
    dataset_feature: DatasetFeature = "HOG"
    parameter_feature: ParameterFeature = "weights"
    components: int = 5
    groups: int = 0
    same_classes: bool = False


class Study:
    """Zoos and features of a config, loaded once; answers for any cell, each computed once.

    Args:
        config: What is correlated.

    Raises:
        PudNetError: If a zoo cannot be loaded.
    """

    def __init__(self, config: Config) -> None:
        if not config.sources or not config.initialisations:
            raise PudNetError("Config.sources and Config.initialisations need at least one entry each.")
        self.config = config
        self.zoos: dict[tuple[str, str], Zoo] = {
            (source, initialisation): load_zoo(
                ZooConfig(source, initialisation, training=config.training, seed=config.seed),
                config.train_groups,
                config.held_out_groups,
            )
            for source in config.sources
            for initialisation in config.initialisations
        }
        self.shapes = parameter_shapes(next(iter(self.zoos.values())).config)
        self._features: dict[tuple[str, str, str], dict[Part, np.ndarray]] = {}
        self.canonical = lru_cache(maxsize=4096)(self._canonical)

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

    def diverged(self) -> int:
        """Networks left out because their training diverged."""
        return sum(zoo.part(part).diverged for zoo in self.zoos.values() for part in PARTS)

    def sides(self, choice: Choice, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Both descriptions of a part's groups, their sources' numbers and the names of their class sets.

        Returns:
            (G, p), (G, q), (G,) and (G,).
        """
        x, y, strata, sets = [], [], [], []
        for number, source in enumerate(self.members(choice.source)):
            zoo = self.zoo(source, choice.initialisation)
            kept = slice(None, choice.groups or None) if part == "train" else slice(None)
            rows = zoo.part(part).parameters[kept]
            x.append(self._dataset_side(source, choice.initialisation, choice.dataset_feature)[part][kept])
            y.append(parameter_features(rows, self.shapes, choice.layer, choice.parameter_feature))
            strata.append(np.full(len(rows), number))
            names = zoo.groups.class_sets(part, zoo.part(part).indices[kept])
            sets.append(np.array([f"{source} {'-'.join(map(str, row))}" for row in names]))
        return np.concatenate(x), np.concatenate(y), np.concatenate(strata), np.concatenate(sets)

    def _dataset_side(self, source: str, initialisation: str, feature: DatasetFeature) -> dict[Part, np.ndarray]:
        key = (source, initialisation, feature)
        if key not in self._features:
            zoo = self.zoo(source, initialisation)
            self._features[key] = {
                part: dataset_features(feature, source, zoo.groups, part, zoo.part(part).indices) for part in PARTS
            }
        return self._features[key]

    def _split(self, choice: Choice) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        train = self.sides(choice, "train")
        if not choice.same_classes:
            return train, self.sides(choice, "held-out")
        last = np.arange(len(train[0])) % 3 == 2
        return tuple(a[~last] for a in train), tuple(a[last] for a in train)

    def _canonical(self, choice: Choice) -> Canonical:
        """Canonical correlations of a cell; cached as ``canonical``."""
        train, test = self._split(choice)
        x = reduce_side(train[0], test[0], choice.components, choice.dataset_feature)
        y = reduce_side(train[1], test[1], choice.components, f"{choice.parameter_feature} of the {choice.layer}")
        strata = (train[2], test[2]) if choice.source == WITHIN else None
        return canonical(x, y, self.config.permutations, test[3], strata, self.config.seed)

    def similarities(self, choice: Choice) -> dict[str, Against]:
        """Linear CKA and the Mantel test on held-out groups."""
        train, test = self._split(choice)
        x = standardise(train[0], test[0], choice.dataset_feature)[1]
        y = standardise(train[1], test[1], f"{choice.parameter_feature} of the {choice.layer}")[1]
        strata = test[2] if choice.source == WITHIN else None
        orders = shuffles(self.config.permutations, len(x), np.random.default_rng(self.config.seed), strata)
        return {CKA: linear_cka(x, y, orders), MANTEL: mantel(x, y, orders)}


@lru_cache(maxsize=4)
def study(config: Config) -> Study:
    """The study of a config; the same object on every call."""
    return Study(config)
