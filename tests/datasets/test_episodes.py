from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import Episode, EpisodeConfig, EpisodeSampler, split_classes
from pudnet_lib.errors import PudNetError


def numbered(counts: list[int], items: list[int] | None = None, name: str = "numbered", start: int = 0) -> ImageDataset:
    """A dataset whose image number i is one gray pixel of value ``start + i``."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = (torch.arange(len(labels)) + start).to(torch.uint8).view(-1, 1, 1, 1)
    given_items = torch.empty(0, dtype=torch.int64) if items is None else torch.tensor(items)
    return ImageDataset(images, labels, tuple(f"c{c}" for c in range(len(counts))), name, given_items)


def numbers(episode: Episode) -> tuple[list[int], list[int], list[int]]:
    return tuple(getattr(episode, part).flatten().tolist() for part in ("sketch", "support", "query"))


def test_split_classes_covers_all_and_depends_on_the_seed_alone():
    split = split_classes(10, unseen=4, validation=2, seed=3)
    assert (len(split.train), len(split.validation), len(split.unseen)) == (4, 2, 4)
    assert sorted((*split.train, *split.validation, *split.unseen)) == list(range(10))
    assert split == split_classes(10, 4, 2, 3) != split_classes(10, 4, 2, 4)


@pytest.mark.parametrize(("unseen", "validation"), [(9, 0), (1, 0), (2, 1), (-2, 2)])
def test_split_classes_refuses(unseen: int, validation: int):
    with pytest.raises(PudNetError, match="at least two classes"):
        split_classes(10, unseen, validation)


def test_a_episode_holds_what_its_config_says():
    sampler = EpisodeSampler([numbered([9, 9, 9, 9])], EpisodeConfig(2, 2, 3, 4))
    episode = sampler.episode(0)
    assert [len(part) for part in numbers(episode)] == [4, 6, 8]
    assert episode.sketch_labels.tolist() == [0, 0, 1, 1]
    assert episode.support_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert episode.query_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [part.flatten().tolist() for part in episode.given()] == [numbers(episode)[0], [0, 0, 1, 1]]
    images, labels = episode.given(2)  # the first two support images of either class
    assert images.flatten().tolist() == [*numbers(episode)[0], *(numbers(episode)[1][i] for i in (0, 1, 3, 4))]
    assert labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    # image number // 9 is its class, and label k of the episode is classes[k] of the source
    assert [n // 9 for n in numbers(episode)[2]] == episode.classes[episode.query_labels].tolist()


@given(
    counts=st.lists(st.integers(3, 12), min_size=2, max_size=6),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    ways=st.integers(2, 6),
    seed=st.integers(0, 2**31),
    index=st.integers(0, 2**31),
)
def test_episodes_are_pure_and_never_overlap(
    counts: list[int], sizes: tuple[int, int, int], ways: int, seed: int, index: int
):
    config = EpisodeConfig(ways, *sizes)
    data = numbered(counts)
    first = EpisodeSampler([data], config, seed)
    first.episode(0)  # drawing another episode before changes nothing
    np_state, torch_state = np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002 (the global one)
    episode, again = first.episode(index), EpisodeSampler([data], config, seed).episode(index)
    assert np.random.get_state()[1].tolist() == np_state  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    for a, b in zip(episode, again, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    sketch, support, query = numbers(episode)
    together = sketch + support + query
    assert len(set(together)) == len(together)
    assert len(episode.classes) == min(ways, len(counts))
    for part in ("sketch", "support", "query"):
        labels = getattr(episode, f"{part}_labels")
        assert (torch.bincount(labels, minlength=len(episode.classes)) >= 1).all()
        assert data.labels[torch.tensor(numbers(episode)[("sketch", "support", "query").index(part)])].equal(
            episode.classes[labels]
        )


@given(
    drawn=st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=12), min_size=2, max_size=4),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 999),
)
def test_no_item_is_both_in_query_and_elsewhere(drawn: list[list[int]], sizes: tuple[int, int, int], seed: int):
    # item numbers are drawn with repetition; each class has its own range of them
    items = [10 * c + item for c, part in enumerate(drawn) for item in part]
    data = numbered([len(part) for part in drawn], items)
    try:
        sampler = EpisodeSampler([data], EpisodeConfig(4, *sizes), seed)
    except PudNetError:  # fewer than two classes have an item to spare
        spare = [len(p) - min(p.count(i) for i in p) >= 2 for p in drawn]
        assert sum(spare) < 2
        return
    for index in range(3):
        episode = sampler.episode(index)
        sketch, support, query = numbers(episode)
        assert not {items[n] for n in query} & {items[n] for n in sketch + support}
        assert not set(sketch) & set(support)
        assert (
            set(episode.sketch_labels.tolist())
            == set(episode.query_labels.tolist())
            == set(range(len(episode.classes)))
        )


def test_query_comes_from_the_query_pool():
    sampler = EpisodeSampler([numbered([6, 6])], EpisodeConfig(2, 2, 2, 3), query_pool=[numbered([3, 3], start=100)])
    for index in range(5):
        sketch, support, query = numbers(sampler.episode(index))
        assert max(sketch + support) < 100 <= min(query)
        assert sorted(query) == [100, 101, 102, 103, 104, 105]


def test_sources_get_their_own_class_numbers_and_weights():
    pool = [numbered([4, 4], name="one"), numbered([4, 4, 4], name="two", start=50)]
    sampler = EpisodeSampler(pool, EpisodeConfig(2, 1, 1, 1), weights=[0, 1])
    assert sampler.num_classes == 5
    for index in range(5):
        episode = sampler.episode(index)
        assert (episode.source, episode.source_index) == ("two", 1)
        assert episode.pool_classes.equal(episode.classes + 2)
    assert sampler.episode(0, source=0).source == "one"
    seen = {EpisodeSampler(pool, EpisodeConfig(2, 1, 1, 1)).episode(i).source for i in range(20)}
    assert seen == {"one", "two"}


def test_too_few_images_are_named():
    with pytest.raises(PudNetError, match="small: 1 of 2 classes have the 3 images"):
        EpisodeSampler([numbered([5, 2], name="small")])
    # all images of a class show one item: none is left for the query
    with pytest.raises(PudNetError, match="0 of 2 classes"):
        EpisodeSampler([numbered([4, 4], items=[0] * 4 + [1] * 4)])
    with pytest.raises(PudNetError, match="empty"):
        EpisodeSampler([])
    with pytest.raises(PudNetError, match="same sources"):
        EpisodeSampler([numbered([4, 4])], query_pool=[numbered([4, 4, 4])])
    with pytest.raises(PudNetError, match="one a source"):
        EpisodeSampler([numbered([4, 4])], weights=[1, 1])
    with pytest.raises(PudNetError, match="at least 2 classes"):
        EpisodeConfig(ways=1)
    with pytest.raises(PudNetError, match="at least one image"):
        EpisodeConfig(query_per_class=0)


def test_a_sampler_keeps_its_items_when_the_pool_moves_into_shared_memory():
    items = torch.arange(12) // 2
    data = ImageDataset(torch.zeros(12, 1, 2, 2, dtype=torch.uint8), torch.arange(12) // 6, ("a", "b"), items=items)
    sampler = EpisodeSampler([data], EpisodeConfig(2, 1, 1, 1))
    before = [sampler._split_class(np.random.default_rng(i), 0, 0)[0].tolist() for i in range(20)]
    data.items.zero_()  # as good as a view of memory that was given back
    assert [sampler._split_class(np.random.default_rng(i), 0, 0)[0].tolist() for i in range(20)] == before
