"""The denoising experiment from end to end at a tiny size: cases, tables, figures, the panel's function."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.rivals import Noise2VoidConfig
from pudnet_lib.denoise.train import DenoiserTrainConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.figures import denoising_figures as figures
from pudnet_lib.figures import denoising_widgets as widgets
from pudnet_lib.studies import denoising
from pudnet_lib.studies.denoising_cases import NOISY, PUDNET, SHARED, TRANSDUCTIVE

TRAIN = DenoiserTrainConfig(
    pudnet=PudNetConfig(TargetConfig("unet", 2), dim=8, residual=True),
    sources=("emoji", "glyphs"),
    meta=MetaConfig(steps=2, validate_every=0, accelerator="cpu"),
)
CONFIG = dataclasses.replace(
    denoising.PROFILES["smoke"],
    sources=("emoji", "glyphs"),
    meta_train=True,
    train=TRAIN,
    images=3,
    own_images=8,
    noise2void=Noise2VoidConfig(TargetConfig("unet", 2), budgets=(1, 2), batch=4, tuned_budgets=(1,)),
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return denoising.run(CONFIG)


def test_all_methods_see_the_same_images(table):
    methods = set(table["method"])
    tuned = {f"{PUDNET} fine-tuned by Noise2Void, 1 steps", "Noise2Void from scratch, 2 steps"}
    swaps = {f"{PUDNET}, far swap", f"{PUDNET}, near swap", f"{PUDNET}, other noise level", TRANSDUCTIVE}
    assert {NOISY, PUDNET, SHARED, "non-local means", "total variation"} | swaps | tuned <= methods
    counts = table.groupby(["method", "dataset", "metric"])["image"].nunique()
    assert (counts == 3).all()
    noisy = table[(table["method"] == NOISY) & (table["metric"] == "PSNR")]["value"]
    assert noisy.between(19, 25).all()  # 20·log10(255/25) = 20.2 dB, more where pixels are clipped


def test_controls_differ_by_the_sketch_alone(table):
    wide = table[table["metric"] == "PSNR"].pivot_table(index=["dataset", "image"], columns="method", values="value")
    assert (wide[PUDNET] != wide[f"{PUDNET}, far swap"]).any()
    case = denoising.case_of(denoising.Job(CONFIG, 0, 25.0))
    again = denoising.case_of(denoising.Job(CONFIG, 0, 25.0))
    assert torch.equal(case.noisy, again.noisy)
    assert not torch.equal(case.noisy[:1].expand_as(case.own[:1]), case.own[:1])


def toy() -> pd.DataFrame:
    """Two sources of two images; PudNet is 4 dB over the noisy input, and 1 dB over the shared network."""
    rows = []
    offsets = {NOISY: 0, PUDNET: 4, SHARED: 3, f"{PUDNET}, far swap": 2, "Noise2Void from scratch, 9 steps": 1}
    seconds = {PUDNET: 1.0, "Noise2Void from scratch, 9 steps": 11.0}
    for method, offset in offsets.items():
        for dataset, level in (("a", 20.0), ("b", 24.0)):
            for image in range(2):
                row = {"method": method, "dataset": dataset, "sigma": 25.0, "image": image, "seed": 0}
                row |= {"metric": "PSNR", "value": level + image + offset}
                row |= {"prediction_seconds": seconds.get(method, 0.0), "seconds_per_100": 0.5}
                rows.append(row | {"meta_training_seconds": 100.0 if method == PUDNET else np.nan})
    return pd.DataFrame(rows)


def test_summary_gains_and_break_even_by_hand():
    summary = denoising.summary(toy()).set_index(["method", "dataset"])
    assert summary.loc[(PUDNET, "a"), "mean"] == 24.5
    assert summary.loc[(PUDNET, denoising.ALL), "mean"] == 26.5
    assert summary.loc[(PUDNET, denoising.ALL), "n"] == 4
    assert summary.loc[(PUDNET, "a"), "break_even"] == 10  # 100 s of meta-training, 10 s saved a dataset
    assert denoising.gain(toy(), NOISY, 25).mean == 4
    gains = denoising.gains(toy()).set_index(["metric", "dataset"])["mean"]
    assert gains[("far gain, dB", "a")] == 2
    assert gains[("gain over the shared network, dB", denoising.ALL)] == 1
    assert gains[("gain over Noise2Void from scratch, 9 steps, dB", "b")] == 3
    with pytest.raises(PudNetError, match="No images with both"):
        denoising.gain(toy(), "BM4D", 25)
    text = denoising.answer(toy())
    assert "at σ = 25 +4.00 [+4.00, +4.00] dB over the noisy input" in text
    (line,) = denoising.headline(toy())
    assert (line.scratch, line.predicted, line.chance) == (23.5, 26.5, 22.5)
    published = denoising.rows_to_publish(toy())
    assert published["method"].str.startswith("BM3D (not run").sum() == 1


def test_figures_of_a_run(table):
    assert len(figures.figure_psnr(table, 25).axes[0].get_yticklabels()) == table["method"].nunique()
    assert len(figures.figure_by_source(table).axes) == 2
    assert "seconds" in figures.figure_seconds(table, 25).axes[0].get_xlabel()
    shown = denoising.pictures(CONFIG)
    assert shown["clean"].shape == (2, 3, 32, 32)
    drawn = figures.figure_pictures(shown)
    assert len(drawn.axes) == 2 * 7  # noisy, PudNet, far swap, shared, two filters, clean


def test_pictures_of_photographs_show_the_cat_alone():
    config = dataclasses.replace(CONFIG, sources=(denoising.PHOTOGRAPHS, "emoji"))
    case = denoising.case_of(denoising.Job(config, 0, 25.0), shown=True)
    cat = denoising._source(denoising.PHOTOGRAPHS, 32).test
    cat = cat.images[cat.labels == cat.class_names.index("cat")]
    assert all(bool((cat == image).flatten(1).all(1).any()) for image in case.clean)


def test_before_is_left_of_the_line_and_after_right():
    before, after = torch.zeros(3, 2, 4), torch.ones(3, 2, 4)
    both = figures.before_after(before, after, 0.25)
    assert both.shape == (2, 4, 3)
    assert both[0, :, 0].tolist() == [0, 1, 1, 1]
    assert figures.before_after(before, after, 7).sum() == 0


def test_the_panel_calls_a_plain_function():
    drawn = widgets.draw("cat", "total variation", 25.0, 0.5)
    assert "total variation" in drawn.axes[0].get_title()
    noisy, cleaned = widgets.clean("cat", "PudNet", 25.0)
    truth = widgets.crop("cat") / 255
    assert (cleaned - truth).square().mean() < 0.5 * (noisy - truth).square().mean()  # 3 dB
    with pytest.raises(PudNetError, match="Did you mean 'cat'"):
        widgets.clean("cats", "PudNet", 25.0)
    with pytest.raises(PudNetError, match="method"):
        widgets.clean("cat", "magic", 25.0)
    panel = widgets.try_denoisers()
    panel.controls["method"].value = "non-local means"
    assert panel.message.value == ""


def test_bad_configs_name_the_field():
    with pytest.raises(PudNetError, match="must be at least 2"):
        dataclasses.replace(CONFIG, images=1)
    with pytest.raises(PudNetError, match="at least one each"):
        dataclasses.replace(CONFIG, sigmas=())
