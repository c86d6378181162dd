"""What describes datasets and trained networks, by hand."""

import numpy as np
import pytest
import torch

from pudnet_lib.errors import PudNetError
from pudnet_lib.studies.study import (
    LAYERS,
    dataset_features,
    describe_images,
    image_hog,
    layer_tensors,
    parameter_features,
    pixel_statistics,
)
from pudnet_lib.studies.zoo import ZooConfig, ZooEpisodes, parameter_shapes

SHAPES = {name: tuple(shape) for name, shape in parameter_shapes(ZooConfig()).items()}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    return tmp_path


def test_pixel_statistics_of_a_half_white_image():
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[..., 2:] = 255  # right half white: one step of 1 in three along a row, none along a column
    found = pixel_statistics(image)[0]
    spread = float(torch.tensor([0.0, 1.0] * 8).std())
    assert found == pytest.approx([0.5] * 3 + [spread] * 3 + [0, 1 / 3] + [0.5, 0, 0, 0, 0, 0, 0, 0.5], abs=1e-6)


def test_hog_sees_the_direction_of_edges():
    rows = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    rows[:, :, ::4] = 255
    upright = image_hog(rows.transpose(2, 3))[0].reshape(16, 8)
    lying = image_hog(rows)[0].reshape(16, 8)
    assert upright.shape == (16, 8)
    assert upright[5].argmax() == 0  # gradient along a row
    assert lying[5].argmax() == 4  # a quarter turn, in eighths of half a turn


def test_an_episode_is_described_by_mean_and_spread_over_its_images(fresh_cache):
    episodes = ZooEpisodes(ZooConfig("glyphs", per_class=3))
    found = dataset_features("pixel statistics", episodes, "train", 8)
    rows = pixel_statistics(episodes.images("train", np.array([7]))[0][0])
    np.testing.assert_allclose(found[7], np.concatenate([rows.mean(0), rows.std(0)]), atol=1e-6)
    own = episodes.dataset("train", 7)
    np.testing.assert_allclose(describe_images("pixel statistics", own.images, own.labels), found[7], atol=1e-6)
    fewer = dataset_features("pixel statistics", episodes, "train", 5)
    np.testing.assert_array_equal(fewer, found[:5])


def test_embeddings_are_of_the_shipped_predictor_and_of_an_untrained_one(fresh_cache):
    episodes = ZooEpisodes(ZooConfig("glyphs", per_class=3))
    names = ("PudNet's embedding", "untrained embedding")
    trained, untrained = (dataset_features(name, episodes, "held-out", 2) for name in names)
    assert trained.shape == untrained.shape
    assert np.isfinite(trained).all()
    assert np.abs(trained[0] - trained[1]).max() > 1e-4
    assert np.abs(trained - untrained).max() > 1e-2
    again = dataset_features("untrained embedding", episodes, "held-out", 2)
    np.testing.assert_array_equal(untrained, again)


def test_unknown_features_and_layers_are_named():
    episodes = ZooEpisodes(ZooConfig("glyphs"))
    with pytest.raises(PudNetError, match="Did you mean 'HOG'"):
        dataset_features("Hogg", episodes, "train", 1)  # type: ignore[arg-type]
    rows = np.zeros((2, SIZE))
    with pytest.raises(PudNetError, match="Did you mean 'norms'"):
        parameter_features(rows, SHAPES, "convolution 1", "norm")  # type: ignore[arg-type]
    with pytest.raises(PudNetError, match="Unknown layer"):
        parameter_features(rows, SHAPES, "convolution 9", "norms")


def test_layers_are_cut_where_the_tensors_lie():
    rows = np.arange(2 * SIZE, dtype=float).reshape(2, SIZE)
    first = layer_tensors(rows, SHAPES, "convolution 1")[0]
    assert first.shape == (2, 8, 3, 3, 3)
    assert first[0].ravel().tolist() == list(range(216))
    norms = layer_tensors(rows, SHAPES, "batch norms")
    assert norms[0][1].tolist() == [SIZE + 216 + i for i in range(8)]
    whole = parameter_features(rows, SHAPES, "whole network", "weights")
    assert sorted(whole[0]) == list(range(SIZE))  # every parameter once
    assert sum(len(LAYERS[layer]) for layer in LAYERS if layer != "whole network") == len(LAYERS["whole network"])


def test_norms_and_spectra_by_hand():
    """One filter of ones, one of a single two, the others zero."""
    filters = np.zeros((1, 8, 3, 3, 3))
    filters[0, 0], filters[0, 3, 0, 1, 1] = 1, 2
    rows = np.zeros((1, SIZE))
    rows[0, :216] = filters.ravel()
    norms = parameter_features(rows, SHAPES, "convolution 1", "norms")[0]
    assert norms == pytest.approx([np.sqrt(31), 29 / 216, *[0] * 6, 2, np.sqrt(27)])
    spectra = parameter_features(rows, SHAPES, "convolution 1", "spectra")[0]
    overlap = np.linalg.eigvalsh([[27, 2], [2, 4]])[::-1] ** 0.5
    assert spectra[:8] == pytest.approx([*overlap, *[0] * 6], abs=1e-6)
    power = spectra[8:].reshape(3, 2)
    assert power[0, 0] == pytest.approx((3 * 81 + 4) / 24)  # the mean over 24 kernels, at frequency 0
    assert power[1, 1] == pytest.approx(4 / 24)  # a flat kernel has no other frequency, a dot has all


def test_norms_and_spectra_ignore_the_order_of_filters_and_weights_do_not():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2, SIZE))
    moved = rows.copy()
    moved[:, :216] = rows[:, :216].reshape(2, 8, 27)[:, rng.permutation(8)].reshape(2, 216)
    for feature, same in (("weights", False), ("norms", True), ("spectra", True)):
        before, after = (parameter_features(r, SHAPES, "convolution 1", feature) for r in (rows, moved))  # type: ignore[arg-type]
        assert np.allclose(before, after) is same
    values = parameter_features(rows, SHAPES, "batch norms", "spectra")
    assert (np.diff(values[:, :8]) >= 0).all()


def test_filters_get_length_one_and_zero_stays_zero(notebook_functions):
    tensor = np.zeros((1, 2, 1, 2, 2))
    tensor[0, 0] = 3
    assert notebook_functions("01_parameter_correlations").unit_filters([tensor, 7 * tensor]).tolist() == [
        [0.5] * 4 + [0] * 4 + [0.5] * 4 + [0] * 4
    ]


def test_distances_to_guesses_by_hand(notebook_functions):
    trained = np.array([[0.0, 0.0], [3.0, 4.0]])
    own, other = notebook_functions("01_parameter_correlations").guess_distances(
        trained, np.array([[0.0, 1.0], [3.0, 0.0]])
    )
    assert own.tolist() == [1, 4]
    assert other == pytest.approx([3, np.hypot(3, 3)])
