from __future__ import annotations

import pytest
import torch

from pudnet_lib import speed as grouped
from pudnet_lib.core import PudNet
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaStep
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig, build_target

SWITCHES = [
    {},
    {"pooling": "class", "filter_norm": "standardise"},
    {"pooling": "mean_std", "recurrence": "none", "residual": True},
    {"embedding": "constant"},
]


@pytest.fixture
def sampler(images) -> EpisodeSampler:
    return EpisodeSampler([images(), images(seed=1, name="other")], EpisodeConfig(2, 2, 2, 2))


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_several_episodes_at_once_equal_the_plain_loop(pudnet, sampler, switches: dict[str, object]):
    step = MetaStep(pudnet(**switches), sampler.num_classes, LossWeights()).double()
    episodes = [sampler.episode(index) for index in range(3)]
    episodes = [
        g._replace(**{n: getattr(g, n).double() / 255 for n in ("sketch", "support", "query")}) for g in episodes
    ]
    losses = [step(episode) for episode in episodes]
    torch.stack([loss.total for loss in losses]).mean().backward()
    plain = {name: p.grad for name, p in step.named_parameters()}
    step.zero_grad(set_to_none=True)
    parts = grouped.parts(step, episodes)
    assert [len(part) for part in parts] == [3]
    together = step(parts[0])
    together.total.backward()
    for name, value in together._asdict().items():
        torch.testing.assert_close(value, torch.stack([getattr(loss, name) for loss in losses]).mean())
    for name, parameter in step.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], atol=1e-5, rtol=1e-5)


def test_each_episode_has_its_own_network_and_statistics(pudnet):
    model = pudnet()
    sketches = torch.randint(0, 256, (3, 4, 3, 8, 8), dtype=torch.uint8)
    images = torch.randint(0, 256, (3, 5, 3, 8, 8), dtype=torch.uint8) // torch.tensor(
        [1, 2, 4], dtype=torch.uint8
    ).view(3, 1, 1, 1, 1)
    parameters = grouped.of_episodes(model, sketches, torch.zeros(3, 4, dtype=torch.int64))
    features = grouped.features_of_episodes(model.template, parameters, images)
    assert features.shape == (3, 5, 4)
    for b in range(3):
        torch.testing.assert_close(features[b], model.features(model(sketches[b]), images[b]), atol=1e-5, rtol=1e-4)


def test_episodes_of_other_shapes_and_of_other_tasks_go_alone(pudnet, sampler):
    step = MetaStep(pudnet(), sampler.num_classes, LossWeights())
    one, two, three = (sampler.episode(index) for index in range(3))
    small = two._replace(query=two.query[:-1])
    assert not any(isinstance(part, list) for part in grouped.parts(step, [one, small]))
    assert [len(part) for part in grouped.parts(step, [one, two, three])] == [3]
    assert grouped.parts(step, ["another task's"]) == ["another task's"]  # type: ignore[list-item]


@pytest.mark.parametrize("switches", [{"refine": LastBlock(1)}, {"encoder_norm": "batch"}], ids=str)
def test_what_would_mix_episodes_goes_one_by_one(pudnet, switches: dict[str, object]):
    images = torch.zeros(4, 3, 8, 8)
    assert grouped.episodes_at_once(pudnet(**switches), images) == 1
    assert grouped.episodes_at_once(SharedNetwork(SharedConfig(TargetConfig(width=4))), images) == 1
    assert grouped.episodes_at_once(PudNet(build_target(TargetConfig("resnet18", 4)), dim=8), images) == 1


def test_as_many_episodes_at_once_as_fit_32_mib():
    images = torch.zeros(100, 3, 32, 32)  # 4 bytes × width × 100 × 1024 an episode's first maps
    models = {w: PudNet(build_target(TargetConfig(width=w)), dim=8) for w in (4, 8, 16, 64, 128)}
    fits = {width: grouped.episodes_at_once(model, images) for width, model in models.items()}
    assert fits == {4: 20, 8: 10, 16: 5, 64: 1, 128: 1}
