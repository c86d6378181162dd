from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.encoder import DatasetEncoder
from pudnet_lib.errors import PudNetError

POOLINGS = ["mean", "mean_std", "class"]


@given(seed=st.integers(0, 999), images=st.integers(2, 24), chunk=st.integers(1, 30), pooling=st.sampled_from(POOLINGS))
def test_neither_order_nor_chunks_matter(seed: int, images: int, chunk: int, pooling: str):
    torch.manual_seed(seed)
    encoder = DatasetEncoder(8, 2, pooling=pooling).eval()  # type: ignore[arg-type]
    sketch = torch.randint(0, 256, (images, 3, 8, 8), dtype=torch.uint8)
    labels = torch.arange(images) % 2
    order = torch.randperm(images)
    with torch.no_grad():
        whole = encoder(sketch, labels)
        other = encoder.pool(encoder.codes(sketch[order], chunk), labels[order])
    assert whole.shape == (2, 8)
    torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [8, 32, 50])
def test_equals_a_loop_over_images(size: int):
    encoder = DatasetEncoder(8, 2)
    sketch = torch.randint(0, 256, (5, 3, size, size), dtype=torch.uint8)
    one_by_one = torch.stack([encoder.body(normalise(image[None]))[0] for image in sketch]).mean(0)
    torch.testing.assert_close(encoder(sketch).flatten(), one_by_one, atol=1e-5, rtol=1e-5)


def test_class_pooling_equals_a_loop_over_classes():
    encoder = DatasetEncoder(4, 1, pooling="class")
    sketch = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 1, 2, 2, 2])
    codes = encoder.body(normalise(sketch))
    means = torch.stack([codes[labels == c].mean(0) for c in range(3)])
    spread = ((means - means.mean(0)).pow(2).mean(0) + 1e-6).sqrt()
    expected = encoder.merge(torch.cat([codes.mean(0), spread])).view(1, 4)
    torch.testing.assert_close(encoder(sketch, labels), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(PudNetError, match="give the sketch's labels"):
        encoder(sketch)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("training", [True, False])
def test_two_datasets_have_different_embeddings_in_both_modes(pooling: str, training: bool):
    """Fault 1 of the released code: batch norm before the mean made training-mode embeddings blind to the dataset."""
    encoder = DatasetEncoder(8, 2, pooling=pooling).train(training)  # type: ignore[arg-type]
    labels = torch.arange(10) % 2
    dark = torch.randint(0, 60, (10, 3, 8, 8), dtype=torch.uint8)
    bright = torch.randint(190, 256, (10, 3, 8, 8), dtype=torch.uint8)
    apart = (encoder(dark, labels) - encoder(bright, labels)).norm()
    assert apart > 0.05 * encoder(dark, labels).norm()
    encoder.train(not training)
    assert (encoder(dark, labels) - encoder(bright, labels)).norm() == apart  # and the same ones in both


def test_batch_norm_before_the_mean_is_blind_to_the_dataset_while_training():
    torch.manual_seed(0)
    dark, bright = torch.zeros(6, 3, 32, 32), torch.rand(6, 3, 32, 32)
    for norm, blind in (("batch", True), ("layer", False)):
        before_gelu = DatasetEncoder(8, 2, norm=norm).train().body[:-1]  # type: ignore[arg-type]
        means = [before_gelu(normalise(sketch)).mean(0) for sketch in (dark, bright)]
        assert torch.allclose(means[0], means[1], atol=1e-5) == blind
