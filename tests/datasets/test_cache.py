"""The cache of decoded images: whole or absent, checked when opened, resumed after any cut."""

import json
import os
import resource
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import cache
from pudnet_lib.images.cache import cache_folder, data_folder, fill, finish, one_writer, read_cache, take
from pudnet_lib.images.decode import PictureError


def picture(i):
    return np.full((1, 2, 2), i + 1, np.uint8)


def written(folder, count=3, order=None, read=picture, fingerprint="f"):
    path = folder / "deep" / "x.json"
    with one_writer(path):
        partial, bad = fill(path, (count, 1, 2, 2), read, lambda i: b"")
        finish(path, partial, np.arange(count) if order is None else np.array(order), {"fingerprint": fingerprint})
    assert not bad
    return path


def images_of(path):
    (file,) = path.parent.glob("*.npy")
    return file


def test_what_is_written_is_read_in_the_order_asked_for(tmp_path):
    images, facts = read_cache(written(tmp_path), "f")
    assert images[:, 0, 1, 1].tolist() == [1, 2, 3]
    assert facts["fingerprint"] == "f"
    path = written(tmp_path, order=[2, 0])
    assert read_cache(path, "f")[0][:, 0, 1, 1].tolist() == [3, 1]
    assert sorted(p.suffix for p in path.parent.iterdir() if p.suffix != ".lock") == [".json", ".npy"]


def test_blocks_are_cut_and_checked_wherever_they_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 5)  # 12 bytes: two whole blocks and a part
    images, facts = read_cache(written(tmp_path), "f")
    assert len(facts["checksums"]) == 3
    assert images.flatten().tolist() == [1] * 4 + [2] * 4 + [3] * 4


def test_writing_into_the_images_does_not_reach_the_file(tmp_path):
    path = written(tmp_path)
    read_cache(path, "f")[0].fill_(9)
    assert int(read_cache(path, "f")[0].max()) == 3


def test_a_missing_or_outdated_set_is_none_without_a_word(tmp_path, recwarn):
    assert read_cache(tmp_path / "nothing.json", "f") is None
    path = written(tmp_path)
    assert read_cache(path, "another") is None
    images_of(path).unlink()
    assert read_cache(path, "f") is None
    assert not recwarn


def described(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: images_of(p).write_bytes(images_of(p).read_bytes()[:-1] + b"x"), "wrong checksum of block 0"),
        (lambda p: images_of(p).write_bytes(images_of(p).read_bytes()[:-3]), "mmap length|is empty|reshape|size"),
        (lambda p: images_of(p).write_bytes(b"hello"), "magic"),
        (lambda p: p.write_text("{"), "Expecting"),
        (lambda p: p.write_text("[]"), "list indices"),
        (lambda p: described(p, shape=[4, 1, 2, 2]), "shape"),
        (lambda p: described(p, checksums=[]), "checksums"),
        (lambda p: described(p, token="../../etc/passwd"), "invalid literal"),
    ],
)
def test_a_damaged_set_is_none_with_a_warning(tmp_path, damage, reason):
    path = written(tmp_path)
    damage(path)
    with pytest.warns(UserWarning, match=f"x.json is damaged .*({reason}).*built anew"):
        assert read_cache(path, "f") is None


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    """A limit on file sizes fails as a full disk does: a write raises OSError in the middle of the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (130, hard))
    try:
        with pytest.raises(PudNetError, match=r"can't be cached in .*PUDNET_CACHE"):
            written(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_cache(written(tmp_path), "f") is not None
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(PudNetError, match=r"0\.0 GB left; .* GB\s+more"):
        written(tmp_path, 1000)


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "deep").touch()
    with pytest.raises(PudNetError, match="can't be cached"):
        written(tmp_path)


def test_bad_images_are_named_by_number_also_after_a_resumption(tmp_path):
    def read(i):
        if i == 70:
            raise PictureError("x.png", "spoiled")
        return picture(0)

    path = tmp_path / "x.json"
    for _ in range(2):
        partial, bad = fill(path, (200, 1, 2, 2), read, lambda i: b"")
        assert bad == {70: "spoiled"}
    assert np.lib.format.open_memmap(partial)[69:72, 0, 0, 0].tolist() == [1, 0, 1]


@settings(max_examples=8)
@given(cut=st.integers(0, 199), workers=st.integers(1, 3))
def test_a_run_cut_at_any_image_goes_on_to_the_same_bytes(tmp_path_factory, cut, workers):
    path, seen = tmp_path_factory.mktemp("cut") / "x.json", []

    def read(i, last=None):
        if last is not None and len(seen) >= last:
            raise KeyboardInterrupt
        seen.append(i)
        return picture(i % 250)

    with pytest.raises(KeyboardInterrupt):
        fill(path, (200, 1, 2, 2), lambda i: read(i, cut), lambda i: b"", workers=workers)
    seen.clear()
    partial, _ = fill(path, (200, 1, 2, 2), read, lambda i: b"", workers=workers)
    assert np.lib.format.open_memmap(partial)[:, 0, 0, 0].tolist() == [i % 250 + 1 for i in range(200)]
    assert len(seen) <= 200 - cut + 64 * 2 * (workers + 1)  # a cut costs the chunks in work, never more


def test_only_what_changed_is_decoded_again(tmp_path):
    seen = []
    for stamp in (b"old", b"new"):
        seen.clear()
        fill(
            tmp_path / "x.json",
            (200, 1, 2, 2),
            lambda i: seen.append(i) or picture(0),
            lambda i, s=stamp: s if i == 100 else b"",
        )
    assert sorted(seen) == list(range(64, 128))


def test_a_chunk_that_the_journal_names_and_the_disk_lost_is_decoded_again(tmp_path):
    """A power cut may keep the journal's line and lose the images."""
    path, seen = tmp_path / "x.json", []
    partial, _ = fill(path, (200, 1, 2, 2), lambda i: picture(i % 250), lambda i: b"")
    with partial.open("r+b") as file:
        file.seek(128 + 64 * 4)
        file.write(bytes(100))
    partial, _ = fill(path, (200, 1, 2, 2), lambda i: seen.append(i) or picture(i % 250), lambda i: b"")
    assert sorted(seen) == list(range(64, 128))
    assert np.lib.format.open_memmap(partial)[:, 0, 0, 0].tolist() == [i % 250 + 1 for i in range(200)]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process_leaves_its_chunks_behind(tmp_path):
    shape, seen = (256, 1, 2, 2), []

    def read(i):
        seen.append(i)
        time.sleep(0.002 * dying)  # as decoding does, which lets the journal keep up
        if dying and len(seen) == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        return picture(i % 250)

    process, dying = os.fork(), False
    if process == 0:
        dying = True
        fill(tmp_path / "x.json", shape, read, lambda i: b"", workers=1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    partial, _ = fill(tmp_path / "x.json", shape, read, lambda i: b"")
    assert 64 <= len(seen) <= 192
    assert np.lib.format.open_memmap(partial)[:, 0, 0, 0].tolist() == [i % 250 + 1 for i in range(256)]


def test_several_at_once_wait_for_the_first(tmp_path):
    path, inside = tmp_path / "x.json", []

    def work():
        with one_writer(path):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside


def test_taking_rows_of_a_large_file_is_indexing(tmp_path, monkeypatch):
    path = written(tmp_path, 9)
    small, _ = read_cache(path, "f")
    monkeypatch.setattr(cache, "_COPY_ON_WRITE_LIMIT", 1)
    large, _ = read_cache(path, "f")
    chosen = torch.tensor([5, 0, 3, 3])
    for images in (small, large, large[2:], large.expand(-1, 3, -1, -1)):
        assert torch.equal(take(images, chosen), images[chosen])


def test_folders_come_from_the_argument_the_environment_or_the_platform(tmp_path, monkeypatch):
    monkeypatch.delenv("PUDNET_DATA", raising=False)
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    assert cache_folder() == tmp_path / "cache"
    assert data_folder() == tmp_path / "cache" / "data"
    monkeypatch.setenv("PUDNET_DATA", str(tmp_path / "data"))
    assert data_folder() == tmp_path / "data"
    monkeypatch.delenv("PUDNET_CACHE")
    assert cache_folder().name == "pudnet"
