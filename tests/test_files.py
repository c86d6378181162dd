"""Damaged and mutated files: no raw error, no silent answer; seeded, in seconds."""

from __future__ import annotations

import copy
import json
import os
import random
import stat
import time
import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pudnet_lib import load
from pudnet_lib.core.predict import PredictedNetwork, predict
from pudnet_lib.core.pudnet import PudNet
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.errors import PudNetError
from pudnet_lib.export import load_model, load_network, save
from pudnet_lib.files import load_tensors, save_tensors, write_atomically

VALUES: list[Any] = [
    None, -1, 0, 3, 12_000, 10**6, 10**12, 10**30, 1.5, float("nan"), float("inf"), True, "", "x", "convnet3", [], [1],
    ["a", "a"], {}, {"a": 1},
]  # fmt: skip


@pytest.fixture(scope="module")
def data(images):
    return images(3, 6, size=16)


@pytest.fixture(scope="module")
def saved(pudnet, data, tmp_path_factory):
    """A predictor's and a network's file."""
    folder, model = tmp_path_factory.mktemp("files"), pudnet(refine=LastBlock(1), residual=True)
    model.notes = dict(seconds=1.0)
    save(model, folder / "model.safetensors")
    save(predict(model, data), folder / "network.safetensors")
    return folder / "model.safetensors", folder / "network.safetensors"


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON."""
    if isinstance(tree, dict | list):
        inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [p for key, value in inner for p in [(*path, key), *places(value, (*path, key))]]
    return []


def mutate(description: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One value replaced, dropped or added."""
    mutated = copy.deepcopy(description)
    *above, last = rng.choice([p for p in places(mutated) if p[0] != "format"])
    parent = mutated
    for key in above:
        parent = parent[key]
    how = rng.random()
    if how < 0.2:
        del parent[last]
    elif how < 0.3 and isinstance(parent, dict):
        parent[f"{last}x"] = rng.choice(VALUES)
    else:
        parent[last] = rng.choice(VALUES)
    return mutated


def use(path, data) -> None:
    """Load a file and go all the way to an answer."""
    found = load(path)
    network = found if isinstance(found, PredictedNetwork) else predict(found, data)
    probabilities = network.classify(data.images[0]).probabilities
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_400_mutated_descriptions_work_or_are_refused_with_a_clear_line(saved, data, tmp_path):
    began, refused = time.process_time(), []
    for number in range(400):
        source, rng = saved[number % 2], random.Random(number)
        tensors, description = load_file(source), load_tensors(source)[1]
        path = tmp_path / "mutated.safetensors"
        save_file(tensors, path, {"pudnet": json.dumps(mutate(description, rng))})  # no checksum: the schema must do
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use(path, data)
        except PudNetError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert all("mutated.safetensors" in line and "\n" not in line for line in refused)
    assert time.process_time() - began < 60


def test_200_cuts_are_refused(saved, tmp_path):
    path = tmp_path / "cut.safetensors"
    for number in range(200):
        content = saved[number % 2].read_bytes()
        path.write_bytes(content[: random.Random(number).randrange(len(content))])
        with pytest.raises(PudNetError, match=r"cut\.safetensors"):
            load(path)


def test_23_flipped_bits_are_refused(saved, tmp_path):
    path = tmp_path / "flipped.safetensors"
    for number in range(23):
        rng, content = random.Random(number), bytearray(saved[number % 2].read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(PudNetError, match=r"flipped\.safetensors"):
            load(path)


def test_a_small_file_that_claims_to_be_large_takes_neither_time_nor_memory(saved, tmp_path):
    tensors, description = load_tensors(saved[0])
    description["model"]["config"]["target"]["width"] = 12_000
    save_tensors(tmp_path / "large", tensors, description)
    began = time.process_time()
    with pytest.raises(PudNetError, match="another architecture"):
        load_model(tmp_path / "large")
    tensors, description = load_tensors(saved[1])
    description["network"]["target"]["width"] = 12_000
    save_tensors(tmp_path / "large", tensors, description)
    with pytest.raises(PudNetError, match="does not fit"):
        load_network(tmp_path / "large")
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (("target", "width"), "wide", r"network\.target\.width: .*integer.*'wide'"),
        (("target", "width"), 10**9, r"network\.target\.width is 1000000000; expected at most"),
        (("target", "name"), "convnet4000", r"convnet4000"),
        (("image_size",), 10**6, "image_size"),
        (("image_size",), 1, "image_size 1 with 3 channels does not go through"),
        (("class_names",), ["a", "a", "b"], "class_names must be two names or more, all of them different"),
        (("class_names",), ["caf\u00e9", "cafe\u0301", "b"], "all of them different"),
        (("class_names",), ["a", "b"], "class_names has 2 names and the class means shape"),
        (("origin", "looked_at"), "many", "origin.looked_at is 'many'; expected int"),
        (("seconds", "sketch"), "fast", r"network\.seconds\.sketch"),
    ],
)
def test_errors_name_the_field(field, value, message, saved, tmp_path):
    tensors, description = load_tensors(saved[1])
    place = description["network"]
    for key in field[:-1]:
        place = place[key]
    place[field[-1]] = value
    save_tensors(tmp_path / "x.safetensors", tensors, description)
    with pytest.raises(PudNetError, match=message):
        load_network(tmp_path / "x.safetensors")


def test_files_without_a_checksum_load_with_a_word(saved, tmp_path):
    tensors, description = load_tensors(saved[1])
    save_file(tensors, tmp_path / "old", {"pudnet": json.dumps(description)})
    with pytest.warns(UserWarning, match="old has no checksum"):
        load_network(tmp_path / "old")


def test_weights_that_are_no_numbers_never_answer(saved, data, tmp_path):
    tensors, description = load_tensors(saved[1])
    tensors["backbone.blocks.0.0.weight"][0, 0, 0, 0] = float("nan")
    save_tensors(tmp_path / "nan", tensors, description)
    with pytest.raises(PudNetError, match=r"not finite|NaN"):
        load_network(tmp_path / "nan").classify(data.images[0])


def test_one_load_for_all_kinds_of_files(saved, pudnet, data, tmp_path):
    from pudnet_lib import save

    model = pudnet()
    assert isinstance(load(save(model, tmp_path / "run" / "model.safetensors")), PudNet)
    assert isinstance(load(tmp_path / "run"), PudNet)
    network = predict(model, data)
    assert torch.equal(load(save(network, tmp_path / "n.safetensors"))(data.images), network(data.images))
    with pytest.raises(PudNetError, match="can't be saved"):
        save(3, tmp_path / "x")
    with pytest.raises(PudNetError, match="holds neither"):
        load(tmp_path)


def test_a_name_that_was_put_in_place_is_synced_too(tmp_path, monkeypatch):
    """A file is there after a loss of power only if its folder was written out after the rename."""
    calls = []
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(stat.S_ISDIR(os.fstat(file).st_mode)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), os.rename(a, b)))
    write_atomically(tmp_path / "a", b"x")
    assert calls == [False, "rename", True]
    assert (tmp_path / "a").read_bytes() == b"x"
