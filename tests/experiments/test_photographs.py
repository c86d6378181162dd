"""The predictor for photographs: its training goes on bit for bit where it was cut off; what ships predicts."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pudnet_lib import load_pudnet
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import predict
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import load_model, load_network, save
from pudnet_lib.files import load_tensors

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_photographs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_photographs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(count, seed, size=64, channels=3):
    """Two classes: disks and squares of random colours and places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images, labels = np.zeros((2 * count, channels, size, size), dtype=np.uint8), np.repeat([0, 1], count)
    for image, label in zip(images, labels, strict=True):
        colours = rng.integers(0, 256, (2, channels, 1))
        cx, cy, r = rng.integers(20, 44), rng.integers(20, 44), rng.integers(10, 18)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r if label else np.maximum(abs(x - cx), abs(y - cy)) < r
        image[:] = np.where(inside, colours[0][..., None], colours[1][..., None])
    return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), ("square", "disk"), "drawn")


def test_training_goes_on_where_it_was_cut_off(script, tmp_path):
    whole = script.train(tmp_path / "whole", 0, smoke=True)
    for stop in (3, 7):  # once while it classifies, once in the episodes
        script.train(tmp_path / "parts", 0, smoke=True, stop_at=stop)
    parts = script.train(tmp_path / "parts", 0, smoke=True)
    one, other = load_tensors(whole)[0], load_tensors(parts)[0]
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list((tmp_path / "parts").glob("*.state.*"))
    model, notes = load_model(whole)
    assert (notes["steps"], notes["size"], notes["classes"]) == (9, 32, 76)
    assert len(predict(model, drawn(6, 0, 32)).classify(drawn(1, 1, 32).images[0]).probabilities) == 2


def test_what_ships_tells_disks_from_squares_and_is_equal_after_saving(tmp_path):
    model, test = load_pudnet("photographs"), drawn(40, 1)
    assert model.refine is not None
    network = predict(model, drawn(20, 0))
    with torch.no_grad():
        logits = network(test.images)
        assert float((logits.argmax(1) == test.labels).float().mean()) > 0.7
        save(network, tmp_path / "drawn.safetensors")
        assert torch.equal(load_network(tmp_path / "drawn.safetensors")(test.images), logits)


def test_gray_images_and_a_single_class_are_refused_with_the_remedy():
    model, gray = load_pudnet("photographs"), drawn(5, 0, channels=1)
    with pytest.raises(PudNetError, match=r"1 channels and the network 3; use dataset\.with_channels"):
        predict(model, gray)
    one = gray.with_channels(3).select_classes([0])
    with pytest.raises(PudNetError, match="at least two"):
        predict(model, replace(one, name="one"))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_faster_gradient_of_small_maps_is_the_usual_one(script, stride):
    x, weight = torch.rand(3, 4, 4, 4, requires_grad=True), torch.rand(5, 4, 3, 3, requires_grad=True)
    usual, faster = torch.nn.functional.conv2d(x, weight, None, stride, 1), script._SmallMaps.apply(x, weight, stride)
    pull = torch.rand_like(usual)
    for one, other in zip(*(torch.autograd.grad(y, (x, weight), pull) for y in (usual, faster)), strict=True):
        torch.testing.assert_close(one, other)
