"""Names: packs, torchvision's datasets from a local copy, what is listed, and unknown ones."""

import gzip
import struct
import urllib.error

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import list_sources, load_images, named
from pudnet_lib.images.named import SOURCES


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder, its own cache, and no network."""
    monkeypatch.setenv("PUDNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(named, "_DEBIAN_FASHION", tmp_path / "no-such-package")

    def offline(*arguments, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def idx_files():
    """MNIST's four files: four training and two test images of 28 x 28, image i of gray 40 i."""
    for part, count, first in (("train", 4, 0), ("t10k", 2, 4)):
        images = np.stack([np.full((28, 28), 40 * (first + i), np.uint8) for i in range(count)])
        yield f"{part}-images-idx3-ubyte", idx(images)
        yield f"{part}-labels-idx1-ubyte", idx(np.arange(count, dtype=np.uint8) % 2)


def test_packs_come_at_the_asked_size_and_channels(data):
    fashion = load_images("fashion", "test", size=16, channels=3)
    assert fashion.images.shape == (2000, 3, 16, 16)
    assert torch.equal(fashion.images[:, 0], fashion.images[:, 2])
    assert load_images("emoji", "test", channels=1).images.shape[1:] == (1, 32, 32)
    assert load_images("glyphs", "test", channels=1).num_classes == 36
    assert not list(data.iterdir())


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_a_local_copy_in_torchvisions_layout_is_read(data, name):
    raw = data / SOURCES[name].folders
    raw.mkdir(parents=True)
    for file, content in idx_files():
        (raw / file).write_bytes(content)
    train, test = (load_images(name, split, size=28, channels=1, progress=False) for split in ("train", "test"))
    assert train.images[:, 0, 3, 3].tolist() == [0, 40, 80, 120]
    assert test.images[:, 0, 3, 3].tolist() == [160, 200]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0, 1], [0, 1])
    assert (train.name, train.num_classes, train.licence) == (name, 10, SOURCES[name].licence)
    assert next(s for s in list_sources() if s.name == name).available


def test_the_second_load_does_not_open_the_source(data, monkeypatch):
    raw = data / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file, content in idx_files():
        (raw / file).write_bytes(content)
    load_images("mnist", size=8, progress=False)
    monkeypatch.setattr(torchvision.datasets, "MNIST", None)
    assert len(load_images("mnist", "all", size=8, progress=False)) == 6


def test_debians_fashion_package_is_used(data, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    for file, content in idx_files():
        (package / f"{file}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(named, "_DEBIAN_FASHION", package)
    assert len(load_images("fashion-mnist", size=8, progress=False)) == 4
    assert {p.name for p in (data / "FashionMNIST" / "raw").iterdir()} == {file for file, _ in idx_files()}


def test_dtd_trains_on_its_training_and_validation_images(data):
    folder = data / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for part, gray in (("train", 50), ("val", 100), ("test", 200)):
        for name in ("banded", "woven"):
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (30, 20), (gray, gray, gray)).save(folder / "images" / name / f"{part}.jpg", quality=100)
        (folder / "labels" / f"{part}1.txt").write_text(f"banded/{part}.jpg\nwoven/{part}.jpg\n")
    train, test = (load_images("dtd", split, size=8, progress=False) for split in ("train", "test"))
    assert train.class_names == ("banded", "woven")
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert train.images[:, 0, 0, 0].tolist() == pytest.approx([50, 50, 100, 100], abs=2)
    assert test.images[:, 0, 0, 0].tolist() == pytest.approx([200, 200], abs=2)


@pytest.mark.parametrize("name", ["cifar10", "dtd", "fashion-mnist", "eurosat", "omniglot", "svhn"])
def test_offline_the_error_says_where_to_put_the_files(data, name):
    with pytest.raises(PudNetError, match=rf"{name} is not in .*could not be downloaded.*PUDNET_DATA"):
        load_images(name)
    assert not list(data.parent.glob("cache/*.json"))


def test_every_torchvision_source_names_a_class_that_torchvision_has():
    for source in SOURCES.values():
        assert source.kind != "torchvision" or hasattr(torchvision.datasets, source.class_name)


def test_all_sources_are_listed_with_how_to_get_them(data):
    found = {s.name: s for s in list_sources()}
    assert {"fashion", "emoji", "glyphs", "cifar10", "dtd", "tiny-imagenet", "animals10", "cub200"} <= set(found)
    assert found["emoji"].available
    assert found["emoji"].classes == 80
    assert not found["cifar10"].available
    assert str(data) in found["cifar10"].place
    assert all(s.licence and s.how_to_get and s.images > 0 for s in found.values())
    (data / "CUB_200_2011").mkdir()
    assert next(s for s in list_sources() if s.name == "cub200").available


@pytest.mark.parametrize(("name", "nearest"), [("emojis", "emoji"), ("CIFAR-10", "cifar10"), ("tinyimagenet", "tiny-")])
def test_an_unknown_name_has_a_nearest_one(data, name, nearest):
    with pytest.raises(
        PudNetError, match=f"Unknown dataset {name!r}. Did you mean '{nearest}.*path of an image folder"
    ):
        load_images(name)


def test_a_missing_folder_and_an_archive_are_told_apart_from_names(data, tmp_path):
    with pytest.raises(PudNetError, match=r"folder .*nowhere does not exist"):
        load_images(tmp_path / "nowhere")
    for name, message in (("photos.zip", "is damaged or no zip"), ("photos.tar", "is a file; expected a folder")):
        (tmp_path / name).touch()
        with pytest.raises(PudNetError, match=message):
            load_images(tmp_path / name)


def test_a_folder_called_like_a_source_is_not_mistaken_for_it(data, tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / "emoji" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (4, 4), 200 * i).save(tmp_path / "emoji" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    assert load_images("./emoji", progress=False).name == "emoji (folder)"
    assert load_images("emoji").num_classes == 80


def test_a_torchvision_name_unpacked_as_an_image_folder_is_read_instead_of_downloaded(data):
    for part in ("train", "test"):
        for name in ("bird", "ship"):
            (data / "cifar10" / part / name).mkdir(parents=True)
            Image.new("RGB", (32, 32), "blue").save(data / "cifar10" / part / name / "1.png")
    images = load_images("cifar10", "all", progress=False)
    assert (images.name, images.class_names, len(images)) == ("cifar10", ("bird", "ship"), 4)
    assert next(s for s in list_sources() if s.name == "cifar10").place == str(data / "cifar10")
