"""Notebook 01's panels: explore any cell of the correlations, and train more networks without leaving the notebook.

Our choice; the paper has no counterpart. The scatter is linked by a slider that walks through the episodes: one picture
that is drawn anew works in every front end and in a saved notebook, where a plotting widget needs an extension of its
own. ``draw_pair`` and ``draw_heat`` are plain functions with tests; the panels only call them.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from pudnet_lib.errors import PudNetError
from pudnet_lib.figures.correlation_figures import figure_heat, figure_pair
from pudnet_lib.studies.correlation_study import Choice, Config, study
from pudnet_lib.studies.dataset_features import DatasetFeature
from pudnet_lib.studies.parameter_features import LAYERS, PARAMETER_FEATURES, ParameterFeature
from pudnet_lib.studies.zoo_store import Initialisation, ZooConfig, load_zoo
from pudnet_lib.widgets import Panel

MOST_COMPONENTS = 10


def draw_pair(
    config: Config,
    source: str,
    initialisation: Initialisation,
    dataset: DatasetFeature,
    parameters: ParameterFeature,
    layer: str,
    components: int,
    episodes: int,
    episode: int,
) -> Figure:
    """Draw one cell of the correlations, linked to one episode; see ``figure_pair``.

    Args:
        config: The study; more training episodes than it has are loaded if asked for.
        source: One of the study's sources.
        initialisation: Which zoo.
        dataset: The datasets' side.
        parameters: The parameters' side.
        layer: One of ``LAYERS``.
        components: k.
        episodes: Training episodes to fit on.
        episode: The held-out episode that is marked.

    Returns:
        The figure.
    """
    loaded = study(replace(config, train_episodes=max(episodes, config.train_episodes)))
    choice = Choice(source, initialisation, layer, dataset, parameters, components, episodes)
    return figure_pair(loaded, choice, episode)


def draw_first(config: Config) -> Figure:
    """Draw the cell that the panel shows first: the first feature, weights of the whole network."""
    first = (config.sources[0], config.initialisations[0], config.dataset_features[0])
    return draw_pair(config, *first, "weights", "whole network", config.components, config.train_episodes, 0)


def draw_heat(table: pd.DataFrame, source: str, initialisation: str, parameters: ParameterFeature) -> Figure:
    """Draw the map of layers × dataset features of one source; see ``figure_heat``."""
    return figure_heat(table[(table["dataset"] == source) & (table["initialisation"] == initialisation)], parameters)


def explore(config: Config) -> Panel:
    """Make the panel of one cell: scatter, spectrum, and the marked episode's images and filters."""
    least = min(config.train_episodes, 2 * config.components + 2)
    return Panel(
        partial(draw_pair, config),
        source=study(config).sources,
        initialisation=list(config.initialisations),
        dataset=list(config.dataset_features),
        parameters=list(PARAMETER_FEATURES),
        layer=list(reversed(LAYERS)),
        components=_slider(config.components, 1, MOST_COMPONENTS),
        episodes=_slider(config.train_episodes, least, config.train_episodes),
        episode=_slider(0, 0, config.held_out_episodes - 1),
    )


def explore_heat(table: pd.DataFrame) -> Panel:
    """Make the panel of the map."""
    return Panel(
        partial(draw_heat, table),
        source=[name for name in dict.fromkeys(table["dataset"]) if "shuffled" not in name],
        initialisation=list(dict.fromkeys(table["initialisation"])),
        parameters=list(PARAMETER_FEATURES),
    )


def _slider(value: int, low: int, high: int) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(value, low, high, continuous_update=False)


class GrowPanel(ipywidgets.VBox):  # type: ignore[misc]
    """Trains more networks in the background, with a bar and a button that cancels; what is finished is kept.

    Args:
        config: Whose zoos grow, all sources and initialisations.
        panel: A panel whose slider ``episodes`` reaches farther afterwards.
    """

    def __init__(self, config: Config, panel: Panel) -> None:
        self.config, self.panel = config, panel
        self.wanted = ipywidgets.BoundedIntText(config.train_episodes + 60, 2, 100_000, description="training episodes")
        self.wanted.style.description_width = "initial"
        self.start = ipywidgets.Button(description="train", icon="play")
        self.stop = ipywidgets.Button(description="cancel", icon="stop", disabled=True)
        self.bar = ipywidgets.IntProgress(0, 0, 1)
        self.message = ipywidgets.Label()
        self.thread = threading.Thread()
        self._stopped = threading.Event()
        self.start.on_click(lambda _button: self.grow())
        self.stop.on_click(lambda _button: self._stopped.set())
        super().__init__([ipywidgets.HBox([self.wanted, self.start, self.stop]), self.bar, self.message])

    def grow(self) -> None:
        """Start training; returns at once."""
        self._stopped.clear()
        self.start.disabled, self.stop.disabled = True, False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        config, episodes = self.config, int(self.wanted.value)
        zoos = [(source, start) for source in config.sources for start in config.initialisations]
        try:
            for number, (source, start) in enumerate(zoos, 1):
                name = f"{source}, {start} initialisation ({number} of {len(zoos)} zoos)"
                zoo = ZooConfig(source, start, training=config.training, seed=config.seed)
                load_zoo(zoo, episodes, config.held_out_episodes, partial(self._tell, name))
            slider = self.panel.controls["episodes"]
            slider.max = max(slider.max, episodes)
            self.message.value = f"Done: {episodes} training episodes of every zoo; the slider “episodes” reaches them."
        except PudNetError as error:
            self.message.value = str(error)
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _tell(self, name: str, done: int, total: int) -> bool:
        self.bar.max, self.bar.value = total, done
        self.message.value = f"{name}: {done} of {total} networks"
        return not self._stopped.is_set()
