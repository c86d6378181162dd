"""The shared figures take any class name: $ is a dollar, a glyph without a font a box, a long name is cut."""

import io
import warnings

import pandas as pd
import pytest
import torch

from pudnet_lib import plots
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler

NAMES = ["$1-$5 bills", "$x^$ y", "猫 and 犬", "قطة 😀", "a very long name " * 5]
SHORT = [plots.plain_text(name, 16) for name in NAMES]  # as notebook 00 gives them


def episode_figure():
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    data = ImageDataset(images, torch.arange(40) % 5, tuple(NAMES))
    return plots.show_episode(EpisodeSampler([data], EpisodeConfig(5, 2, 2, 2)).episode(0), data.class_names)


def rows():
    given = {"method": SHORT, "metric": SHORT, "dataset": SHORT[0], "episode": 0, "mean": 50.0, "low": 40.0}
    return pd.DataFrame(given | {"high": 60.0, "value": 50.0, "seconds": 0.1, "chance": 20.0, "step": 10})


@pytest.mark.parametrize(
    "draw",
    [
        episode_figure,
        lambda: plots.heatmap(pd.DataFrame(torch.rand(5, 5).numpy(), SHORT, SHORT), title=SHORT[0], unit=SHORT[1]),
        lambda: plots.accuracies(rows(), rows()),
        lambda: plots.paired_gains(rows(), SHORT[2]),
        lambda: plots.accuracy_against_seconds(rows(), SHORT[0], SHORT[1]),
        lambda: plots.learning_curves(rows().assign(seed=0, loss=1.0, step=range(5)), ("loss",)),
        lambda: plots.curves_by_steps(rows().assign(width=8, metric=SHORT[1])),
    ],
)
def test_any_class_name_is_drawn_without_a_warning(draw):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message="Glyph")  # as the module itself says
        figure = draw()
        figure.savefig(io.BytesIO(), format="png")
    assert not caught, [str(w.message) for w in caught]
    texts = [text.get_text() for ax in figure.axes for text in [*ax.get_xticklabels(), *ax.get_yticklabels()]]
    assert not [text for text in texts if "mathdefault" in text]


def test_a_logarithmic_axis_reads_as_numbers_however_it_is_shown():
    figure, axes = plots.figure()
    axes[0, 0].plot([0.01, 1], [1, 2])
    axes[0, 0].set(xscale="log")
    figure.canvas.print_figure(io.BytesIO(), format="png")  # as Jupyter's inline backend does, past savefig
    assert "0.01" in [label.get_text() for label in axes[0, 0].get_xticklabels()]
