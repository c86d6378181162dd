"""Prepared folders: the same pixels as the folder's, opened without a look at them, a huge file's episodes in 1 GB."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pudnet_lib.cli import main
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.errors import PudNetError
from pudnet_lib.images import load_images
from pudnet_lib.images.cache import one_writer
from pudnet_lib.images.folder import scan_folder
from pudnet_lib.images.pool import default_class_split, imagenet_classes
from pudnet_lib.images.reading import Reading, cache_path, estimate, prepare


def make_folder(root, classes=3, train=4, test=2):
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", test)):
        for c in range(classes):
            folder = root / part / f"n{c:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture
def pictures(tmp_path):
    return make_folder(tmp_path / "pictures")


def prepared(folder, cache):
    return prepare(replace(scan_folder(folder), licence="CC0"), folder, Reading(8, 3, False, cache, "raise"))


def test_a_prepared_folder_loads_with_the_same_pixels_and_labels_without_a_look_at_its_files(
    pictures, tmp_path, monkeypatch
):
    plain = {s: load_images(pictures, s, 8, progress=False, cache_dir=tmp_path / "a") for s in ("train", "test", "all")}
    prepared(pictures, tmp_path / "b")
    monkeypatch.setattr("pudnet_lib.images.sources.listed", None)
    for split, data in plain.items():
        found = load_images(pictures, split, 8, progress=False, cache_dir=tmp_path / "b")
        assert torch.equal(found.images, data.images)
        assert torch.equal(found.labels, data.labels)
        assert (found.name, found.class_names, found.licence) == (data.name, data.class_names, "CC0")


def test_a_bad_image_is_named_and_the_folder_is_prepared_after_its_repair(pictures, tmp_path):
    broken = pictures / "train" / "n00000001" / "2.png"
    good = broken.read_bytes()
    broken.write_bytes(good[:40])
    with pytest.raises(PudNetError, match=r"n00000001/2\.png is .*Repair or remove"):
        prepared(pictures, tmp_path / "cache")
    broken.write_bytes(good)
    assert len(np.load(next(prepared(pictures, tmp_path / "cache").parent.glob("*.npy")))) == 18


def test_a_changed_folder_is_refused_until_it_is_prepared_again(pictures, tmp_path):
    prepared(pictures, tmp_path / "cache")
    (pictures / "val" / "n00000000" / "1.png").unlink()
    with pytest.raises(PudNetError, match=r"n00000000 has changed since .*pudnet prepare"):
        load_images(pictures, "test", 8, cache_dir=tmp_path / "cache")
    prepared(pictures, tmp_path / "cache")
    assert len(load_images(pictures, "test", 8, cache_dir=tmp_path / "cache")) == 5


def test_the_estimate_scales_up(pictures):
    assert estimate(scan_folder(pictures), Reading(8), sample=5) == "18 images, 0.00 GB, about 0 h 00 min"


def test_of_two_processes_that_prepare_one_folder_the_second_waits(pictures, tmp_path):
    how = Reading(8, cache_dir=tmp_path / "cache")
    path = cache_path(scan_folder(pictures).name, pictures, how)
    command = [sys.executable, "-m", "pudnet_lib", "prepare", str(pictures), "--sizes", "8"]
    environment = os.environ | {"PUDNET_CACHE": str(path.parent)}
    with one_writer(path):  # both meet while a third is at work
        both = [subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True) for _ in range(2)]
        for process in both:
            assert "this one waits" in process.stderr.readline()
    for process in both:
        told, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert told.strip().endswith(str(path))
    assert len(list(path.parent.glob("*.npy"))) == 1


def test_the_command(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(pictures), "--sizes", "8,16", "--estimate"])
    assert ended.value.code == 0
    assert not (tmp_path / "cache").exists()
    with pytest.raises(SystemExit):
        main(["prepare", str(pictures), "--sizes", "8,16"])
    assert "pictures at 16 pixels: 18 images" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(pictures), "--sizes", "big"])
    assert ended.value.code == 2


IMAGENET_SIZED = """
import json, os, sys, zlib
from pathlib import Path
import numpy as np
from pudnet_lib.images import load_images
from pudnet_lib.images.cache import _BLOCK
from pudnet_lib.images.reading import Reading, cache_path
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.results import peak_memory_mb
root, size, count = Path(sys.argv[1]), 84, 1_281_167
path = cache_path("imagenet", root / "imagenet", Reading(size, cache_dir=root / "cache"))
path.parent.mkdir()
row = 3 * size * size
step = _BLOCK // row
blocks = -(-count // step)
checksums = [zlib.crc32(bytes(step * row))] * (blocks - 1)
checksums += [zlib.crc32(bytes((count - (blocks - 1) * step) * row))]
report = {"name": "imagenet", "classes": {}, "split": {"source": "own", "train": count, "test": 0}, "duplicates": {},
          "blank": 0, "grey_levels": 256, "skipped": [], "warnings": [], "scale": []}
facts = {"name": "imagenet", "fingerprint": "made up", "folders": {},
         "labels": np.sort(np.arange(count) % 1000).tolist(),
         "licence": "none", "class_names": [f"class {i}" for i in range(1000)], "bad": [], "items": [], "train": count,
         "test": 0, "published": True, "report": report, "shape": [count, 3, size, size], "checksums": checksums,
         "token": "0000000a"}
path.write_text(json.dumps(facts))
images = path.with_name(f"{path.stem}-0000000a.npy")
with images.open("wb") as file:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, size, size)}
    np.lib.format.write_array_header_1_0(file, header)
    start = file.tell()
    file.truncate(start + count * row)  # sparse: 27 GB that take no disk
with images.open("r+b") as file:  # every image of class 5 tells its number
    for i in range(5 * 1282, 6 * 1282):
        file.seek(start + i * row)
        file.write(bytes([i % 251]))
del facts, checksums
os.environ["PUDNET_DATA"] = str(root)
(root / "imagenet").mkdir()
data = load_images("imagenet", "train", size, cache_dir=root / "cache")
split = default_class_split("imagenet", 1000)
sampler = EpisodeSampler([data], EpisodeConfig(5, 10, 20, 20), classes=[split.train])
sums = sum(int(sampler.episode(i).query.sum()) for i in range(12))
own = EpisodeSampler([data], EpisodeConfig(2, 1, 1, 1), classes=[(5, 900)])
print(len(data), sampler.num_classes, peak_memory_mb(), sorted(own.episode(0).classes.tolist()),
os.stat(images).st_blocks)
"""


def test_episodes_of_a_file_of_imagenets_size_take_less_than_1_gb(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMAGENET_SIZED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, classes, peak, own, blocks = done.stdout.split(maxsplit=3)[:3] + done.stdout.split("[")[1].split("] ")
    assert (count, classes, own) == ("1281167", "720", "5, 900")
    assert float(peak) < 1000
    assert int(blocks) * 512 < 1e8  # the file itself took no space


def test_episodes_of_some_classes_are_those_of_a_copy_of_them(images):
    data, test = images(classes=7, per_class=9), images(classes=7, per_class=4, seed=1)
    chosen = (1, 2, 4, 6)
    for query in (None, test):
        lazy = EpisodeSampler(
            [data], EpisodeConfig(3, 2, 2, 2), 5, None if query is None else [query], classes=[chosen]
        )
        copies = None if query is None else [query.select_classes(chosen)]
        copied = EpisodeSampler([data.select_classes(chosen)], EpisodeConfig(3, 2, 2, 2), 5, copies)
        assert lazy.num_classes == copied.num_classes == 4
        assert lazy.images_and_classes() == copied.images_and_classes()
        for index in range(5):
            one, other = lazy.episode(index), copied.episode(index)
            for name in ("sketch", "support", "query", "sketch_labels", "query_labels", "pool_classes"):
                assert torch.equal(getattr(one, name), getattr(other, name))
            assert one.classes.tolist() == [chosen[c] for c in other.classes]


def test_imagenets_classes_are_listed():
    listed = imagenet_classes()
    assert list(listed) == sorted(listed)
    assert next(iter(listed)) == "n01440764"
    parts = list(listed.values())
    assert {part: parts.count(part) for part in set(parts)} == {"train": 720, "validation": 80, "unseen": 200}
    split = default_class_split("imagenet", 1000)
    assert sorted((*split.train, *split.validation, *split.unseen)) == list(range(1000))
    assert [parts[c] for c in (split.train[0], split.validation[0], split.unseen[-1])] == [
        "train",
        "validation",
        "unseen",
    ]
