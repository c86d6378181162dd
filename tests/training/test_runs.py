"""A run's folder: what is saved, what is refused, a log that survives a cut, another rate on resume, signals."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch

from pudnet_lib.cli import main
from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.meta import MetaConfig, ScaleConfig, meta_train
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import load_tensors, lock
from pudnet_lib.images.pool import PoolConfig
from pudnet_lib.methods.training import TrainConfig
from pudnet_lib.methods.training import train as train_run
from pudnet_lib.runs import STATE

CONFIG = MetaConfig(steps=4, validate_every=0, checkpoint_every=2, accelerator="cpu", schedule="constant")


@pytest.fixture
def sampler(images) -> EpisodeSampler:
    return EpisodeSampler([images(), images(seed=1, name="other")], EpisodeConfig(2, 2, 2, 2))


def train(model, sampler, folder: Path, config: MetaConfig = CONFIG, **more):
    return meta_train(model, sampler, config, run_dir=folder, progress=False, **more)


def stop_at(step: int):
    def check(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return check


def test_a_resumed_run_has_the_whole_log_and_the_same_weights(pudnet, sampler, tmp_path):
    whole = pudnet()
    history = train(whole, sampler, tmp_path / "whole").history
    cut = pudnet()
    with pytest.raises(KeyboardInterrupt):
        train(cut, sampler, tmp_path / "cut", on_step=stop_at(3))
    log = tmp_path / "cut" / "log.csv"
    log.write_bytes(log.read_bytes()[:-7] + b"\0\0")  # torn and dirty: the state has the rows
    again = pudnet()
    rows = train(again, sampler, tmp_path / "cut").history
    assert [row["loss"] for row in rows] == [row["loss"] for row in history]
    assert list(pd.read_csv(log)["loss"]) == [row["loss"] for row in history]
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_hundred_cuts_and_dirty_bytes_of_a_log_lose_no_row(pudnet, sampler, tmp_path):
    train(pudnet(), sampler, tmp_path)
    log, model = tmp_path / "log.csv", pudnet()
    whole, rows, drawn = log.read_bytes(), pd.read_csv(log), random.Random(0)
    for _ in range(200):
        end = drawn.randrange(len(whole))
        log.write_bytes(whole[:end] + b"\0" * drawn.randrange(3))
        assert train(model, sampler, tmp_path).steps == 4  # all rows are in the state, and the log is written anew
        pd.testing.assert_frame_equal(pd.read_csv(log), rows, check_dtype=False)


def test_weights_that_have_diverged_are_not_saved_and_the_last_good_ones_stay(pudnet, sampler, tmp_path):
    model = pudnet()

    def blow_up(done: int) -> None:
        if done == 3:
            next(model.encoder.parameters()).data.fill_(1e30)

    with pytest.raises(PudNetError, match=r"diverged|infinite or NaN|loss became"):
        train(model, sampler, tmp_path, on_step=blow_up)
    good = pudnet()
    assert train(good, sampler, tmp_path).steps == 4  # goes on from step 2
    assert all(bool(torch.isfinite(p).all()) for p in good.parameters())


def test_a_run_may_go_on_with_another_rate_if_that_is_asked_for(pudnet, sampler, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(pudnet(), sampler, tmp_path, on_step=stop_at(2))
    slower = MetaConfig(**{**CONFIG.__dict__, "learning_rate": 1e-4})
    with pytest.raises(PudNetError, match=r"config\.learning_rate was 0\.001, now 0\.0001"):
        train(pudnet(), sampler, tmp_path, slower)
    rows = train(pudnet(), sampler, tmp_path, slower, scale=ScaleConfig(resume_with=("learning_rate",))).history
    assert [row["rate"] for row in rows] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    with pytest.raises(PudNetError, match="Did you mean 'learning_rate'"):
        train(pudnet(), sampler, tmp_path, slower, scale=ScaleConfig(resume_with=("lerning_rate",)))


def test_sigterm_leaves_a_checkpoint_as_ctrl_c_does(pudnet, sampler, tmp_path):
    def terminate(done: int) -> None:
        if done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(pudnet(), sampler, tmp_path, on_step=terminate)
    assert (tmp_path / STATE).is_file()
    assert signal.getsignal(signal.SIGTERM) is before
    assert train(pudnet(), sampler, tmp_path).steps == 4


TRAIN = "train RUN --pool-sources glyphs --pool-size 16 --model-target-width 4 --model-dim 8 --meta-steps 2"
TRAIN += " --meta-validate-every 0 --meta-accelerator cpu"


def test_the_command_goes_on_with_another_rate(tmp_path):
    command = [str(tmp_path) if word == "RUN" else word for word in TRAIN.split()]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    (tmp_path / "model.safetensors").unlink()  # as if it had been cut off
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--meta-learning-rate", "1e-5"])
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--resume-with", "learning_rate=1e-5"])
    notes = load_tensors(tmp_path / "model.safetensors")[1]["notes"]
    assert notes["train"]["meta"]["learning_rate"] == 1e-5


def test_a_second_training_in_a_folder_says_so_and_waits(tmp_path, capfd):
    config = TrainConfig(
        model=PudNetConfig(TargetConfig(width=4), dim=8), pool=PoolConfig(("glyphs",), size=16),
        meta=MetaConfig(steps=1, validate_every=0, accelerator="cpu"),
    )  # fmt: skip
    (tmp_path / ".pudnet-half").touch()
    os.utime(tmp_path / ".pudnet-half", (0, 0))
    with ThreadPoolExecutor(1) as pool:
        with lock(tmp_path / ".lock", ""):
            second = pool.submit(train_run, config, tmp_path, False)
            while "this one waits" not in capfd.readouterr().err:
                time.sleep(0.05)
            assert not second.done()
        assert second.result(60).steps == 1
    assert not (tmp_path / ".pudnet-half").exists()


def test_several_ranks_do_not_wait_for_another_training_and_write_nothing(tmp_path, monkeypatch):
    """Rank 0 waited for the lock, and the others, which take none, waited for it to join until they timed out."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with lock(tmp_path / ".lock", ""), pytest.raises(PudNetError, match=r"Another process trains in .*stop it, or"):
        train_run(TrainConfig(meta=MetaConfig(steps=1, episodes_per_step=2, accelerator="cpu")), tmp_path, False)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
