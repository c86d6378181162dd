"""The trust report: cross-validation by hand and by a plain loop, distance to the pool, the advice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pudnet_lib.core import PudNet
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.trust import (
    NEIGHBOURS,
    PoolDistance,
    TrustConfig,
    _facts,
    advise,
    cross_validate,
    default_pool,
    fold_of,
    pool_distance,
    pool_embeddings,
    trust_report,
)


def test_cross_validation_of_fixed_features_equals_a_plain_loop(images):
    data, features = images(3, 6), torch.randn(18, 5, generator=torch.Generator().manual_seed(3))
    fold = fold_of(data, 3)
    right, left_out, took = cross_validate(lambda _: pytest.fail("nothing to fit"), data, 3, fixed=features)
    for i in range(18):
        known = (fold != fold[i]) & (data.labels[:, None] == torch.arange(3)).T  # (3, 18)
        means = torch.stack([features[mask].mean(0) for mask in known])
        answer = int(torch.cosine_similarity(features[i], means, dim=1).argmax())
        assert bool(right["class means"][i]) == (answer == int(data.labels[i]))
    assert left_out.all()
    assert took == []


def with_items(data: ImageDataset, items: list[int]) -> ImageDataset:
    return ImageDataset(data.images, data.labels, data.class_names, data.name, torch.tensor(items))


def test_folds_keep_items_together_and_never_empty_a_class(images):
    data = with_items(images(3, 4), [0, 0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7])
    fold = fold_of(data, 2)
    assert fold[0] == fold[1]
    assert fold[4:8].tolist() == [-1] * 4  # one item only: leaving it out would leave nothing of the class
    for index in range(2):
        left = data.labels[fold != index]
        assert torch.bincount(left, minlength=3).min() >= 1
    assert torch.equal(fold, fold_of(data, 2))


def test_cross_validation_classifies_each_image_with_a_network_that_never_saw_it(pudnet, images):
    data, seen = images(3, 6), []
    model = pudnet()
    right = cross_validate(lambda d: seen.append(d) or predict(model, d), data, 3)[0]["class means"]
    assert [len(d) for d in seen] == [12, 12, 12]
    fold = fold_of(data, 3)
    for index, training in enumerate(seen):
        assert torch.equal(training.images, data.images[fold != index])
        network = predict(model, training)
        answers = torch.tensor([network(image[None]).argmax(1).item() for image in data.images[fold == index]])
        assert torch.equal(right[fold == index], answers == data.labels[fold == index])


def test_report_on_images_that_are_easy(pudnet, images):
    model, data = pudnet(), images(3, 8)
    network = predict(model, data)
    before, state = torch.random.get_rng_state(), {n: t.clone() for n, t in model.state_dict().items()}
    report = trust_report(network, data, model, TrustConfig(folds=4), pool=(images(4, 8, seed=5), images(3, 8, seed=6)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert report.images == 24
    assert report.chance == pytest.approx(100 / 3)
    assert report.low <= report.accuracy <= report.high
    assert report.images_per_class == 8
    assert (report.distance or 0) > 0
    text = " ".join(report.lines())
    assert f"{report.accuracy:.1f} %" in text
    assert f"Advice: {report.advice}." in text


def test_an_estimate_never_reuses_what_the_network_was_fitted_to(images):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (80, 3, 32, 32), generator=generator, dtype=torch.uint8)
    data = ImageDataset(noise, torch.arange(80) % 2, ("a", "b"), "noise")
    network = predict(load_pudnet(), data)
    assert network.origin["predictor"] == "pudnet"
    report = trust_report(network, data)  # the shipped predictor is loaded by itself
    assert report.measured == "cross-validation"
    assert report.accuracy < 75
    assert "not reliably better than guessing" in " ".join(report.reasons)
    assert trust_report(network, data, test=data.subset(torch.arange(40))).measured == "cross-validation"
    new = ImageDataset(255 - noise[:8], torch.arange(8) % 2, ("a", "b"))
    mixed = ImageDataset(torch.cat([noise, new.images]), torch.arange(88) % 2, ("a", "b"))
    assert trust_report(network, data, test=mixed).images == len(new)


def test_a_network_of_an_unknown_predictor_is_refused_or_measured(pudnet, images):
    data, more = images(2, 5), images(2, 9)
    more = replace(more, images=255 - more.images)  # no copies
    network = predict(pudnet(), data)
    with pytest.raises(PudNetError, match=r"Pass model=.* or test="):
        trust_report(network, data)
    report = trust_report(network, data, test=more)
    assert (report.measured, report.images, report.distance) == ("test part", 18, None)
    assert "18 images of its own test part" in report.lines()[0]
    assert report.accuracy == pytest.approx(100 * float((network(more.images).argmax(1) == more.labels).float().mean()))


def test_report_of_a_shared_network_has_no_distance(images):
    model, data = SharedNetwork(SharedConfig(TargetConfig("convnet3", 4))), images(2, 5)
    assert trust_report(predict(model, data), data, model).distance is None


def test_report_refuses_other_classes_and_single_images(pudnet, images):
    model, data = pudnet(), images(3, 4)
    network = predict(model, data)
    with pytest.raises(PudNetError, match="give the images for which it was predicted"):
        trust_report(network, images(2, 4), model)
    with pytest.raises(PudNetError, match="needs two per class"):
        trust_report(network, with_items(data, [0] * 4 + [1] * 4 + [2] * 4), model)


def test_imbalance_is_not_guessing_and_a_constant_answer_is():
    labels = torch.tensor([0] * 300 + [1] * 4)
    right = torch.ones(304, dtype=torch.bool)
    right[-1] = False  # 303 of 304
    facts = _facts(labels, right, ("many", "few"))
    assert facts["per_class"] == {"many": 100.0, "few": 75.0}
    assert facts["balanced"] == 87.5
    assert facts["accuracy"] == pytest.approx(100 * 303 / 304)
    more = {"pixel_accuracy": 50.0, "images_per_class": 152}
    assert "guessing" not in " ".join(advise(facts | more, None, TrustConfig())[1])
    constant = _facts(labels, labels == 0, ("many", "few"))
    assert constant["accuracy"] > 98
    assert "guessing" in " ".join(advise(constant | more, None, TrustConfig())[1])


def test_two_classes_of_the_pool_itself_are_not_called_unlike_the_pool():
    model, pool = load_pudnet(), default_pool()
    assert pool is not None
    far = 0
    for number, data in enumerate(pool):
        for seed in range(6):
            order = torch.randperm(data.num_classes, generator=torch.Generator().manual_seed(100 * number + seed))
            some = data.select_classes(order[:2].tolist()).at_most(20, seed)
            found = pool_distance(model, some, None, pool)
            far += found is not None and found.ratio > TrustConfig().far and found.share == 0
    assert far == 0


def test_pool_is_embedded_once_until_the_weights_change(pudnet, images, monkeypatch):
    model, pool = pudnet(), (images(4, 8, seed=1), images(4, 8, seed=2, name="other"))
    calls = []
    embed = PudNet.embed
    monkeypatch.setattr(PudNet, "embed", lambda self, *a: calls.append(1) or embed(self, *a))
    first = pool_embeddings(model, pool, episodes=4)
    assert len(calls) == 8
    assert pool_embeddings(model, pool, episodes=4) is first
    with torch.no_grad():
        model.scale.add_(1)
    assert pool_embeddings(model, pool, episodes=4) is not first


def test_distance_of_a_member_is_ordinary_and_that_of_other_images_is_not(pudnet, images):
    model, pool = pudnet(), (images(6, 20, seed=1), images(6, 20, seed=2, name="other"))
    dark = images(3, 20, seed=3)
    dark = ImageDataset(dark.images // 20, dark.labels, dark.class_names, "dark")
    member, stranger = pool_distance(model, pool[1], None, pool), pool_distance(model, dark, None, pool)
    assert member is not None
    assert stranger is not None
    assert member.nearest == "other"
    assert stranger.ratio > 2 * member.ratio
    assert stranger.share == 0


def test_distance_equals_a_plain_loop(pudnet, images):
    model, pool, data = pudnet(), (images(4, 8, seed=1), images(4, 8, seed=2, name="other")), images(3, 8)
    known, found = pool_embeddings(model, pool, 3, 8), pool_distance(model, data, None, pool)
    with torch.no_grad():
        here = (model.embed(data.sketch(8)).flatten() - known.centre) / known.spread
    all_distances = [sorted(float((v - w).norm()) for w in known.vectors)[1:] for v in known.vectors]  # [0] is itself
    mean = [distances[:NEIGHBOURS] for distances in all_distances]
    usual = sorted(sum(m) / NEIGHBOURS for m in mean)[(len(mean) - 1) // 2]
    nearest = sorted(float((here - v).norm()) for v in known.vectors)[:NEIGHBOURS]
    assert found is not None
    assert found.ratio == pytest.approx(sum(nearest) / NEIGHBOURS / usual, rel=1e-3)


FACTS = {
    "accuracy": 80.0, "balanced": 80.0, "balanced_low": 75.0, "per_class": dict.fromkeys("abcde", 80.0),
    "pixel_accuracy": 50.0, "images_per_class": 10,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "use it as it is"),
        ({"images_per_class": 30}, "fine-tune it"),
        ({"images_per_class": 30, "accuracy": 97.0, "balanced": 97.0}, "use it as it is"),
        ({"accuracy": 97.0, "balanced": 97.0, "balanced_low": 93.0, "pixel_accuracy": 94.0}, "use it as it is"),
        ({"balanced_low": 19.0}, "collect more images"),
        ({"balanced_low": 45.0, "images_per_class": 30}, "fine-tune it"),
        ({"balanced_low": 45.0, "images_per_class": 200}, "train from scratch"),
    ],
)
def test_advice(changes, expected):
    advice, reasons = advise(FACTS | changes, None, TrustConfig())
    assert advice == expected
    assert len(reasons) >= 1


def test_far_images_are_named_in_the_reasons():
    _, reasons = advise(FACTS, PoolDistance(9.0, "emoji", 0.0), TrustConfig())
    assert "unlike all that the predictor was trained with" in reasons[0]
