"""The quick start's panel: choose images, see the sketch, the predicted filters, or the confusion matrix.

Our choice; the paper has no counterpart. ``draw`` is a plain function with its own test; the panel only calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import ipywidgets
from matplotlib.figure import Figure

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork, predict
from pudnet_lib.errors import unknown_name
from pudnet_lib.figures import quickstart_figures as figures
from pudnet_lib.images.packs import pack_names
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.widgets import Panel

VIEWS = ("sketch", "predicted filters", "confusion matrix")
Load = Callable[[str], tuple[ImageDataset, ImageDataset]]


@lru_cache(maxsize=16)
def _predicted(load: Load, images: str, sketch_per_class: int, seed: int) -> PredictedNetwork:
    return predict(load_pudnet(), load(images)[0], PredictConfig(sketch_per_class=sketch_per_class, seed=seed))


def draw(load: Load, images: str, view: str, sketch_per_class: int, seed: int) -> Figure:
    """Draw one view of one dataset.

    Args:
        load: Name or folder to training and test images.
        images: The name or folder.
        view: One of ``VIEWS``.
        sketch_per_class: Images a class that the hypernetwork sees.
        seed: Seed of the sketch.

    Returns:
        The figure.

    Raises:
        PudNetError: If the view or the dataset is unknown.
    """
    if view not in VIEWS:
        raise unknown_name("view", view, VIEWS)
    if view == "sketch":
        return figures.figure_sketch(load(images)[0], sketch_per_class, seed)
    network = _predicted(load, images, sketch_per_class, seed)
    if view == "predicted filters":
        return figures.figure_filters({f"predicted for {images}": network})
    return figures.figure_confusion(network, load(images)[1])


def choose_images(load: Load, seed: int = 0) -> Panel:
    """Make the panel.

    Args:
        load: Name or folder to training and test images.
        seed: First seed of the sketch.

    Returns:
        A widget.
    """
    return Panel(
        partial(draw, lru_cache(maxsize=8)(load)),
        images=ipywidgets.Combobox(value="emoji", options=pack_names(), ensure_option=False, continuous_update=False),
        view=list(VIEWS),
        sketch_per_class=ipywidgets.IntSlider(10, 1, 20, continuous_update=False),
        seed=ipywidgets.IntSlider(seed, 0, 9, continuous_update=False),
    )
