"""The Hub's layout in local folders: everything comes back, other things are refused; no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.export import card, from_pretrained, push_to_hub, save_pretrained
from pudnet_lib.export.models import LinearNetwork

huggingface_hub = pytest.importorskip("huggingface_hub")


def test_a_predictor_comes_back_from_a_folder_in_the_hubs_layout(pudnet, images, tmp_path):
    from huggingface_hub import constants

    model, data = pudnet(refine=LastBlock(1), residual=True), images(3, 6)
    folder = save_pretrained(model, tmp_path / "new" / "predictor")
    names = {constants.SAFETENSORS_SINGLE_FILE, constants.CONFIG_NAME, "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "config.json").read_text())["model"]["config"]["residual"] is True
    again = from_pretrained(folder)
    assert again.config == model.config
    assert not again.training
    assert torch.equal(predict(again, data)(data.images), predict(model, data)(data.images))


def test_a_predicted_network_comes_back_with_its_classes(pudnet, images, tmp_path):
    data = images(3, 6)
    network = predict(pudnet(), data)
    again = from_pretrained(save_pretrained(network, tmp_path))
    assert again.class_names == data.class_names
    assert torch.equal(again(data.images), network(data.images))
    assert (tmp_path / "README.md").read_text() == card(network)


def test_a_card_says_where_the_weights_and_the_head_are_from(pudnet, images):
    network = predict(pudnet(), images(3, 6))
    assert "were predicted by PudNet, from" in card(network)
    assert "cosine to each class's mean features" in card(network)
    network.origin |= {"looked_at": 0, "predictor": "ImageNet-pretrained features"}
    linear = LinearNetwork.of(network, network.means, torch.zeros(3))
    assert "are those of ImageNet-pretrained features, whatever the dataset" in card(linear)
    assert "predicted by" not in card(linear).split("| |")[0]
    assert "a linear discriminant of its features" in card(linear)


def test_networks_of_ones_own_need_the_module(images, tmp_path):
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, data = PudNet(PudNetConfig(dim=8), target=own), images(2, 4)
    network = predict(model, data)
    save_pretrained(model, tmp_path / "predictor")
    save_pretrained(network, tmp_path / "network")
    with pytest.raises(PudNetError, match="pass that module as target"):
        from_pretrained(tmp_path / "predictor")
    again = from_pretrained(tmp_path / "predictor", target=own)
    assert torch.equal(predict(again, data)(data.images), network(data.images))
    loaded = from_pretrained(tmp_path / "network", backbone=own)
    assert torch.equal(loaded(data.images), network(data.images))
    assert "target=YOUR_MODULE" in (tmp_path / "predictor" / "README.md").read_text()


def test_the_users_own_card_stays(pudnet, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    save_pretrained(pudnet(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_another_kind_of_model_and_other_folders_are_named(pudnet, tmp_path):
    shared = SharedNetwork(SharedConfig(TargetConfig(width=4)))
    save_pretrained(shared, tmp_path / "shared")
    assert isinstance(from_pretrained(tmp_path / "shared"), SharedNetwork)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PudNetError, match=r"has no model\.safetensors"):
        from_pretrained(tmp_path / "empty")
    with pytest.raises(PudNetError, match="neither a folder nor a repository's name"):
        from_pretrained(tmp_path / "missing")


def test_a_repository_is_downloaded_by_the_hubs_own_client(pudnet, tmp_path, monkeypatch):
    model, asked = pudnet(), []
    save_pretrained(model, tmp_path)

    def download(repo: str, name: str, **how: object) -> str:
        asked.append((repo, name, how["revision"]))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    from_pretrained("somebody/pudnet", revision="v1")
    assert asked == [("somebody/pudnet", "model.safetensors", "v1")]


def test_a_repository_that_cannot_be_had_is_named(tmp_path):
    with pytest.raises(PudNetError, match="of somebody/pudnet could not be had"):
        from_pretrained("somebody/pudnet", cache_dir=tmp_path, local_files_only=True)


def test_pushing_uploads_what_save_pretrained_writes(pudnet, monkeypatch):
    calls: list[object] = []

    class Api:
        def __init__(self, token: object = None) -> None:
            calls.append(token)

        def create_repo(self, repo_id: str, **how: object) -> None:
            calls.append((repo_id, how))

        def upload_folder(self, repo_id: str, folder_path: str, **how: object) -> str:
            calls.append((sorted(path.name for path in Path(folder_path).iterdir()), how))
            return f"commit of {repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert push_to_hub(pudnet(), "me/mine", private=True, token="t", commit_message="m") == "commit of me/mine"
    assert calls == [
        "t",
        ("me/mine", {"private": True, "exist_ok": True}),
        (["README.md", "config.json", "model.safetensors"], {"commit_message": "m"}),
    ]


def test_without_huggingface_hub_folders_still_work(pudnet, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    from_pretrained(save_pretrained(pudnet(), tmp_path))
    with pytest.raises(PudNetError, match=r"pudnet-kit\[hub\]"):
        from_pretrained("somebody/pudnet")
