"""The pool never mixes what is for training, for validation and for testing."""

import pytest

from pudnet_lib.datasets import GroupConfig
from pudnet_lib.datasets.pool import Pool, PoolConfig
from pudnet_lib.errors import PudNetError


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(PoolConfig(("fashion", "glyphs")))


def test_classes_of_the_three_stages_are_disjoint_and_complete(pool):
    groups = GroupConfig(2)
    stages = [getattr(pool, f"{stage}_groups")(groups) for stage in ("training", "validation", "unseen")]
    for source in range(2):
        names = [set(list(sampler.images_and_classes().values())[source][1:]) for sampler in stages]
        assert not names[0] & names[1]
        assert not names[0] & names[2]
        assert not names[1] & names[2]
        assert set.union(*names) == set(pool.train[source].class_names)
    assert [len(s.classes[0]) for s in stages] == [4, 2, 4]  # fashion: 6 (two held out) and 4


def test_unseen_groups_query_test_images(pool):
    group = pool.unseen_groups(GroupConfig(2, 1, 1, 5)).group(0, source=0)
    unseen = pool.test[0].select_classes(pool.splits[0].unseen)
    tests = {image.numpy().tobytes() for image in unseen.images}
    assert all(image.numpy().tobytes() in tests for image in group.query)


def test_without_hold_out_validation_classes_are_trained_on():
    pool = Pool(PoolConfig(("fashion",), hold_out=False))
    assert pool.training_groups(GroupConfig(2)).num_classes == 6
    with pytest.raises(PudNetError, match="nothing to validate on"):
        pool.validation_groups(GroupConfig(2))


def test_a_limit_of_images_a_class():
    assert Pool(PoolConfig(("fashion",), max_per_class=7)).train[0].class_counts().tolist() == [7] * 10


@pytest.mark.parametrize("sources", [(), ("fashion", "fashion")])
def test_no_source_or_one_named_twice(sources):
    with pytest.raises(PudNetError, match="each named once"):
        Pool(PoolConfig(sources))
