from __future__ import annotations

import csv
import math
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pudnet_lib.core import ParameterModel
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaConfig, MetaStep, meta_train, validate
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.runs import interrupts_held

QUICK = MetaConfig(steps=6, validate_every=0, checkpoint_every=0, accelerator="cpu")


@pytest.fixture
def episodes(images) -> EpisodeSampler:
    return EpisodeSampler([images(), images(seed=1, name="other")], EpisodeConfig(2, 2, 2, 2))


def equal(one: ParameterModel, other: ParameterModel) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(t, theirs[n]) for n, t in one.state_dict().items())


def test_learning_rates_by_hand():
    config = MetaConfig(steps=8, learning_rate=2.0, warmup=3)
    # half a cosine over 8 steps, times 1/4, 2/4, 3/4, 1 in the first ones
    cosine = [math.cos(math.pi * t / 8) for t in range(8)]
    assert config.rate(0) == pytest.approx(2 * 1 / 4)
    assert config.rate(1) == pytest.approx(2 * 2 / 4 * (1 + cosine[1]) / 2)
    assert config.rate(4) == pytest.approx(1.0)  # cos(π/2) = 0
    assert config.rate(7) == pytest.approx(1 + cosine[7])
    assert [MetaConfig(steps=8, schedule="constant").rate(t) for t in (0, 7)] == [1e-3, 1e-3]


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"learning_rate": 0}, {"schedule": "linear"}, {"episodes_per_step": 0}]
)
def test_bad_configs_are_refused(values: dict[str, object]):
    with pytest.raises(PudNetError):
        MetaConfig(**values)  # type: ignore[arg-type]


# All of a residual generator but its base and basis has no gradient in the first step: the basis is still 0.
ASLEEP = ("encoder.", "ahru.", ".code.", ".mix.")


@pytest.mark.parametrize(
    ("switches", "asleep"),
    [
        ({}, ()),
        ({"pooling": "mean_std", "recurrence": "gru", "filter_norm": "standardise"}, ()),
        ({"pooling": "class", "recurrence": "none"}, ()),
        ({"refine": LastBlock(1)}, ()),
        ({"embedding": "constant"}, ()),
        ({"residual": True}, ASLEEP),
    ],
    ids=str,
)
def test_the_gradient_reaches_every_parameter(pudnet, episodes, switches: dict[str, object], asleep: tuple[str, ...]):
    step = MetaStep(pudnet(**switches), episodes.num_classes, LossWeights())
    step(episodes.episode(0)).total.backward()
    silent = {n for n, p in step.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)}
    assert silent == {n for n, _ in step.named_parameters() if any(part in n for part in asleep)}


def test_the_first_step_equals_plain_adam(pudnet, episodes):
    model, reference = pudnet(), pudnet()
    config = MetaConfig(steps=1, validate_every=0, weights=LossWeights(1, 0, 0), clip_norm=0, accelerator="cpu")
    result = meta_train(model, episodes, config, progress=False)
    loss = MetaStep(reference, episodes.num_classes, LossWeights(1, 0, 0))(episodes.episode(0)).total
    loss.backward()
    optimiser = torch.optim.Adam(reference.parameters(), 1e-3, betas=(0.5, 0.999))
    optimiser.step()
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)  # the trainer's Adam is the fused one
    assert result.history[0]["loss"] == loss.item()


def test_several_episodes_a_step_average_their_gradients(pudnet, episodes):
    model, reference = pudnet(), pudnet()
    config = MetaConfig(steps=1, validate_every=0, episodes_per_step=3, weights=LossWeights(1, 0, 0), accelerator="cpu")
    meta_train(model, episodes, config, progress=False)
    step = MetaStep(reference, episodes.num_classes, LossWeights(1, 0, 0))
    (sum(step(episodes.episode(i)).total for i in range(3)) / 3).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 10.0)
    torch.optim.Adam(reference.parameters(), 1e-3, betas=(0.5, 0.999)).step()
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["pudnet", "shared"])
def test_one_episode_can_be_learned_by_heart(pudnet, images, kind: str):
    sampler = EpisodeSampler([images(classes=3, per_class=12)], EpisodeConfig(3, 4, 4, 4))
    sampler.episode = lambda index, source=None: EpisodeSampler.episode(sampler, 0)  # type: ignore[method-assign]
    model = pudnet() if kind == "pudnet" else SharedNetwork(SharedConfig(TargetConfig(width=4)))
    config = MetaConfig(steps=60, validate_every=0, learning_rate=5e-3, accelerator="cpu")
    history = meta_train(model, sampler, config, progress=False).history
    assert history[-1]["accuracy"] == 1.0
    assert history[-1]["cosine"] < 0.3 < history[0]["cosine"]
    assert history[-1]["auxiliary"] < history[0]["auxiliary"]


def log_steps(folder: Path) -> list[int]:
    with (folder / "log.csv").open(newline="") as file:
        return [int(float(row["step"])) for row in csv.DictReader(file)]


@settings(max_examples=5)
@given(cut=st.integers(1, 5), every=st.integers(0, 3), second=st.integers(1, 5))
def test_a_run_cut_anywhere_resumes_to_the_same_bits(pudnet, episodes, tmp_path_factory, cut, every, second):
    folder = tmp_path_factory.mktemp("run")
    config = MetaConfig(
        steps=6, validate_every=2, validation_episodes=2, checkpoint_every=every, warmup=2, accelerator="cpu"
    )
    whole, cut_off = pudnet(), pudnet()
    expected = meta_train(whole, episodes, config, episodes, progress=False).history

    def cutter(at: int):
        def on_step(done: int) -> None:
            if done == at:
                raise KeyboardInterrupt

        return on_step

    for at in sorted({cut, second}):
        with pytest.raises(KeyboardInterrupt):
            meta_train(cut_off, episodes, config, episodes, folder, False, cutter(at))
        assert log_steps(folder) == list(range(1, at + 1))
        cut_off = pudnet()  # a new process would start so
    torch.rand(3)  # whatever else drew from the global generator
    result = meta_train(cut_off, episodes, config, episodes, folder, False)
    assert equal(whole, cut_off)
    assert result.steps == 6
    assert log_steps(folder) == [1, 2, 3, 4, 5, 6]
    for row, wanted in zip(result.history, expected, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {k: v for k, v in wanted.items() if k != "seconds"}
    again = pudnet()
    assert meta_train(again, episodes, config, episodes, folder, False).steps == 6  # a finished run is only loaded
    assert equal(again, whole)


def test_a_killed_run_resumes_from_its_last_checkpoint(pudnet, episodes, tmp_path: Path, monkeypatch):
    config = MetaConfig(steps=6, validate_every=0, checkpoint_every=2, accelerator="cpu")
    whole, killed = pudnet(), pudnet()
    meta_train(whole, episodes, config, progress=False)
    state = tmp_path / "state.safetensors"
    kept: list[bytes] = []

    def on_step(done: int) -> None:
        if done == 5:  # a kill writes nothing more: put back what stood there
            kept.append(state.read_bytes())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(killed, episodes, config, None, tmp_path, False, on_step)
    state.write_bytes(kept[0])
    resumed = pudnet()
    meta_train(resumed, episodes, config, None, tmp_path, False)
    assert equal(whole, resumed)
    assert log_steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_an_exception_inside_a_step_keeps_the_last_whole_checkpoint(pudnet, episodes, tmp_path: Path, monkeypatch):
    config = MetaConfig(steps=4, validate_every=0, checkpoint_every=1, accelerator="cpu")
    whole, hurt = pudnet(), pudnet()
    meta_train(whole, episodes, config, progress=False)
    step = torch.optim.Adam.step
    calls: list[int] = []

    def breaks(self, *args, **kwargs):
        calls.append(1)
        result = step(self, *args, **kwargs)
        if len(calls) == 3:  # the weights are those after step 3 already
            raise RuntimeError("out of memory")
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        meta_train(hurt, episodes, config, None, tmp_path, False)
    monkeypatch.undo()
    assert log_steps(tmp_path) == [1, 2]
    resumed = pudnet()
    meta_train(resumed, episodes, config, None, tmp_path, False)
    assert equal(whole, resumed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, r"config\.learning_rate was 0\.001, now 0\.5"),
        ({"weights": LossWeights(1, 0, 1)}, r"config\.weights\.auxiliary was 1\.0, now 0"),
        ({"alpha": 0.2}, r"model\.alpha was 0\.1, now 0\.2"),
        ({"ways": 3}, r"episodes\.ways was 2, now 3"),
        ({"seed": 1}, r"sampler\.seed was 0, now 1"),
        ({"pool": "another"}, r"pool\.another was None"),
    ],
)
def test_a_resume_with_other_settings_names_the_field(
    pudnet, images, tmp_path, change: dict[str, object], message: str
):
    def start(**values: object) -> None:
        meta = {k: v for k, v in values.items() if k in ("learning_rate", "weights")}
        config = MetaConfig(steps=1, validate_every=0, accelerator="cpu", **meta)  # type: ignore[arg-type]
        pool = [images(name=values.get("pool", "toy"))]
        sampler = EpisodeSampler(pool, EpisodeConfig(values.get("ways", 2), 2, 2, 2), values.get("seed", 0))  # type: ignore[arg-type]
        meta_train(pudnet(alpha=values.get("alpha", 0.1)), sampler, config, None, tmp_path, False)

    start()
    with pytest.raises(PudNetError, match=message):
        start(**change)


def test_nan_stops_before_it_reaches_weights_or_checkpoint(pudnet, episodes, tmp_path: Path):
    config = MetaConfig(steps=5, validate_every=0, checkpoint_every=2, accelerator="cpu")
    model = pudnet()

    def poison(done: int) -> None:
        if done == 3:
            model.scale.data.fill_(float("nan"))

    with pytest.raises(PudNetError, match=r"loss became nan in step 4\. Lower learning_rate \(now 0\.001\)"):
        meta_train(model, episodes, config, None, tmp_path, False, poison)
    resumed, whole = pudnet(), pudnet()
    meta_train(whole, episodes, config, progress=False)
    meta_train(resumed, episodes, config, None, tmp_path, False)  # from step 2
    assert equal(whole, resumed)
    assert log_steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_nan_gradient_of_a_finite_loss_is_caught(pudnet, episodes):
    model = pudnet()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    model.ahru.start.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(PudNetError, match="gradient became infinite or NaN in step 1"):
        meta_train(model, episodes, QUICK, progress=False)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_validation_is_the_mean_over_episodes_and_changes_nothing(pudnet, episodes):
    step = MetaStep(pudnet(), episodes.num_classes, LossWeights()).train()
    before = {n: t.clone() for n, t in step.state_dict().items()}
    found = validate(step, episodes, 4, torch.device("cpu"))
    by_hand = [step(episodes.episode(i, source=i % 2)).accuracy.item() for i in range(4)]
    assert found == pytest.approx(sum(by_hand) / 4)
    assert step.training
    assert all(torch.equal(before[n], t) for n, t in step.state_dict().items())


def test_validation_classes_are_training_classes_and_never_unseen_ones():
    """Fault 5 of the released code: models were selected on the unseen classes."""
    pool = Pool(PoolConfig(sources=("emoji", "glyphs"), max_per_class=15))
    config = EpisodeConfig(5, 2, 2, 2)
    names = {
        stage: {(name, c) for name, (_, *classes) in sampler.images_and_classes().items() for c in classes}
        for stage, sampler in (
            ("train", pool.training_episodes(config)),
            ("validation", pool.validation_episodes(config)),
            ("unseen", pool.unseen_episodes(config)),
        )
    }
    assert len(names["validation"]) == 12 + 6
    assert not names["validation"] & names["unseen"]
    assert not names["validation"] & names["train"]
    assert not names["train"] & names["unseen"]


@pytest.fixture
def _interruptible():
    """A process started in the background ignores SIGINT; here it shall be as in a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_waits_for_the_block_and_a_second_one_does_not():
    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012 (the rest of the block must run)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("not this")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_outside_the_main_thread_works(pudnet, episodes):
    steps: list[int] = []
    thread = threading.Thread(target=lambda: steps.append(meta_train(pudnet(), episodes, QUICK, progress=False).steps))
    thread.start()
    thread.join(timeout=60)
    assert steps == [6]
