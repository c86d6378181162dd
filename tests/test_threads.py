"""The number of threads does not change what is predicted (slow: three packs)."""

from __future__ import annotations

import pytest
import torch

from pudnet_lib.core.predict import predict
from pudnet_lib.images import load_images
from pudnet_lib.shipped import load_shipped


@pytest.mark.slow
@pytest.mark.parametrize("source", ["fashion", "emoji", "glyphs"])
def test_one_and_two_threads_give_the_same_labels(source: str):
    train, test = load_images(source, "train").at_most(20), load_images(source, "test").at_most(50)
    before, labels = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            network = predict(load_shipped("pudnet"), train)
            with torch.no_grad():
                labels.append(network(test.images).argmax(1))
    finally:
        torch.set_num_threads(before)
    assert (labels[0] == labels[1]).float().mean() >= 0.995
