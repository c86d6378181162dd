"""The pool never mixes what is for training, for validation and for testing."""

import pytest
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.pool import Pool, PoolConfig, varied


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(PoolConfig(("fashion", "glyphs")))


def test_classes_of_the_three_stages_are_disjoint_and_complete(pool):
    episodes = EpisodeConfig(2)
    stages = [getattr(pool, f"{stage}_episodes")(episodes) for stage in ("training", "validation", "unseen")]
    for source in range(2):
        names = [set(list(sampler.images_and_classes().values())[source][1:]) for sampler in stages]
        assert not names[0] & names[1]
        assert not names[0] & names[2]
        assert not names[1] & names[2]
        assert set.union(*names) == set(pool.train[source].class_names)
    assert [len(s.classes[0]) for s in stages] == [4, 2, 4]  # fashion: 6 (two held out) and 4


def test_unseen_episodes_query_test_images(pool):
    episode = pool.unseen_episodes(EpisodeConfig(2, 1, 1, 5)).episode(0, source=0)
    unseen = pool.test[0].select_classes(pool.splits[0].unseen)
    tests = {image.numpy().tobytes() for image in unseen.images}
    assert all(image.numpy().tobytes() in tests for image in episode.query)


def test_without_hold_out_validation_classes_are_trained_on():
    pool = Pool(PoolConfig(("fashion",), hold_out=False))
    assert pool.training_episodes(EpisodeConfig(2)).num_classes == 6
    with pytest.raises(PudNetError, match="nothing to validate on"):
        pool.validation_episodes(EpisodeConfig(2))


def test_a_limit_of_images_a_class():
    assert Pool(PoolConfig(("fashion",), max_per_class=7)).train[0].class_counts().tolist() == [7] * 10


@pytest.mark.parametrize("sources", [(), ("fashion", "fashion")])
def test_no_source_or_one_named_twice(sources):
    with pytest.raises(PudNetError, match="each named once"):
        Pool(PoolConfig(sources))


def test_a_variation_changes_pixels_alone():
    data = ImageDataset(torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8), torch.tensor([0]), ("a",), "one")
    assert varied(data, "turned 90°").images.tolist() == [[[[2, 4], [1, 3]]]]
    assert varied(data, "turned 180°").images.tolist() == [[[[4, 3], [2, 1]]]]
    assert varied(data, "turned 270°").images.tolist() == [[[[3, 1], [4, 2]]]]
    assert varied(data, "inverted").images.tolist() == [[[[254, 253], [252, 251]]]]
    assert varied(data, "inverted").name == "one, inverted"
    assert data.images.tolist() == [[[[1, 2], [3, 4]]]]


def test_variations_are_for_meta_training_alone():
    pool = Pool(PoolConfig(("fashion", "glyphs"), variations=("turned 90°", "inverted")))
    training = pool.training_episodes(EpisodeConfig(2))
    names = ["fashion", "glyphs", "fashion, turned 90°", "glyphs, turned 90°", "fashion, inverted", "glyphs, inverted"]
    assert [data.name for data in training.pool] == names
    assert training.num_classes == 3 * sum(len(split.train) for split in pool.splits)
    assert [data.name for data in pool.validation_episodes(EpisodeConfig(2)).pool] == ["fashion", "glyphs"]
    assert [data.name for data in pool.unseen_episodes(EpisodeConfig(2)).pool] == ["fashion", "glyphs"]


def test_an_unknown_variation():
    with pytest.raises(PudNetError, match="turned 90°"):
        PoolConfig(("fashion",), variations=("turned 45°",))  # type: ignore[arg-type]
