"""The plan: counted work against work by hand, hours against arithmetic, the command's text."""

from dataclasses import replace

import pytest
from torch import nn

from pudnet_lib.cli import main
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.studies import imagenet, imagenet_plan
from pudnet_lib.studies.imagenet_plan import Gpu, StepCost, hours, image_flops, measured_rate, step_cost, work

SMOKE = replace(imagenet.PROFILES["smoke"], methods=("PudNet (kit)", "shared network", "ProtoNet"))


def test_an_images_operations_are_those_of_its_convolutions():
    config = replace(SMOKE, target=TargetConfig("convnet3", 4), size=8)
    convolutions = [m for m in build_target(config.target).modules() if isinstance(m, nn.Conv2d)]
    sides = (8, 4, 2)  # a pooling after each block
    by_hand = sum(2 * m.weight.numel() * side**2 for m, side in zip(convolutions, sides, strict=True))
    assert image_flops(config) == by_hand


def test_a_steps_cost_grows_with_its_images_and_its_parameters_do_not():
    runs = [run for run in imagenet.trainings(SMOKE) if isinstance(run, TrainConfig)]
    shared = next(run for run in runs if run.kind == "shared")
    one, two = (step_cost(shared, EpisodeConfig(3, 1, n, n)) for n in (4, 8))
    assert (one.images, two.images) == (24, 48)
    assert two.flops == pytest.approx(2 * one.flops, rel=0.02)
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.1)
    assert one.parameters == two.parameters
    # Backward costs twice the forward pass, less the first layer's gradient of the images, which nobody wants.
    assert 2.5 < one.flops / (24 * image_flops(SMOKE)) < 3.01
    costs = [step_cost(run) for run in runs]
    assert min(cost.flops for cost in costs) == step_cost(shared).flops  # a hypernetwork comes on top
    assert all(cost.memory > 20 * cost.parameters for cost in costs)


def test_memory_and_intensity_by_hand():
    cost = StepCost(flops=700.0, images=1, activation_bytes=100, parameters=10)
    assert cost.memory == 20 * 10 + 100
    assert cost.intensity == 1.0  # 700 / (3 · 100 + 40 · 10)


def test_hours_by_hand(monkeypatch):
    monkeypatch.setattr(imagenet_plan, "GPUS", (Gpu("G", peak=1.0, memory=1, dollars=2.0),))
    rows = hours(3600e12, 1e12, "this").to_dict(orient="records")
    assert [row["machine"] for row in rows] == ["this (measured)", "1 × G", "8 × G"]
    assert rows[0]["hours"] == pytest.approx(1)
    assert rows[1]["hours"] == pytest.approx(1 / 0.15)
    assert rows[1]["bad_hours"] == pytest.approx(20)
    assert rows[1]["dollars"] == pytest.approx(2 / 0.15)
    assert rows[2]["hours"] == pytest.approx(1 / 0.15 / 8 / 0.85)


def test_the_work_of_a_profile_covers_every_run():
    once, twice = (work(replace(SMOKE, steps=steps)) for steps in (12, 24))
    assert len(once) == len(imagenet.trainings(SMOKE)) + 1
    assert once["flops"].gt(0).all()
    ratio = twice["flops"].iloc[:-1] / once["flops"].iloc[:-1]
    assert ratio.tolist() == pytest.approx([2.0] * len(ratio))


def test_the_command_prints_the_estimate_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setitem(imagenet.PROFILES, "paper", replace(SMOKE, episodes_per_step=8, source="imagenet"))
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--profile", "paper", "--seconds", "0"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for part in (
        "Profile paper: imagenet at 32 pixels",
        "Prepared images: 4.1 GB",
        "PudNet (kit), seed 0",
        "from scratch and evaluation",
        "Memory a rank",
        "GFLOP/s, measured",
        "8 × H100 SXM",
        "torchrun --nproc-per-node 8 -m pudnet_lib imagenet-train --profile paper",
    ):
        assert part in text
    assert measured_rate(SMOKE, 0) > 1e6
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--profile", "papre"])
    assert ended.value.code == 2


def test_the_training_command_trains_what_the_notebook_looks_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    monkeypatch.setitem(imagenet.PROFILES, "smoke", replace(SMOKE, steps=1))
    with pytest.raises(SystemExit) as ended:
        main(["imagenet-train", "--profile", "smoke", "--methods", "shared network,ProtoNet", "--seeds", "0"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("1 steps") == 2
    assert len(list((tmp_path / "models").glob("*/*.safetensors"))) >= 2
    for arguments in (["--profile", "smokey"], ["--profile", "smoke", "--patience", "1"]):
        with pytest.raises(SystemExit) as ended:
            main(["imagenet-train", *arguments])
        assert ended.value.code == 2
