"""The scikit-learn estimator and the choice of a predictor."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from pudnet_lib import PudNetClassifier, auto, load, predict, save
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods import pretrained_features


@pytest.fixture(scope="module")
def arrays(images):
    data = images(3, 10, size=32)
    return data.images.permute(0, 2, 3, 1).numpy(), np.array(["ant", "bee", "cat"])[data.labels.numpy()]


@pytest.fixture
def no_extra(monkeypatch):
    """As without the optional extra, whose network takes seconds on a busy machine."""
    monkeypatch.setattr(pretrained_features, "available", lambda: False)


def test_it_fits_predicts_and_scores(arrays):
    x, y = arrays
    model = PudNetClassifier("pudnet").fit(x, y)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.score(x, y) > 0.9
    chances = model.predict_proba(list(x[:4]))
    assert chances.shape == (4, 3)
    assert chances.sum(1) == pytest.approx(1, abs=1e-5)
    assert (model.predict(x.transpose(0, 3, 1, 2)) == model.predict(x)).all()


def test_it_works_in_scikit_learns_own_tools(arrays):
    x, y = arrays
    assert cross_val_score(PudNetClassifier("pudnet"), x, y, cv=2).mean() > 0.8
    grid = GridSearchCV(PudNetClassifier("pudnet"), {"predictor": ["pudnet", "shared"]}, cv=2).fit(x, y)
    assert grid.best_score_ > 0.8
    inverted = make_pipeline(FunctionTransformer(lambda images: 255 - images), PudNetClassifier("pudnet"))
    assert inverted.fit(x, y).score(x, y) > 0.8


def test_it_clones_and_pickles_nothing_but_its_parameters(arrays):
    model = PudNetClassifier("pudnet", random_state=3).fit(*arrays)
    assert clone(model).get_params() == model.get_params()
    content = pickle.dumps(model)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert again.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        again.predict(arrays[0])


def test_its_errors_are_scikit_learns_own(arrays):
    x, y = arrays
    with pytest.raises(NotFittedError):
        PudNetClassifier().predict(x)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        PudNetClassifier("pudnet").fit(x, y[:5])
    with pytest.raises(ValueError, match="greater than one; got 1 class"):
        PudNetClassifier("pudnet").fit(x, ["a"] * len(x))
    with pytest.raises(ValueError, match="Unknown label type"):
        PudNetClassifier("pudnet").fit(x, np.linspace(0, 1, len(x)))
    with pytest.raises(ValueError, match="Unknown shipped model"):
        PudNetClassifier("pudnett").fit(x, y)
    with pytest.raises(ValueError, match="0 sample"):
        PudNetClassifier("pudnet").fit(x, y).predict(x[:0])


def test_auto_takes_the_best_and_says_all_numbers(no_extra, images):
    data = images(3, 8, size=32)
    began = time.process_time()
    choice = auto.choose_predictor(data, seconds=5)
    assert time.process_time() - began < 20
    assert choice.best.accuracy == max(c.accuracy for c in choice.candidates)
    assert {c.head for c in choice.candidates} == set(auto.HEADS)
    assert len({c.images for c in choice.candidates}) == 1
    text = "\n".join(choice.lines())
    assert all(f"{c.predictor}, {c.head}: {c.accuracy:.1f} %" in text for c in choice.candidates)


def test_auto_says_how_to_get_what_is_missing(no_extra, images):
    noise = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    data = images(2, 10, size=32)
    advice = auto.choose_predictor(type(data)(noise, data.labels, data.class_names), seconds=2).advice
    assert "pip install 'pudnet-kit[pretrained]'" in advice


def test_auto_refuses_what_cannot_be_left_out(no_extra, images):
    data = images(3, 1, size=32)
    with pytest.raises(PudNetError, match="needs two per class"):
        auto.choose_predictor(data)


def test_a_network_with_lda_saves_and_loads(pudnet, images, tmp_path):
    data = images(3, 8, size=32)
    network = auto.with_lda(predict("pudnet", data), data)
    again = load(save(network, tmp_path / "n.safetensors"))
    assert torch.equal(again(data.images), network(data.images))


def test_an_untrained_predictor_warns(pudnet, images):
    with pytest.warns(UserWarning, match="never meta-trained"):
        predict(pudnet(), images(3, 4))


@pytest.mark.parametrize("name", ["pudnet", "paper", "shared", "constant", "photographs"])
def test_no_shipped_predictor_is_said_to_be_untrained(name, images, recwarn):
    predict(name, images(3, 4, size=32))
    assert not [w for w in recwarn if "never meta-trained" in str(w.message)]
