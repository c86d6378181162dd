from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.errors import PudNetError

# Three images of 1 pixel, classes b, a, b.
PIXELS = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1, 1)
LABELS = torch.tensor([1, 0, 1])


@pytest.fixture
def three() -> ImageDataset:
    return ImageDataset(PIXELS, LABELS, ("a", "b"), "three")


def test_normalise_by_hand():
    # (0 - 0.5) / 0.25 = -2, (255/255 - 0.5) / 0.25 = 2
    assert normalise(PIXELS)[[0, 2]].flatten().tolist() == pytest.approx([-2.0, 2.0], abs=1e-6)
    assert normalise(torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)).flatten().tolist() == [-1.0, 1.0]


def test_normalise_reads_bytes_and_floats_alike_and_leaves_its_input():
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    before = images.clone()
    torch.testing.assert_close(normalise(images), normalise(images.double() / 255).float(), atol=1e-6, rtol=0)
    floats = images / 255
    kept = floats.clone()
    normalise(floats)
    assert torch.equal(images, before)
    assert torch.equal(floats, kept)


def test_counts_and_indices(three: ImageDataset):
    assert (len(three), three.num_classes, three.channels, three.size) == (3, 2, 1, 1)
    assert three.class_counts().tolist() == [1, 2]
    assert [ids.tolist() for ids in three.indices_by_class()] == [[1], [0, 2]]
    assert three.items.tolist() == [0, 1, 2]


def test_select_classes_relabels_in_the_given_order(three: ImageDataset):
    only = three.select_classes([1])
    assert only.class_names == ("b",)
    assert only.images.flatten().tolist() == [0, 255]
    assert only.labels.tolist() == [0, 0]
    swapped = three.select_classes([1, 0])
    assert swapped.labels.tolist() == [0, 1, 0]
    assert swapped.class_names == ("b", "a")


@pytest.mark.parametrize("classes", [[0, 0], [2], [-1]])
def test_select_classes_refuses(three: ImageDataset, classes: list[int]):
    with pytest.raises(PudNetError, match="distinct and in"):
        three.select_classes(classes)


def test_channels(three: ImageDataset):
    assert three.with_channels(1) is three
    rgb = three.with_channels(3)
    assert rgb.images.shape == (3, 3, 1, 1)
    assert rgb.with_channels(1).images.equal(three.images)
    # (0 + 90 + 30) / 3 = 40
    coloured = ImageDataset(torch.tensor([0, 90, 30], dtype=torch.uint8).view(1, 3, 1, 1), torch.tensor([0]), ("x",))
    assert coloured.with_channels(1).images.item() == 40
    with pytest.raises(PudNetError, match="expected 1 or 3"):
        three.with_channels(2)


@given(counts=st.lists(st.integers(1, 6), min_size=2, max_size=5), per_class=st.integers(1, 8), seed=st.integers(0, 99))
def test_sketch_and_at_most_take_each_image_once(counts: list[int], per_class: int, seed: int):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)  # an image is its own number
    data = ImageDataset(images, labels, tuple(map(str, range(len(counts)))))
    state = torch.get_rng_state()
    sketch, sketch_labels = data.sketch_with_labels(per_class, seed)
    few = data.at_most(per_class, seed)
    assert torch.equal(torch.get_rng_state(), state)
    wanted = [min(c, per_class) for c in counts]
    assert torch.bincount(sketch_labels).tolist() == wanted
    assert few.class_counts().tolist() == wanted
    numbers = sketch.flatten().tolist()
    assert len(set(numbers)) == len(numbers)
    assert labels[torch.tensor(numbers)].equal(sketch_labels)
    assert few.images.flatten().tolist() == sorted(set(few.images.flatten().tolist()))  # old order, no image twice
    assert data.sketch(per_class, seed).equal(sketch)


BAD = [
    (lambda: ImageDataset(PIXELS[0, 0], LABELS, ("a", "b")), r"expected \(N, C, H, W\)"),
    (lambda: ImageDataset(PIXELS.float(), LABELS, ("a", "b")), r"\[0, 255\]; expected \[0, 1\].*Divide by 255"),
    (lambda: ImageDataset(PIXELS / 127.5 - 1, LABELS, ("a", "b")), r"\(x \+ 1\) / 2"),
    (lambda: ImageDataset(PIXELS.long(), LABELS, ("a", "b")), r"dtype int64; expected uint8.*astype"),
    (lambda: ImageDataset(PIXELS.numpy().astype("int32"), LABELS, ("a", "b")), r"dtype int32; expected uint8.*astype"),
    (lambda: ImageDataset([PIXELS[0].numpy(), PIXELS[:2].numpy()], LABELS[:2]), "one size"),
    (lambda: ImageDataset(PIXELS, ["a", "b", "c"], ("a", "b")), "label 'c' is not among"),
    (lambda: ImageDataset(PIXELS, LABELS, ("caf\u00e9", "cafe\u0301")), "two classes are called"),
    (lambda: normalise(PIXELS.long()), "expected uint8"),
    (lambda: ImageDataset(PIXELS, LABELS).at_most(-1), "at least 1 and 0"),
    (lambda: ImageDataset(PIXELS, LABELS).sketch(2, seed=-1), "at least 1 and 0"),
    (lambda: ImageDataset(PIXELS.expand(3, 2, 1, 1), LABELS, ("a", "b")), "2 channels; expected 1"),
    (lambda: ImageDataset(PIXELS.expand(3, 5, 1, 1), LABELS, ("a", "b")), "5 channels; expected 1"),
    (lambda: ImageDataset(PIXELS[:0], LABELS[:0], ("a", "b")), "no images"),
    (lambda: ImageDataset(PIXELS, LABELS[:2], ("a", "b")), r"expected \(3,\) int64"),
    (lambda: ImageDataset(PIXELS, LABELS.float(), ("a", "b")), "int64"),
    (lambda: ImageDataset(PIXELS, LABELS + 1, ("a", "b")), "label 2 is out of range"),
    (lambda: ImageDataset(PIXELS, LABELS - 1, ("a", "b")), "label -1 is out of range"),
    (lambda: ImageDataset(PIXELS, LABELS, ("a", "b"), items=torch.tensor([1])), r"items have shape \(1,\)"),
    (
        lambda: ImageDataset.from_float(torch.full((1, 1, 1, 1), float("nan")), torch.tensor([0]), ["a"]),
        "NaN",
    ),
    (lambda: ImageDataset.from_float(torch.full((1, 1, 1, 1), 7.0), torch.tensor([0]), ["a"]), "Divide by 255"),
    (lambda: ImageDataset.from_float(torch.empty(0, 1, 2, 2), torch.tensor([]), ["a"]), "no images"),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_input_is_named(build, message: str):
    with pytest.raises(PudNetError, match=message):
        build()


def test_arrays_of_every_layout_are_one_dataset():
    """Ten lines of numpy are enough: pixels as they come, labels as names or numbers."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), np.uint8)
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for one in (pixels, pixels.transpose(0, 3, 1, 2), list(pixels), pixels / 255, torch.from_numpy(pixels)):
        data = ImageDataset(one, ["dog", "cat", "dog", "cat"])
        assert torch.equal(data.images, wanted)
        assert (data.class_names, data.labels.tolist()) == (("cat", "dog"), [1, 0, 1, 0])
    gray = ImageDataset(pixels[..., 0], [0, 1, 1, 2])
    assert (tuple(gray.images.shape), gray.class_names) == ((4, 1, 8, 6), ("0", "1", "2"))
    assert ImageDataset(pixels, np.array([1, 0, 1, 0], np.uint8), ["cat", "dog"]).class_names == ("cat", "dog")


def test_a_dataset_prints_as_one_line_and_shows_itself_in_a_notebook():
    data = ImageDataset(np.zeros((4, 8, 8, 3), np.uint8), ["<b>", "cat", "dog", "owl"], name="pets")
    assert str(data) == "ImageDataset 'pets': 4 images of 3×8×8, 4 classes (<b>, cat, dog, …)"
    assert "<img" in data._repr_html_()
    assert "<b>" not in data._repr_html_()
