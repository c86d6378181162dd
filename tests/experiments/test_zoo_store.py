"""The zoo on disk: it resumes, grows, ships, leaves out what diverged, and says what is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.studies import zoo as zoo_store
from pudnet_lib.studies.zoo import (
    TrainingCancelledError,
    ZooConfig,
    ZooEpisodes,
    ZooTraining,
    load_zoo,
    parameter_shapes,
    zoo_name,
)

TINY = ZooConfig("glyphs", per_class=3, test_per_class=2, training=ZooTraining(width=2, epochs=1, batch_size=15))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(zoo_store, "CHUNK", 2)


def steps_of(calls: list[tuple[int, int]], stop_at: int = 99):
    def progress(done: int, total: int) -> bool:
        calls.append((done, total))
        return len(calls) < stop_at

    return progress


def test_a_cancelled_run_keeps_its_chunks_and_goes_on(tmp_path, small_chunks):
    calls: list[tuple[int, int]] = []
    with pytest.raises(TrainingCancelledError, match=r"cancelled\. 2 of 6 episodes are kept; the next run goes on"):
        load_zoo(TINY, 4, 2, steps_of(calls, 3), tmp_path)
    assert calls == [(0, 6), (2, 6), (2, 6)]  # before an epoch, after a chunk, before an epoch
    again: list[tuple[int, int]] = []
    resumed = load_zoo(TINY, 4, 2, steps_of(again), tmp_path)
    assert again[-1] == (4, 4)
    whole = load_zoo(TINY, 4, 2, steps_of([]), tmp_path / "other")
    for part in ("train", "held-out"):
        np.testing.assert_array_equal(resumed.part(part).parameters, whole.part(part).parameters)
    idle: list[tuple[int, int]] = []
    load_zoo(TINY, 3, 2, steps_of(idle), tmp_path)
    assert idle == []


def test_a_zoo_grows_and_its_first_rows_stay(tmp_path):
    few = load_zoo(TINY, 3, 2, root=tmp_path)
    more = load_zoo(TINY, 5, 2, root=tmp_path)
    np.testing.assert_array_equal(more.train.parameters[:3], few.train.parameters)
    assert more.train.indices.tolist() == [0, 1, 2, 3, 4]
    assert more.train.parameters.shape == (5, sum(s.numel() for s in parameter_shapes(TINY).values()))
    assert np.isfinite(more.train.parameters).all()
    assert ((more.train.accuracy >= 0) & (more.train.accuracy <= 100)).all()
    assert more.train.seconds > 0


def test_same_and_different_initialisation(tmp_path):
    """With a learning rate of nearly nothing the networks are their initialisation."""
    still = replace(TINY, training=replace(TINY.training, learning_rate=1e-30))
    same = load_zoo(still, 3, 2, root=tmp_path)
    different = load_zoo(replace(still, initialisation="different"), 3, 2, root=tmp_path)
    assert np.ptp(same.train.parameters, 0).max() == 0
    assert np.array_equal(same.train.parameters[0], same.held_out.parameters[0])
    assert np.abs(different.train.parameters[0] - different.train.parameters[1]).max() > 0.01


def test_diverged_episodes_are_left_out_and_counted(tmp_path, monkeypatch):
    train = zoo_store.train_networks

    def second_fails(*args, **kwargs):
        trained = train(*args, **kwargs)
        return trained._replace(finite=trained.finite & (torch.arange(len(trained.finite)) != 1))

    def all_fail(*args, **kwargs):
        trained = train(*args, **kwargs)
        return trained._replace(finite=torch.zeros_like(trained.finite))

    monkeypatch.setattr(zoo_store, "train_networks", second_fails)
    zoo = load_zoo(TINY, 4, 3, root=tmp_path)
    assert (zoo.train.diverged, zoo.held_out.diverged) == (1, 1)
    assert zoo.train.indices.tolist() == [0, 2, 3]
    assert len(zoo.train.parameters) == len(zoo.train.accuracy) == 3
    monkeypatch.setattr(zoo_store, "train_networks", all_fail)
    with pytest.raises(PudNetError, match=r"diverged for 4 of 4 train episodes; lower training\.learning_rate"):
        load_zoo(TINY, 4, 4, root=tmp_path / "all")


def test_a_rate_that_is_far_too_high_diverges_without_nan_in_the_result(tmp_path):
    wild = replace(TINY, training=replace(TINY.training, epochs=2, learning_rate=1e30))
    with pytest.raises(PudNetError, match="diverged"):
        load_zoo(wild, 4, 4, root=tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    load_zoo(TINY, 2, 2, root=tmp_path)
    path = next(tmp_path.rglob("train-*.safetensors"))
    path.write_bytes(b"not a zoo")
    with pytest.raises(PudNetError, match=r"train-000000-000002\.safetensors is damaged .* delete it"):
        load_zoo(TINY, 2, 2, root=tmp_path)


def test_a_flipped_bit_is_noticed_in_what_grows_and_all_that_ships_has_a_checksum(tmp_path):
    load_zoo(TINY, 2, 2, root=tmp_path)
    path = next(tmp_path.rglob("train-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(PudNetError, match=r"train-000000-000002\.safetensors is damaged .*checksum"):
        load_zoo(TINY, 2, 2, root=tmp_path)
    for shipped in zoo_store.SHIPPED.parent.rglob("*.safetensors"):
        with safe_open(shipped, "pt") as file:
            assert len(file.metadata()["checksum"]) == 64, shipped


def test_other_configurations_have_other_folders():
    others = ({}, {"seed": 1}, {"per_class": 4}, {"source": "emoji"})
    names = [zoo_name(replace(TINY, **changes)) for changes in others]
    assert len(set(names)) == 4
    assert names[3].startswith("emoji-same-")


@pytest.mark.parametrize("source", ["fashion", "emoji", "glyphs"])
@pytest.mark.parametrize("initialisation", ["same", "different"])
def test_the_shipped_zoo_is_that_of_the_present_configuration(tmp_path, source, initialisation):
    """Were it not found, networks would be trained, and progress would be asked."""
    asked: list[tuple[int, int]] = []
    zoo = load_zoo(ZooConfig(source, initialisation), 120, 60, steps_of(asked), tmp_path)
    assert asked == []
    assert list(tmp_path.iterdir()) == []
    assert len(zoo.train.parameters) == 120
    assert zoo.train.diverged == zoo.held_out.diverged == 0
    assert zoo.train.accuracy.mean() > 100 / zoo.episodes.ways + 20  # they learnt something


def test_a_shipped_network_is_trained_again_from_its_seed(tmp_path, monkeypatch):
    shipped = load_zoo(ZooConfig("emoji"), 2, 2, root=tmp_path)
    monkeypatch.setattr(zoo_store, "SHIPPED", tmp_path / "nothing")
    again = load_zoo(ZooConfig("emoji"), 2, 2, root=tmp_path)
    off = np.abs(again.train.parameters - shipped.train.parameters).max()
    assert off < 0.05, "another processor rounds otherwise, and training carries that on, but not far"


def test_held_out_episodes_hold_no_training_class():
    episodes = ZooEpisodes(TINY)
    split = default_class_split("glyphs", episodes.train.num_classes)
    unseen = set(split.unseen)
    assert set(episodes.drawn("held-out", np.arange(30))[0].flat) <= unseen
    assert not set(episodes.drawn("train", np.arange(30))[0].flat) & unseen


def test_an_episode_is_a_function_of_its_number():
    episodes, again = ZooEpisodes(TINY), ZooEpisodes(TINY)
    classes, train, test = episodes.indices("train", 3)
    assert all(np.array_equal(a, b) for a, b in zip((classes, train, test), again.indices("train", 3), strict=True))
    assert episodes.train.labels[train].tolist() == np.repeat(classes, 3).tolist()
    assert episodes.test.labels[test].tolist() == np.repeat(classes, 2).tolist()
    assert episodes.names("train", 3) == tuple(episodes.train.class_names[c] for c in classes)
    pictures, _ = episodes.images("train", np.array([3]))
    assert torch.equal(pictures[0], episodes.train.images[train])


def test_ways_follow_the_number_of_classes(images):
    few = images(classes=15, per_class=4, name="toy")
    episodes = ZooEpisodes(ZooConfig(per_class=2, test_per_class=2), (few, few))
    assert episodes.ways == 3
    with pytest.raises(PudNetError, match="episodes of 9 classes need"):
        ZooEpisodes(ZooConfig(ways=9, per_class=2, test_per_class=2), (few, few))
    with pytest.raises(PudNetError, match="Take fewer ways or images"):
        ZooEpisodes(ZooConfig(per_class=5, test_per_class=2), (few, few))


def test_too_small_a_zoo_is_refused(tmp_path):
    with pytest.raises(PudNetError, match="take at least 2"):
        load_zoo(TINY, 1, 2, root=tmp_path)


def test_a_zoo_that_starts_from_predictions(tmp_path):
    with pytest.raises(PudNetError, match=r"needs training\.width = 16"):
        load_zoo(replace(TINY, initialisation="predicted"), 2, 2, root=tmp_path)
    episodes = ZooEpisodes(ZooConfig("glyphs"))
    own = zoo_store.predict_episodes(episodes, "train", np.arange(2))
    alone = zoo_store.predict_episodes(episodes, "train", np.array([1]))
    assert own["blocks.0.0.weight"].shape == (2, 16, 3, 3, 3)
    torch.testing.assert_close(own["blocks.2.0.weight"][1], alone["blocks.2.0.weight"][0])
    training = ZooTraining(width=16, epochs=1, batch_size=200, learning_rate=1e-30)
    zoo = load_zoo(ZooConfig("glyphs", "predicted", training=training), 2, 2, root=tmp_path)
    mean = zoo_store.predicted_mean(episodes, 16)
    flat = torch.cat([mean[name].flatten() for name in parameter_shapes(zoo.config) if name in mean])
    first = next(iter(parameter_shapes(zoo.config).values())).numel()
    np.testing.assert_allclose(zoo.train.parameters[0, :first], flat[:first].numpy(), atol=2e-3)
