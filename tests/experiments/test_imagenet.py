"""The large-scale experiment: its tables by hand, its stand-in and made-up images, a tiny run from end to end."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.figures import imagenet_figures as figures
from pudnet_lib.images import load_images
from pudnet_lib.methods.cache import run_folder
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.studies import imagenet, imagenet_data, imagenet_tables


@pytest.fixture
def table():
    top1 = {
        "PudNet (kit)": ([30.0, 50.0], 2.0),
        "PudNet (kit), far swap": ([20.0, 30.0], 2.0),
        "PudNet (kit), near swap": ([30.0, 48.0], 2.0),
        "shared network": ([40.0, 50.0], 1.0),
        "GC, 1 epoch": ([10.0, 20.0], 10.0),
        "GC, 3 epochs": ([40.0, 50.0], 30.0),
        "GC, 10 epochs": ([60.0, 80.0], 102.0),
    }
    rows = [
        {"metric": metric, "method": m, "episode": c, "value": v + extra, "chance": chance, "prediction_seconds": s}
        | {"meta_training_seconds": np.nan if m.startswith("GC") else 1000.0}
        for metric, extra, chance in (("top-1 accuracy", 0, 50.0), ("top-5 accuracy", 10, 100.0))
        for m, (values, s) in top1.items()
        for c, v in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(dataset="toy", target="ResNet-18, width 4", ways=2, seed=0)


def test_accuracies_gains_and_speed_by_hand(table):
    rows = imagenet.summary(table).set_index(["metric", "method"])
    assert rows.loc[("top-1 accuracy", "PudNet (kit)"), "mean"] == pytest.approx(40)
    assert rows.loc[("top-5 accuracy", "PudNet (kit)"), "mean"] == pytest.approx(50)
    assert rows.loc[("top-1 accuracy", "PudNet (kit)"), "break_even"] == pytest.approx(10)  # 1000 s over 102 - 2
    found = imagenet.gains(table).set_index("metric")["mean"].to_dict()
    assert found == pytest.approx(
        {"far gain": 15, "near gain": 1, "gain over shared": -5, "gain over GC, 10 epochs": -30}
    )
    (row,) = imagenet_tables.speed(table).to_dict(orient="records")
    assert (row["ratio"], row["first_method"], row["first_ratio"]) == (pytest.approx(51), "GC, 3 epochs", 15)
    assert "far gain, top-5" in set(imagenet.rows_to_publish(table)["metric"])


def test_no_scratch_run_as_good_is_said(table):
    table.loc[table["method"] == "PudNet (kit)", "value"] += 50
    (row,) = imagenet_tables.speed(table).to_dict(orient="records")
    assert row["first_method"] == ""
    assert np.isnan(row["first_ratio"])
    assert "no GC run reaches its top-5 accuracy" in imagenet.answer(table)
    assert figures.table_of_ratios(table).iloc[-1]["ratio at equal accuracy"] == "none is as good"


def test_answer_headline_and_claims(table):
    text = imagenet.answer(table)
    assert "top-1 40.0 [" in text
    assert "51 times as long" in text
    assert "near gain +1.0" in text
    (line,) = imagenet.headline(table)
    assert (line.claim, line.predicted, line.scratch, line.chance) == ("imagenet", 50, 80, 100)
    ratios = figures.table_of_ratios(table)
    assert ratios["ratio"].tolist() == ["238 ×", "2,305 ×", "51 ×", "51 ×"]
    assert ratios["setting"].str.endswith("[abs]").tolist() == [True, True, False, False]
    stood_in = table.assign(dataset="emoji (stands in for tiny-imagenet)")
    assert imagenet.answer(stood_in).startswith("tiny-imagenet is not on this machine: this is the embedded pack emoji")
    assert imagenet.headline(stood_in) == []


def test_figures_name_every_method(table):
    summary = imagenet.summary(table)
    labels = {t.get_text() for t in figures.figure_accuracies(summary).axes[0].get_yticklabels()}
    assert labels == set(table["method"])
    drawn = figures.figure_seconds(summary)
    assert [ax.get_ylabel() for ax in drawn.axes] == ["top-1 accuracy (%)", "top-5 accuracy (%)"]
    assert {"GC from scratch", "PudNet (kit)", "chance"} <= {t.get_text() for t in drawn.axes[0].texts}


def test_top_1_and_top_5_by_hand():
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return torch.arange(7.0)[None].repeat(len(images), 1)  # always 6, then 5, 4, 3, 2

    labels = torch.tensor([6, 6, 2, 1])
    data = ImageDataset(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), labels, tuple("abcdefg"))
    rows = imagenet.per_class_accuracy(Fixed(), data).set_index(["metric", "episode"])
    assert rows.loc[("top-1 accuracy", 6), "value"] == 100
    assert rows.loc[("top-1 accuracy", 2), "value"] == 0
    assert rows.loc[("top-5 accuracy", 2), "value"] == 100
    assert rows.loc[("top-5 accuracy", 1), "value"] == 0
    assert rows.loc[("top-5 accuracy", 1), "chance"] == pytest.approx(500 / 7)


def test_the_made_up_folder_has_imagenets_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    folder = imagenet_data.made_up_imagenet()
    assert folder == imagenet_data.made_up_imagenet()  # made once
    assert sorted(p.name for p in folder.iterdir()) == ["train", "val"]
    assert len(list((folder / "train").iterdir())) == 12
    with Image.open(next((folder / "train" / "n01440764").iterdir())) as image:
        assert image.format == "JPEG"
    train, test = (load_images(folder, part, 16, progress=False) for part in ("train", "test"))
    assert (len(train), len(test), train.num_classes) == (144, 60, 12)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_missing_source_has_a_stand_in_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_DATA", str(tmp_path))
    config = imagenet.available(imagenet.PROFILES["laptop"])
    assert (config.source, config.stands_in_for, config.far_source) == ("emoji", "tiny-imagenet", "fashion")
    assert imagenet.available(config) == config
    with pytest.raises(PudNetError, match=r"tiny-imagenet is not on this machine; `pudnet datasets`"):
        imagenet.available(imagenet.Config(stand_in=""))
    (tmp_path / "tiny-imagenet-200").mkdir()
    assert imagenet.available(imagenet.PROFILES["laptop"]) == imagenet.PROFILES["laptop"]
    assert imagenet.available(imagenet.Config(source=str(tmp_path))).source == str(tmp_path)


def test_bad_configs_are_refused():
    for values, message in (
        ({"methods": ("PudNett",)}, "Unknown method"),
        ({"seeds": ()}, "must not be empty"),
        ({"far_source": "tiny-imagenet"}, "needs another one"),
    ):
        with pytest.raises(PudNetError, match=message):
            imagenet.Config(**values)


def test_trainings_are_the_same_on_any_number_of_gpus():
    paper = imagenet.PROFILES["paper"]
    runs = imagenet.trainings(paper)
    assert len(runs) == 3 * 9  # seeds, methods; the tuned ones share networks with others
    first = next(run for run in runs if isinstance(run, TrainConfig))
    assert first.meta.devices == 1  # torchrun decides; the cache's folder does not depend on it
    assert first.meta.episodes_per_step == 8
    assert run_folder(first) == run_folder(imagenet.trainings(paper)[0])
    assert imagenet.scratch_methods(paper)["GC, 1 epoch"] == ("GC", 1)


def test_a_tiny_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    smoke = imagenet.PROFILES["smoke"]
    methods = ("PudNet (kit)", "shared network", "MatchingNet", "pretrained", "fine-tuned")
    config = imagenet.replace(smoke, methods=methods, scratch_epochs=(1,), steps=1)
    found = imagenet.run(config)
    wanted = {*methods, "PudNet (kit), far swap", "PudNet (kit), near swap", "GC, 1 epoch"}
    assert set(found["method"]) == wanted
    assert found["value"].between(0, 100).all()
    assert set(found["dataset"]) == {"made-up-imagenet"}
    assert len(found) == len(wanted) * 6 * 2  # classes, metrics
    assert found["prediction_seconds"].gt(0).all()
