"""Which files an image folder holds, their classes and their split; nothing is decoded here."""

import os

import numpy as np
import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.folder import scan_folder
from pudnet_lib.images.reading import drawn


def touch(root, *paths):
    """Make empty files; the scanner looks at names only."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def is_test(listing):
    """Which files are for testing, drawn where the folder has no split of its own."""
    return (
        drawn(listing.labels, np.arange(len(listing.files)), listing.files) if listing.tests is None else listing.tests
    )


def described(listing, root):
    """List (relative path, class name, split) of every file."""
    return [
        ((listing.root / file).relative_to(root).as_posix(), listing.class_names[label], "test" if test else "train")
        for file, label, test in zip(listing.files, listing.labels, is_test(listing), strict=True)
    ]


def test_train_and_test_folders_are_the_split(tmp_path):
    touch(tmp_path, "train/b/1.png", "train/a/2.png", "train/a/1.png", "test/a/3.png", "test/b/2.png")
    listing = scan_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    assert described(listing, tmp_path) == [
        ("train/a/1.png", "a", "train"),
        ("train/a/2.png", "a", "train"),
        ("train/b/1.png", "b", "train"),
        ("test/a/3.png", "a", "test"),
        ("test/b/2.png", "b", "test"),
    ]
    assert listing.name == tmp_path.name


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "Test", "testing"])
def test_other_names_of_the_test_folder(tmp_path, name):
    touch(tmp_path, "Train/a/1.png", "Train/b/1.png", f"{name}/a/2.png", f"{name}/b/2.png")
    assert [split for *_, split in described(scan_folder(tmp_path), tmp_path)] == ["train", "train", "test", "test"]


def test_validation_images_join_the_training_ones_where_there_is_a_test_folder(tmp_path):
    touch(tmp_path, *(f"{part}/{c}/{part}.png" for part in ("train", "val", "test") for c in "ab"))
    splits = {path: split for path, _, split in described(scan_folder(tmp_path), tmp_path)}
    assert splits["val/a/val.png"] == splits["train/a/train.png"] == "train"
    assert splits["test/b/test.png"] == "test"


def test_an_unlabelled_test_folder_gives_way_to_the_labelled_validation_folder(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png", "test/9.png")
    found = described(scan_folder(tmp_path), tmp_path)
    assert [path for path, _, split in found if split == "test"] == ["val/a/2.png", "val/b/2.png"]


def test_without_a_split_a_fifth_of_each_class_is_for_testing_always_the_same(tmp_path):
    files = [f"{c}/{i:03d}.png" for c, count in (("a", 10), ("b", 50), ("c", 2)) for i in range(count)]
    first = scan_folder(touch(tmp_path / "here", *files))
    again = scan_folder(touch(tmp_path / "there", *reversed(files)))
    found = described(first, tmp_path / "here")
    assert found == described(again, tmp_path / "there")
    counts = {c: sum(1 for _, name, split in found if (name, split) == (c, "test")) for c in "abc"}
    assert counts == {"a": 2, "b": 10, "c": 1}
    tests = [path for path, name, split in found if split == "test" and name == "b"]
    assert tests != [f"b/{i:03d}.png" for i in range(40, 50)]  # not simply the last ones


def test_a_train_folder_alone_is_split(tmp_path):
    touch(tmp_path, *(f"train/{c}/{i}.png" for c in "ab" for i in range(5)))
    assert is_test(scan_folder(tmp_path)).sum() == 2


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, *(f"{c}/{i}.png" for c in ("train", "bus") for i in range(5)))
    assert scan_folder(tmp_path).class_names == ("bus", "train")


def test_hidden_files_and_what_file_managers_leave_are_passed_over(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    touch(tmp_path, "a/.DS_Store", "a/Thumbs.db", "b/desktop.ini", ".git/x.png", "__MACOSX/a/1.png", "README.txt")
    listing = scan_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    assert len(listing.files) == 4


def test_files_are_found_at_any_depth_and_through_links(tmp_path):
    touch(tmp_path / "store", "deep/1.png", "deep/er/2.png")
    touch(tmp_path / "data", "b/1.png", "b/2.png")
    os.symlink(tmp_path / "store", tmp_path / "data" / "a")
    os.symlink(tmp_path / "store", tmp_path / "store" / "deep" / "loop")
    os.symlink(tmp_path / "data", tmp_path / "store" / "deep" / "up")
    assert [path for path, name, _ in sorted(described(scan_folder(tmp_path / "data"), tmp_path / "data"))] == [
        "a/deep/1.png",
        "a/deep/er/2.png",
        "b/1.png",
        "b/2.png",
    ]


def test_the_fingerprint_changes_with_a_file(tmp_path):
    touch(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(3)))
    before = scan_folder(tmp_path).fingerprint
    assert scan_folder(tmp_path).fingerprint == before
    os.utime(tmp_path / "a" / "1.png", ns=(1, 1))
    after = scan_folder(tmp_path).fingerprint
    assert after != before
    touch(tmp_path, "a/4.png")
    assert scan_folder(tmp_path).fingerprint not in (before, after)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty; expected one subfolder of images for each class"),
        (["1.png", "2.png"], "holds 2 pictures but no subfolders"),
        (["a/1.png", "a/2.png"], r"holds 1 class \(a\); expected at least 2"),
        (["a/1.png", "a/2.png", "b/.hidden"], "class folder 'b' is empty"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "hold different sub-folders"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png", "test/c/1.png"], "'c' has no training"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(tmp_path, files, message):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(PudNetError, match=message) as caught:
        scan_folder(touch(tmp_path / "pictures", *files))
    assert str(tmp_path / "pictures") in str(caught.value)


def test_a_class_without_test_images_is_warned_of(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")
    listing = scan_folder(tmp_path)
    assert len(listing.files) == 3
    assert "1 of 2 classes have no test images, such as 'b'." in listing.warnings


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    touch(tmp_path, "zip.zip")
    for name in ("nowhere", "zip.zip"):
        with pytest.raises(PudNetError, match=f"{name} can't be read"):
            scan_folder(tmp_path / name)
