"""The quick start's figures show what they are given."""

import numpy as np
import pandas as pd
import pytest
import torch

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.figures import quickstart_figures as figures
from pudnet_lib.figures import quickstart_widgets as widgets


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    images = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(12) % 3, ("ant", "bee", "cat"), "toy")


@pytest.fixture(scope="module")
def pudnet() -> PudNet:
    return PudNet(PudNetConfig(TargetConfig(width=4))).eval()


def test_mosaic_puts_each_image_in_its_place():
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    grid = figures.mosaic(images, columns=2)
    assert grid.shape == (5, 5, 3)
    assert grid[0, 0, 0] == 10
    assert grid[0, 3, 0] == 20
    assert grid[3, 0, 0] == 30
    assert (grid[2] == 255).all()  # the white line between
    assert (grid[3:, 3:] == 255).all()  # no fourth image


def test_sketch_has_a_row_a_class_and_says_what_it_leaves_out(dataset):
    assert len(figures.figure_sketch(dataset, 2).axes) == 3
    cut = figures.figure_sketch(dataset, 2, max_classes=2)
    assert len(cut.axes) == 2
    assert "first 2 of 3" in cut.get_suptitle()


def test_filters_features_confusion_and_classification_are_drawn(dataset, pudnet):
    network = predict(pudnet, dataset)
    assert figures.first_filters(network).shape == (4, 3, 3, 3)
    assert figures.figure_filters({"a": network, "b": network}).axes[0].get_title().startswith("a: weights from")
    scatter = figures.figure_features({"a": network}, dataset).axes[0]
    assert sum(len(c.get_offsets()) for c in scatter.collections) == 12
    assert "% of variance" in scatter.get_xlabel()
    matrix = figures.figure_confusion(network, dataset).axes[0].images[0].get_array()
    assert np.allclose(np.asarray(matrix).sum(1), 100)
    bars = figures.figure_classification(dataset.images[0], network.classify(dataset.images[0]), "ant").axes[1]
    assert sum(p.get_width() for p in bars.patches) == pytest.approx(100, abs=1e-3)


def test_curve_shows_seeds_and_the_prediction():
    curve = pd.DataFrame(
        [
            {"method": "from scratch", "seed": s, "step": t, "seconds": t / 10, "value": 50 + 10 * t + s}
            for s in (0, 2)
            for t in (1, 2)
        ]
    )
    point = pd.DataFrame([{"mean": 65.0, "low": 60.0, "high": 70.0, "seconds": 0.01}])
    ax = figures.figure_curve(curve, point, 25).axes[0]
    assert ax.get_xscale() == "log"
    assert list(ax.lines[0].get_ydata()) == [61, 71]  # the mean of the two seeds
    assert any("65.0 %" in text.get_text() for text in ax.texts)


def test_methods_come_in_a_fixed_order_with_their_means():
    table = pd.DataFrame(
        {
            "method": ["from scratch"] * 2 + ["PudNet"] * 2,
            "value": [70.0, 80.0, 60.0, 62.0],
            "chance": 20.0,
            "seed": 0,
        }
    )
    ax = figures.figure_methods(table).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["PudNet", "from scratch"]
    assert {"61.0", "75.0"} <= {t.get_text() for t in ax.texts}


def test_panel_draws_each_view_and_refuses_an_unknown_one(dataset, pudnet, monkeypatch):
    monkeypatch.setattr(widgets, "load_pudnet", lambda: pudnet)

    def load(_name: str) -> tuple[ImageDataset, ImageDataset]:
        return dataset, dataset

    pictures = set()
    for view in widgets.VIEWS:
        drawn = widgets.draw(load, "toy", view, 2, 0)
        pictures.add(len(drawn.axes))
    assert pictures == {3, 1, 2}  # one axes a class; filters; a matrix with its colour bar
    with pytest.raises(PudNetError, match="Did you mean 'sketch'"):
        widgets.draw(load, "toy", "sketches", 2, 0)
    panel = widgets.choose_images(load)
    first = panel.image.value
    panel.controls["view"].value = "confusion matrix"
    assert panel.image.value != first
