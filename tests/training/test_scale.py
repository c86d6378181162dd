"""Meta-training on two ranks equals one process; a lost rank, a full memory and an early stop end as they should."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pudnet_lib import speed
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.meta import MetaConfig, MetaStep, ScaleConfig, meta_train, stale
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.runs import explained, make_fabric

QUICK = MetaConfig(steps=3, validate_every=0, checkpoint_every=0, accelerator="cpu")
# As in ranks.py
CONFIG = MetaConfig(
    steps=6, episodes_per_step=2, validate_every=3, validation_episodes=3, checkpoint_every=2, accelerator="cpu"
)


def sampler(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (24, 3, 8, 8), generator=generator, dtype=torch.uint8)
    data = ImageDataset(images, torch.arange(4).repeat_interleave(6), tuple("abcd"), "noise")
    return EpisodeSampler([data], EpisodeConfig(2, 2, 2, 2), seed)


def model():
    return PudNet(PudNetConfig(target=TargetConfig("convnet3", width=4), dim=8))


def same(one, other, tolerance=0.0):
    assert set(one) == set(other)
    return all(bool((tensor - other[name]).abs().max() <= tolerance) for name, tensor in one.items())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where two gloo ranks have run all scenarios of ``ranks.py``."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def found(place):
    return json.loads((place / "found.json").read_text())


def test_two_ranks_have_the_gradient_of_one_process_with_both_episodes(place, found, monkeypatch):
    assert found["one_gradient"]["statuses"] == [0, 0], found["one_gradient"]["texts"]
    net = model()
    # One after the other, as the ranks take them; at once, the sums are other ones (test_grouped.py compares those).
    monkeypatch.setattr(speed, "episodes_at_once", lambda *_: 1)
    meta_train(net, sampler(), replace(CONFIG, steps=1, validate_every=0, clip_norm=0.0), progress=False)
    ranks = [load_file(place / f"gradient-{rank}.safetensors") for rank in (0, 1)]
    assert same(ranks[0], ranks[1])
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(ranks[0][name], parameter.grad, atol=5e-6, rtol=1e-5)
    assert max(float(g.abs().max()) for g in ranks[0].values()) > 1e-3  # it is no comparison of zeros


def test_a_killed_rank_is_a_clear_error_on_the_other_within_a_minute(found):
    killed = found["killed"]
    assert killed["statuses"] == [1, -9]
    assert killed["seconds"] < 60
    assert "PudNetError: Rank 0 of 2 lost another one in step 4" in killed["texts"][0]
    assert "start the same command again" in killed["texts"][0]


def test_killed_and_resumed_gives_the_weights_of_an_undisturbed_run(place, found):
    assert found["whole"]["statuses"] == found["resumed"]["statuses"] == [0, 0], found["resumed"]["texts"]
    whole = [load_file(place / f"whole-{rank}.safetensors") for rank in (0, 1)]
    resumed = [load_file(place / f"resumed-{rank}.safetensors") for rank in (0, 1)]
    assert same(whole[0], whole[1])
    assert same(whole[0], resumed[0])
    assert same(whole[0], resumed[1])


def test_a_run_goes_on_with_another_number_of_ranks(place):
    alone, resumed = model(), model()
    meta_train(alone, sampler(), CONFIG, sampler(1), progress=False)
    result = meta_train(resumed, sampler(), CONFIG, sampler(1), place / "one", progress=False)
    assert [int(row["step"]) for row in result.history] == [1, 2, 3, 4, 5, 6]  # two steps by two ranks, four here
    # Adam's first steps divide by the gradient's size: what differs by rounding is worth at most a few learning rates
    whole = load_file(place / "whole-0.safetensors")
    assert same(whole, resumed.state_dict(), 1e-4)
    assert same(alone.state_dict(), resumed.state_dict(), 1e-4)
    validations = [row["validation"] for row in result.history if "validation" in row]
    assert len(validations) == 2


def test_ranks_with_different_checkpoints_all_stop(found):
    assert found["apart"]["statuses"] == [1, 1]
    assert all("must be a folder that all share" in text for text in found["apart"]["texts"])


def test_all_ranks_stop_early_at_the_same_step(place, found):
    assert found["early"]["statuses"] == [0, 0], found["early"]["texts"]
    assert [json.loads((place / f"early-{rank}.json").read_text()) for rank in (0, 1)] == [3, 3]


def test_when_a_run_is_stale_by_hand():
    def rows(*values):
        return [{"loss": 1.0}, *({"validation": value} for value in values)]

    assert not stale(rows(0.5, 0.4), 2)
    assert stale(rows(0.5, 0.4, 0.5), 2)
    assert not stale(rows(0.5, 0.4, 0.6), 2)
    assert not stale(rows(0.5, 0.4, 0.3, 0.2), 0)


def test_an_early_stop_holds_after_a_resume(tmp_path):
    config = replace(QUICK, steps=9, learning_rate=1e-12, validate_every=1, validation_episodes=1)
    for _ in range(2):
        net = model()
        result = meta_train(net, sampler(), config, sampler(1), tmp_path, False, scale=ScaleConfig(patience=1))
        assert result.steps == 2


@pytest.mark.parametrize("scale", [ScaleConfig(compile="eager"), ScaleConfig(channels_last=True)], ids=str)
def test_compiled_and_channels_last_steps_learn_the_same(scale):
    plain, scaled = model(), model()
    meta_train(plain, sampler(), QUICK, progress=False)
    meta_train(scaled, sampler(), QUICK, progress=False, scale=scale)
    assert same(plain.state_dict(), scaled.state_dict(), 1e-5)


def test_channels_last_reaches_the_predicted_weights():
    step = MetaStep(model(), 4, QUICK.weights)
    seen = []
    features = step.model.features
    step.model.features = lambda parameters, images: seen.append(parameters) or features(parameters, images)
    for switch in (False, True):
        step.channels_last = switch
        step(sampler().episode(0))
    layouts = [p["blocks.1.0.weight"].is_contiguous(memory_format=torch.channels_last) for p in seen]
    assert layouts == [False, True]


def test_bf16_keeps_weights_and_losses_in_full_precision():
    net, plain = model(), model()
    result = meta_train(net, sampler(), replace(QUICK, precision="bf16-mixed"), progress=False)
    reference = meta_train(plain, sampler(), QUICK, progress=False)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert result.history[0]["loss"] == pytest.approx(reference.history[0]["loss"], rel=0.05)
    assert not same(net.state_dict(), plain.state_dict())


def test_out_of_memory_names_the_knobs(monkeypatch):
    def full(self, episode):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(MetaStep, "forward", full)
    with pytest.raises(PudNetError) as caught:
        meta_train(model(), sampler(), QUICK, progress=False)
    text = str(caught.value)
    assert "ran out of memory in step 1 (CUDA out of memory. Tried to allocate 20.00 GiB.)" in text
    for knob in (
        "meta.precision to bf16-mixed (now 32-true)",
        "episodes.ways (now 2)",
        "episodes.query_per_class (now 2)",
        "pool.size (now 8)",
        "pudnet.target.width",
        "share_generators",
    ):
        assert knob in text


def test_other_errors_go_through_as_they_are():
    class One:
        world_size, global_rank = 1, 0

    class Two:
        world_size, global_rank = 2, 1

    with pytest.raises(RuntimeError, match="Connection"), explained(One(), QUICK, sampler(), 0):
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), explained(Two(), QUICK, sampler(), 0):
        raise RuntimeError("shapes differ")
    with (
        pytest.raises(PudNetError, match="Rank 1 of 2 lost another one in step 8"),
        explained(Two(), QUICK, sampler(), 7),
    ):
        raise RuntimeError("NCCL communicator was aborted")


def test_uneven_episodes_and_bad_values_are_refused(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PudNetError, match=r"episodes_per_step is 6; expected a multiple of the 4 ranks"):
        make_fabric(replace(QUICK, episodes_per_step=6), ScaleConfig())
    for values in ({"patience": -1}, {"rank_timeout": 0}):
        with pytest.raises(PudNetError):
            ScaleConfig(**values)
