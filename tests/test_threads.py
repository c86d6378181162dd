"""The number of threads does not change what is predicted (slow: three packs)."""

from __future__ import annotations

import pytest
import torch

from pudnet_lib import load_pudnet
from pudnet_lib.core.predict import predict
from pudnet_lib.images import load_images


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "source"), [("pudnet", "fashion"), ("pudnet", "emoji"), ("pudnet", "glyphs"), ("photographs", "emoji")]
)
def test_one_and_two_threads_give_the_same_labels(model: str, source: str):
    predictor = load_pudnet(model)
    size = 64 if model == "photographs" else 32
    train, test = (load_images(source, part, size=size, channels=3) for part in ("train", "test"))
    train, test = train.at_most(20), test.at_most(50)
    if model == "photographs":
        train, test = train.select_classes(range(5)), test.select_classes(range(5))
    before, labels = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            network = predict(predictor, train)
            with torch.no_grad():
                labels.append(network(test.images).argmax(1))
    finally:
        torch.set_num_threads(before)
    assert (labels[0] == labels[1]).float().mean() >= 0.995
