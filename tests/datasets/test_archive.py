"""Zips of pictures: good ones in several layouts, and every kind of bad one, after which nothing stays behind."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import archive
from pudnet_lib.images.archive import check_zip, unpack_zip
from pudnet_lib.images.folder import scan_folder


def picture(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_zip(files: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = {"cat/1.png": picture(1), "cat/2.PNG": picture(2), "dog/1.png": picture(3)}


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_good_zip_from_bytes_and_from_a_file(tmp_path):
    assert unpack(make_zip(GOOD), tmp_path / "a") == tmp_path / "a"
    (tmp_path / "good.zip").write_bytes(make_zip(GOOD))
    unpack(tmp_path / "good.zip", tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == sorted(GOOD)
    assert (tmp_path / "a/dog/1.png").read_bytes() == GOOD["dog/1.png"]


def test_wrapping_folders_are_stepped_through_and_clutter_is_left_out(tmp_path):
    files = {f"my pictures/set/{name}": content for name, content in GOOD.items()}
    files |= {"__MACOSX/my pictures/._1.png": b"x", "my pictures/set/.DS_Store": b"x", "my pictures/Thumbs.db": b"x"}
    root = unpack(make_zip(files), tmp_path / "a")
    assert scan_folder(root).root == tmp_path / "a/my pictures/set"
    assert tree(tmp_path / "a") == sorted(f"my pictures/set/{name}" for name in GOOD)


def test_pictures_without_a_folder_stay_where_they_are(tmp_path):
    assert unpack(make_zip({"one/1.png": picture()}), tmp_path / "a") == tmp_path / "a"


def unpack(source, folder, **options) -> Path:
    return unpack_zip(source, folder, "x.zip", **options)


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("cat/link.png")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


BAD = {
    "leads out": [
        [("../x.png", b"")],
        [("/etc/x.png", b"")],
        [("cat/../../x.png", b"")],
        [("C:/x.png", b"")],
        [("..\\x.png", b"")],
    ],
    "link or a special file": [[(link(), b"/etc/passwd")]],
    "as bombs do": [[("cat/1.png", bytes(2**21))]],
    "more than 3 pictures": [[(f"cat/{i}.png", b"x") for i in range(4)]],
    "unpacks to more than": [[(f"cat/{i}.png", np.random.default_rng(i).bytes(2**20)) for i in range(3)]],
    r"unpacks to 2 MB \(at most 1\.5\)": [[("cat/1.png", np.random.default_rng(0).bytes(2**21))]],
    "folders deep": [[("/".join("a" * 40) + "/1.png", b"x")]],
    "has the name of a picture": [[("a.png", b"x"), ("a.png/b.png", b"y")]],
    "holds no picture": [[("cat/", b"")], [("cat/run.exe", b"x")]],
    "'inner.zip': unpack that first": [[("inner.zip", make_zip(GOOD))]],
}
SMALL = {"FILES": 3, "FILE_MB": 1.5, "TOTAL_MB": 2.5}


@pytest.mark.parametrize(("message", "files"), [(m, f) for m, many in BAD.items() for f in many])
def test_bad_zip_is_refused_before_anything_is_written(tmp_path, monkeypatch, message, files):
    for limit, value in SMALL.items() if "bombs" not in message else ():
        monkeypatch.setattr(archive, limit, value)
    with pytest.raises(PudNetError, match=message):
        unpack(make_zip(files), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_encrypted_and_damaged_zips_and_other_files_are_refused(tmp_path):
    good = make_zip(GOOD)
    encrypted = bytearray(good)
    directory = good.index(b"PK\x01\x02")
    encrypted[directory + 8] |= 1
    stored = bytearray(good)
    stored[45] ^= 0xFF  # inside the first file's data
    for content, message in (
        (bytes(encrypted), "encrypted"),
        (bytes(stored), "damaged"),
        (good[: len(good) // 2], "no zip"),
        (b"hello", "no zip"),
    ):
        with pytest.raises(PudNetError, match=message):
            unpack(content, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(PudNetError, match="No such file"):
        unpack(tmp_path / "none.zip", tmp_path / "out")


def test_file_that_is_larger_than_the_directory_says_is_refused(tmp_path):
    lying = bytearray(make_zip({"cat/1.png": bytes(5000) + picture()}))
    directory = lying.index(b"PK\x01\x02")
    lying[directory + 24 : directory + 28] = (100).to_bytes(4, "little")  # the unpacked size in the directory
    with pytest.raises(PudNetError, match="damaged"):
        unpack(bytes(lying), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(PudNetError, match="could not be unpacked"):
        unpack(make_zip(GOOD), tmp_path / "out")
    assert tree(tmp_path) == ["out/mine.txt"]


@given(st.lists(st.text("ab./\\:\x00 ~", min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
def test_whatever_the_names_no_kept_path_leaves_the_folder(names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name + ".png"), b"x")
    with zipfile.ZipFile(buffer) as opened:
        try:
            kept = check_zip(opened, "x.zip", [], [])
        except PudNetError:
            return
    root = Path("/somewhere/out")
    for path in kept:
        assert (root / path).resolve().is_relative_to(root)


def test_names_are_stored_as_this_system_can_and_never_meet(tmp_path):
    files = [
        ("cat/a\x01.png", b"1"),
        ("cat/a?.png", b"2"),
        ("cat/b.png", b"3"),
        ("cat/B.png", b"4"),
        ("cat/b.png", b"5"),
    ]
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = make_zip([*files, ("cat/" + "x" * 300 + ".png", b"6")])
    unpack(content, tmp_path / "a")
    stored = {(tmp_path / "a" / p).read_bytes(): p for p in tree(tmp_path / "a")}
    assert sorted(stored) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert len({p.casefold() for p in stored.values()}) == 6
    assert stored[b"1"] == "cat/a_.png"


def test_what_is_no_picture_is_passed_over_with_its_reason_and_a_picture_needs_no_ending(tmp_path):
    skipped: list[tuple[str, str]] = []
    files = GOOD | {"README.txt": b"hello", "cat/labels.csv": b"", "cat/logo.svg": b"<svg/>", "dog/photo": picture(9)}
    unpack(make_zip(files), tmp_path / "a", skipped=skipped)
    assert tree(tmp_path / "a") == sorted([*GOOD, "dog/photo"])
    assert [file for file, _ in skipped] == ["README.txt", "cat/labels.csv", "cat/logo.svg"]
