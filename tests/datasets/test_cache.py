"""The cache of decoded images: whole or absent, checked when opened."""

import resource
import sys

import numpy as np
import pytest
import torch

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import cache
from pudnet_lib.images.cache import cache_folder, data_folder, read_cache, write_cache

ROWS = [np.full((1, 2, 2), value, np.uint8) for value in (1, 2, 3)]


def written(tmp_path, rows=ROWS, fingerprint="f"):
    path = tmp_path / "deep" / "x.images"
    write_cache(path, iter(rows), rows[0].shape, lambda: {"fingerprint": fingerprint, "labels": [0, 1, 0]})
    return path


def test_what_is_written_is_read(tmp_path):
    images, facts = read_cache(written(tmp_path), "f")
    assert torch.equal(images, torch.tensor([1, 2, 3], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 2, 2))
    assert facts["labels"] == [0, 1, 0]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.images"]


def test_blocks_are_cut_and_checked_wherever_they_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_BLOCK", 5)  # 12 bytes: two whole blocks and a part
    path = written(tmp_path)
    images, facts = read_cache(path, "f")
    assert len(facts["checksums"]) == 3
    assert images.flatten().tolist() == [1] * 4 + [2] * 4 + [3] * 4


def test_writing_into_the_images_does_not_reach_the_file(tmp_path):
    path = written(tmp_path)
    read_cache(path, "f")[0].fill_(9)
    assert int(read_cache(path, "f")[0].max()) == 3


def test_a_missing_or_outdated_file_is_none_without_a_word(tmp_path, recwarn):
    assert read_cache(tmp_path / "nothing", "f") is None
    assert read_cache(written(tmp_path), "another") is None
    assert not recwarn


def flipped(content):
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flipped, "wrong checksum of block 0"),
        (lambda content: content[:-3], "its end is missing"),
        (lambda content: b"", "its end is missing"),
        (lambda content: content[4:], "its length is not as described"),
        (lambda content: content[:-16] + (10**9).to_bytes(8, "little") + content[-8:], "its description is cut short"),
        (lambda content: content[:12] + b"not JSON" + (8).to_bytes(8, "little") + content[-8:], "Expecting value"),
        (lambda content: content[:12] + b"[]" + (2).to_bytes(8, "little") + content[-8:], "list indices"),
    ],
)
def test_a_damaged_file_is_none_with_a_warning(tmp_path, damage, reason):
    path = written(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"x.images is damaged .*{reason}.*built anew"):
        assert read_cache(path, "f") is None


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path):
    """A limit on file sizes fails as a full disk does: write() raises OSError in the middle of the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "x.images"
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        with pytest.raises(PudNetError, match=r"can't be cached in .*PUDNET_CACHE"):
            write_cache(path, iter(ROWS), (1, 2, 2), lambda: {"fingerprint": "f"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(PudNetError, match="can't be cached"):
        write_cache(tmp_path / "cache" / "x.images", iter(ROWS), (1, 2, 2), lambda: {})


@pytest.mark.parametrize("failure", [PudNetError("a bad picture"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_file(tmp_path, failure):
    path = written(tmp_path)

    def rows():
        yield ROWS[0]
        raise failure

    with pytest.raises(type(failure)):
        write_cache(path, rows(), (1, 2, 2), lambda: {})
    assert len(read_cache(path, "f")[0]) == 3
    assert [p.name for p in path.parent.iterdir()] == ["x.images"]


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
