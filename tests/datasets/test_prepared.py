"""Prepared files: the same pixels as the folder's, resumed after any cut, episodes of a huge file in 1 GB."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pudnet_lib.cli import main
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.splits import default_class_split, imagenet_classes
from pudnet_lib.errors import PudNetError
from pudnet_lib.images import cache, load_images, prepared
from pudnet_lib.images.folder import scan_folder
from pudnet_lib.images.prepared import open_prepared, prepare, prepared_path
from pudnet_lib.images.prepared_estimate import Estimate, estimate
from pudnet_lib.images.reading import Reading


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
def pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_CHUNK", 2 * 8 * 8 * 3)  # two images of 8 pixels
    return make_folder(tmp_path / "pictures")


def how(folder, size=8):
    return Reading(size, 3, progress=False, cache_dir=folder)


def counted(monkeypatch, at=None, error=None):
    """Count decoded images; raise at the one after ``at``."""
    seen, decode = [], prepared.decode_image

    def reads(path, size, channels):
        if at is not None and len(seen) >= at:
            raise error
        seen.append(Path(path).name)
        return decode(path, size, channels)

    monkeypatch.setattr(prepared, "decode_image", reads)
    return seen


def test_a_prepared_folder_loads_with_the_same_pixels_and_labels(pictures, tmp_path):
    for workers in (1, 3):
        place = tmp_path / f"cache-{workers}"
        plain = {split: load_images(pictures, split, 8, progress=False, cache_dir=place) for split in ("train", "test")}
        prepare(scan_folder(pictures), pictures, how(place), "CC0", workers)
        for split, data in plain.items():
            found = load_images(pictures, split, 8, progress=False, cache_dir=place)
            assert torch.equal(found.images, data.images)
            assert torch.equal(found.labels, data.labels)
            assert (found.name, found.class_names, found.licence) == (data.name, data.class_names, "CC0")
        assert sorted(p.name for p in place.iterdir() if "pictures" in p.name and "-8px" in p.name)[0][0] != "."


@settings(max_examples=8)
@given(cut=st.integers(0, 17), workers=st.integers(1, 3))
def test_a_run_cut_at_any_image_goes_on_to_the_same_bytes(tmp_path_factory, cut, workers):
    root = tmp_path_factory.mktemp("cut")
    listing = scan_folder(make_folder(root / "pictures"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_CHUNK", 2 * 8 * 8 * 3)
        whole = [p.read_bytes() for p in prepare(listing, root, how(root / "whole"), workers=workers)]
        with pytest.MonkeyPatch.context() as inner:
            counted(inner, cut, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                prepare(listing, root, how(root / "again"), workers=workers)
        seen = counted(patch)
        resumed = [p.read_bytes() for p in prepare(listing, root, how(root / "again"), workers=workers)]
        assert resumed == whole
        # a cut costs the chunks in work, never more: those that were waited for stand in the journal
        assert len(seen) <= 18 - cut + 2 * 2 * (workers + 1)
        assert not prepare(listing, root, how(root / "again"))[0].name.startswith(".")
        assert len(list((root / "again").iterdir())) == 2  # neither journal nor partial file is left


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_leaves_its_chunks_behind(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_JOURNAL_EVERY", 0.0)
    process = os.fork()
    if process == 0:
        seen, decode = [], prepared.decode_image

        def reads(*arguments):
            seen.append(1)
            if len(seen) == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(*arguments)

        prepared.decode_image = reads
        prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"), workers=1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    seen = counted(monkeypatch)
    paths = prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))
    assert 10 <= len(seen) <= 18  # of 18: the chunk in work, and those that waited for the journal, are done again
    whole = prepare(scan_folder(pictures), pictures, how(tmp_path / "whole"))
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in whole]


def test_a_bad_image_is_named_and_after_its_repair_only_its_chunk_is_decoded(pictures, tmp_path, monkeypatch):
    broken = pictures / "train" / "n00000001" / "2.png"
    good = broken.read_bytes()
    broken.write_bytes(good[:40])
    with pytest.raises(PudNetError, match=r"n00000001/2\.png is .*repair or replace the file"):
        prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))
    broken.write_bytes(good)
    seen = counted(monkeypatch)
    prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))
    assert sorted(seen[:2]) == ["2.png", "3.png"]
    assert len(seen) == 2 + 6  # and the test images, which had not been begun


def test_a_changed_folder_is_refused_until_it_is_prepared_again(pictures, tmp_path):
    prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))
    (pictures / "val" / "n00000000" / "1.png").unlink()
    with pytest.raises(PudNetError, match=r"n00000000 has changed since .*pudnet prepare"):
        load_images(pictures, "test", 8, cache_dir=tmp_path / "cache")
    prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))
    assert len(load_images(pictures, "test", 8, cache_dir=tmp_path / "cache")) == 5


def test_damage_a_full_disk_and_all_images_at_once_are_errors(pictures, tmp_path, monkeypatch):
    paths = prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))
    with pytest.raises(PudNetError, match="one file a split"):
        load_images(pictures, "all", 8, cache_dir=tmp_path / "cache")
    content = paths[0].read_bytes()
    paths[0].write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with (
        pytest.warns(UserWarning, match="wrong checksum of block 0"),
        pytest.raises(PudNetError, match=r"damaged; run `pudnet prepare`"),
    ):
        open_prepared("pictures", pictures, "train", how(tmp_path / "cache"))
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda path: os.statvfs_result and type("D", (), {"free": 100}))
    with pytest.raises(PudNetError, match=r"0\.0 GB left; .* GB\s+more"):
        prepare(scan_folder(pictures), pictures, how(tmp_path / "full"))


def test_a_write_error_keeps_what_is_done(pictures, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(PudNetError, match="can't be written"):
        prepare(scan_folder(pictures), pictures, how(tmp_path / "cache"))


def test_the_estimate_scales_up(pictures, tmp_path):
    found = estimate(scan_folder(pictures), how(tmp_path), sample=5)
    assert (found.images, found.bytes) == (18, 18 * 192)
    assert found.seconds > 0
    assert str(Estimate(1_281_167, 27_121_000_000, 7290)) == "1,281,167 images, 27.12 GB, about 2 h 02 min"


def test_the_command(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(pictures), "--sizes", "8,16", "--estimate"])
    assert ended.value.code == 0
    assert not (tmp_path / "cache").exists()
    with pytest.raises(SystemExit):
        main(["prepare", str(pictures), "--sizes", "8,16"])
    assert "pictures at 16 pixels: 18 images" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").iterdir())) == 4
    with pytest.raises(SystemExit) as ended:
        main(["prepare", str(pictures), "--sizes", "big"])
    assert ended.value.code == 2


IMAGENET_SIZED = """
import os, sys, zlib
from pathlib import Path
import numpy as np
from pudnet_lib.images import load_images
from pudnet_lib.images import cache, prepared
from pudnet_lib.images.cache import ending
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.images.reading import Reading
from pudnet_lib.core.splits import default_class_split
from pudnet_lib.results import peak_memory_mb
root, size, count = Path(sys.argv[1]), 84, 1_281_167
how = Reading(size, cache_dir=root / "cache")
path = prepared.prepared_path("imagenet", root / "imagenet", "train", how)
path.parent.mkdir()
row = 3 * size * size
block = 198 * row
zero = zlib.crc32(bytes(block))
chunks = -(-count // 198)
checksums = [zero] * (chunks - 1) + [zlib.crc32(bytes(count * row - (chunks - 1) * block))]
labels = np.sort(np.arange(count) % 1000).tolist()
facts = {"name": "imagenet", "fingerprint": "made up", "labels": labels, "folders": {}, "licence": "none",
         "class_names": [f"class {i}" for i in range(1000)], "skipped": [], "shape": [count, 3, size, size],
         "bytes": count * row, "checksums": checksums, "block": block}
with path.open("wb") as file:
    file.truncate(count * row)  # sparse: 27 GB that take no disk
    file.seek(count * row)
    file.write(ending(facts))
with path.open("r+b") as file:  # every image of class 5 tells its number
    for i in range(5 * 1282, 6 * 1282):
        file.seek(i * row)
        file.write(bytes([i % 251]))
del labels, facts, checksums
os.environ["PUDNET_DATA"] = str(root)
(root / "imagenet").mkdir()
data = load_images("imagenet", "train", size, cache_dir=root / "cache")
split = default_class_split("imagenet", 1000)
sampler = EpisodeSampler([data], EpisodeConfig(5, 10, 20, 20), classes=[split.train])
sums = sum(int(sampler.episode(i).query.sum()) for i in range(12))
own = EpisodeSampler([data], EpisodeConfig(2, 1, 1, 1), classes=[(5, 900)])
print(len(data), sampler.num_classes, peak_memory_mb(), sorted(own.episode(0).classes.tolist()),
os.stat(path).st_blocks)
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


def test_taking_rows_of_a_large_file_is_indexing(tmp_path, monkeypatch):
    rows = [np.full((1, 40, 40), value, np.uint8) for value in range(9)]
    cache.write_cache(tmp_path / "x.images", iter(rows), (1, 40, 40), lambda: {"fingerprint": "f"})
    small, _ = cache.read_cache(tmp_path / "x.images", "f")
    monkeypatch.setattr(cache, "_COPY_ON_WRITE_LIMIT", 1)
    large, _ = cache.read_cache(tmp_path / "x.images", "f")
    chosen = torch.tensor([8, 0, 3, 3])
    for images in (small, large):
        assert torch.equal(cache.take(images, chosen), images[chosen])
        assert cache.take(images, chosen)[:, 0, 0, 0].tolist() == [8, 0, 3, 3]


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
    assert prepared_path("a/b", Path("x"), "train", Reading(84)).name.startswith("a_b-")
