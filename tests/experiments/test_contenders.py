"""Learning rates by target: a factor for each method, found by scripts/search_rates.py."""

from __future__ import annotations

import pytest

from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.methods.contenders import (
    CLASS_LOSS_ALONE,
    LONG_FACTORS,
    LONG_STEPS,
    PAPER,
    PREDICTORS,
    RATE_FACTORS,
    Contest,
    train_config,
    unscaled_config,
)
from pudnet_lib.methods.rivals import RIVALS
from pudnet_lib.methods.run import TrainConfig, base_meta

RESNET = Contest(target=TargetConfig("resnet18", 16), steps=12)


def test_a_convnet_keeps_the_rates_that_were_found_for_it():
    for method in (*PREDICTORS, *RIVALS):
        assert train_config(Contest(steps=12), method, 0) == unscaled_config(Contest(steps=12), method, 0)


def test_a_long_schedule_has_the_rates_that_were_found_for_it():
    for method in (*PREDICTORS, *RIVALS):
        short, long = (train_config(Contest(steps=steps), method, 0) for steps in (LONG_STEPS - 1, LONG_STEPS))
        wanted = short.meta.learning_rate * LONG_FACTORS.get(method, 1.0)
        assert long.meta.learning_rate == pytest.approx(wanted)
    assert train_config(Contest(steps=LONG_STEPS), "PudNet (paper)", 0).meta.learning_rate == pytest.approx(2e-2)


def test_a_resnets_rates_are_multiplied_all_of_them():
    factors = RATE_FACTORS["resnet18"]
    assert train_config(RESNET, "shared network", 0).meta.learning_rate == pytest.approx(
        2e-2 * factors["shared network"]
    )
    assert train_config(RESNET, "specialist", 0, "fashion").meta.learning_rate == pytest.approx(
        2e-2 * factors["shared network"]
    )
    kit, factor = train_config(RESNET, "PudNet (kit)", 0), factors["PudNet (kit)"]
    assert kit.base_learning_rate == pytest.approx(2e-2 * factor)
    assert kit.meta.learning_rate == pytest.approx(1e-3 * factor)
    assert kit.meta.direct_learning_rate == pytest.approx(2e-3 * factor)
    rival = train_config(RESNET, "ProtoNet", 0)
    assert rival.meta.direct_learning_rate == pytest.approx(2e-2 * factors["ProtoNet"])


def test_every_method_has_its_factor():
    assert set(RATE_FACTORS["resnet18"]) == {*PREDICTORS, *RIVALS}


def test_on_a_convnet_all_but_the_plain_design_have_the_class_loss_alone():
    assert (CLASS_LOSS_ALONE.cosine, CLASS_LOSS_ALONE.auxiliary, CLASS_LOSS_ALONE.consistency) == (1.0, 0.0, 0.0)
    weights = {method: train_config(Contest(), method, 0).meta.weights for method in PREDICTORS}
    assert weights.pop(PAPER) == LossWeights()
    assert set(weights.values()) == {CLASS_LOSS_ALONE}
    assert train_config(Contest(), "specialist", 0, "fashion").meta.weights == CLASS_LOSS_ALONE
    kit = train_config(Contest(), "PudNet (kit)", 0)
    assert isinstance(kit, TrainConfig)
    assert base_meta(kit.meta, kit.base_steps, kit.base_learning_rate).weights == CLASS_LOSS_ALONE  # its base's, too


def test_a_resnet_keeps_the_losses_with_which_its_rates_were_searched():
    assert {train_config(RESNET, method, 0).meta.weights for method in PREDICTORS} == {LossWeights()}
