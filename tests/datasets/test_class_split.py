"""The class splits of known sources and of any other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.pool import default_class_split


@pytest.mark.parametrize(
    ("name", "classes", "unseen", "validation"),
    [
        ("fashion", 10, 4, 2),
        ("fashion-mnist", 10, 4, 2),
        ("emoji", 80, 16, 12),
        ("glyphs", 36, 10, 6),
        ("tiny-imagenet", 200, 40, 32),
        ("cifar100", 100, 20, 16),
        ("imagenet", 1000, 200, 80),
        ("something-else", 50, 10, 8),
        ("glyphs", 69, 14, 11),  # a folder of that name with other classes: 80/20
    ],
)
def test_counts_of_known_sources(name, classes, unseen, validation):
    split = default_class_split(name, classes)
    assert (len(split.unseen), len(split.validation)) == (unseen, validation)
    assert sorted((*split.train, *split.validation, *split.unseen)) == list(range(classes))


def test_fashion_has_the_same_unseen_classes_under_both_names():
    assert default_class_split("fashion", 10) == default_class_split("fashion-mnist", 10)
    assert default_class_split("fashion", 10).unseen == (2, 3, 5, 9)  # pullover, dress, sandal, ankle boot: fixed


def test_a_versioned_folder_name_has_the_split_of_its_source():
    assert default_class_split("tiny-imagenet-200", 200) == default_class_split("tiny-imagenet", 200)


@given(st.integers(4, 300), st.text(max_size=5))
def test_any_source_has_disjoint_parts_of_usable_size(classes, name):
    split = default_class_split(name, classes)
    assert split == default_class_split(name, classes)
    assert sorted((*split.train, *split.validation, *split.unseen)) == list(range(classes))
    assert len(split.train) >= 2
    assert len(split.unseen) >= 2
    assert len(split.validation) != 1


def test_too_few_classes_are_refused():
    with pytest.raises(PudNetError, match="at least 4"):
        default_class_split("mine", 3)
