"""People's own folders and zips: nothing silently wrong. Each test draws its input; docs/own-images.md is the list."""

import io
import json
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pudnet_lib import predict
from pudnet_lib.cli import main
from pudnet_lib.errors import PudNetError
from pudnet_lib.images import as_dataset, check, contact_sheet, load_images, load_zip
from pudnet_lib.images.decode import to_pixels
from pudnet_lib.images.folder import refuse_inside


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path_factory.mktemp("cache")))


def pixels(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def draw(root, classes=("owl", "yak"), count=5, seed=0, ending=".png"):
    """Pictures that are all different, some for each class."""
    for k, name in enumerate(classes):
        for i in range(count):
            save(root / name / f"{i}{ending}", pixels(1000 * (seed + k) + i))
    return root


def read(folder, split="train", **options):
    with warnings.catch_warnings(action="ignore"):
        return load_images(folder, split, 16, progress=False, **options)


def said(report):
    return "\n".join(report.warnings)


def rows(data):
    return {image.numpy().tobytes() for image in data.images}


# ---- copies


def test_equal_pictures_are_one_item_on_one_side_of_the_split(tmp_path):
    for name, k in (("a", 0), ("b", 100)):
        for i in range(6):
            for copy in range(5):
                save(tmp_path / name / f"{i}_{copy}.{'png' if copy else 'bmp'}", pixels(k + i))
    train, test, report = read(tmp_path), read(tmp_path, "test"), check(tmp_path, 16)
    assert not rows(train) & rows(test)
    assert (len(train), len(test)) == (50, 10)
    assert len(train.items.unique()) == 10
    assert report.duplicates == {"within_class": 48, "across_classes": 0, "across_split": 0}
    assert "48 pictures are exact copies" in said(report)


def test_one_picture_in_two_classes_is_named_in_both(tmp_path):
    draw(tmp_path)
    save(tmp_path / "yak" / "again.png", pixels(3))
    report = check(tmp_path, 16)
    assert report.duplicates["across_classes"] == 1
    assert "the same picture is in two classes" in said(report)
    assert "owl/3.png" in said(report)
    assert "yak/again.png" in said(report)
    assert not rows(read(tmp_path)) & rows(read(tmp_path, "test"))


def test_near_copies_are_worth_a_sentence(tmp_path):
    smooth = np.asarray(Image.fromarray(pixels(5, 5)).resize((64, 64), Image.Resampling.BICUBIC))
    draw(tmp_path)
    save(tmp_path / "owl" / "photo.png", smooth)
    save(tmp_path / "owl" / "photo saved again.jpg", smooth, quality=85)
    save(tmp_path / "owl" / "photo, smaller.png", np.asarray(Image.fromarray(smooth).resize((40, 40))))
    assert "3 pictures are nearly equal to another one" in said(check(tmp_path))
    assert "nearly" not in said(check(draw(tmp_path / "other")))


def test_copies_in_an_own_test_part_are_counted_and_left_out_where_others_remain(tmp_path):
    draw(tmp_path / "train")
    draw(tmp_path / "test", count=3, seed=7)
    save(tmp_path / "test" / "owl" / "copy.png", pixels(2))
    report = check(tmp_path, 16)
    assert report.split == {"source": "own", "train": 10, "test": 7}
    assert report.duplicates == {"within_class": 0, "across_classes": 0, "across_split": 1}
    assert len(read(tmp_path, "test")) == 6
    assert len(read(tmp_path, "all")) == 17
    assert "they are left out of the test, 6 remain" in said(report)


# ---- splits and levels


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "dev"),
        ("train_set", "test_set"),
        ("training_set", "validation_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("Train", "eval"),
        ("TrainImages", "TestImages"),
        ("birds-training", "birds-holdout"),
        ("train", "second_half"),
    ],
)
def test_a_split_is_told_by_what_its_parts_hold(tmp_path, train, test):
    draw(tmp_path / train, "abc", 4)
    draw(tmp_path / test, "abc", 2, 50)
    report = check(tmp_path, 16)
    assert list(report.classes) == ["a", "b", "c"]
    assert report.split == {"source": "own", "train": 12, "test": 6}
    assert len(read(tmp_path, "auto")) == 12
    assert rows(read(tmp_path, "auto")) == rows(read(tmp_path))
    assert len(read(tmp_path, "all")) == 18


@pytest.mark.parametrize(
    "parts", [("test", "val"), ("fold1", "fold2", "fold3"), ("train1", "train2"), ("2023", "2024")]
)
def test_parts_of_which_none_is_clearly_for_training_stop_with_their_names(tmp_path, parts):
    for seed, part in enumerate(parts):
        draw(tmp_path / part, "abc", 3, 10 * seed)
    with pytest.raises(PudNetError, match=f"{parts[0]}, {parts[1]}.*mostly the same sub-folders.*split='all'"):
        check(tmp_path)
    assert len(read(tmp_path, "all")) == 9 * len(parts)


def test_parts_of_other_classes_are_no_split_and_no_classes(tmp_path):
    draw(tmp_path / "train", "abc")
    draw(tmp_path / "test", "xyz")
    with pytest.raises(PudNetError, match="hold different sub-folders"):
        check(tmp_path)


def test_a_third_part_and_an_unlabelled_one_are_named(tmp_path):
    draw(tmp_path / "train", "abc")
    draw(tmp_path / "test", "abc", 2, 9)
    draw(tmp_path / "extra", "abc", 2, 30)
    save(tmp_path / "unsorted" / "1.png", pixels(1))
    text = said(check(tmp_path, 16))
    assert "extra (6 pictures) is not used" in text
    assert "unsorted (1 pictures) is not used: without class folders" in text


def test_a_flat_test_folder_leaves_a_split_to_draw(tmp_path):
    draw(tmp_path / "train", "abc")
    for i in range(3):
        save(tmp_path / "test" / f"{i}.png", pixels(900 + i))
    report = check(tmp_path, 16)
    assert (list(report.classes), report.split["source"]) == (["a", "b", "c"], "drawn")
    assert "test has no class folders" in said(report)


def test_flat_folders_called_train_and_test_are_classes_with_a_question(tmp_path):
    report = check(draw(tmp_path, ("train", "test")), 16)
    assert list(report.classes) == ["test", "train"]
    assert "Is that meant?" in said(report)


def test_a_part_beside_the_classes_that_it_holds_is_no_class(tmp_path):
    draw(tmp_path, ("owl", "yak"))
    draw(tmp_path / "val", ("owl", "yak"), 2, 30)
    with pytest.raises(PudNetError, match="val holds folders named as the classes beside it"):
        check(tmp_path, 16)


def test_several_test_parts_are_said(tmp_path):
    for seed, part in enumerate(("train", "test1", "test2")):
        draw(tmp_path / part, seed=10 * seed)
    assert "train: to learn from; test1, test2: to measure on." in said(check(tmp_path, 16))


@pytest.mark.skipif(os.name == "nt", reason="case does not count there")
def test_class_names_that_differ_in_case_or_spaces_alone_are_a_warning(tmp_path):
    draw(tmp_path, ("Owl", "owl", "owl ", "yak"))
    report = check(tmp_path, 16)
    assert len(report.classes) in (3, 4)  # a file system may take two of them for one
    assert "Owl, owl" in said(report)
    assert "differ in case or spaces alone" in said(report)


def test_a_class_with_sub_folders_is_a_warning(tmp_path):
    draw(tmp_path, ("bus", "train"))
    draw(tmp_path / "train", ("steam", "diesel"), seed=40)
    report = check(tmp_path, 16)
    assert report.classes == {"bus": 5, "train": 15}
    assert "'train' holds 2 sub-folders with pictures (diesel, steam)" in said(report)


def test_a_level_too_high_is_a_warning_and_a_single_folder_is_stepped_into(tmp_path):
    draw(tmp_path / "high" / "images", "abc")
    save(tmp_path / "high" / "docs" / "figure.png", pixels(77))
    assert "'images' holds 3 sub-folders" in said(check(tmp_path / "high", 16))
    draw(tmp_path / "twice" / "pets" / "pets", "abc")
    (tmp_path / "twice" / "README.md").write_text("hello")
    assert list(check(tmp_path / "twice", 16).classes) == ["a", "b", "c"]


def test_names_compare_in_one_unicode_form(tmp_path):
    draw(tmp_path / "train", ("caf\u00e9", "bar"))
    draw(tmp_path / "test", ("cafe\u0301", "BAR"), 2, 9)
    report = check(tmp_path, 16)
    assert report.classes == {"bar": 7, "caf\u00e9": 7}
    assert report.split["test"] == 4


# ---- pixels


def png16(path, values):
    """Write a 16-bit gray PNG."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("most", "said_as"), [(900, "0 to 1023"), (4000, "0 to 4095"), (16000, "0 to 16383")])
def test_deep_pictures_have_one_scale_for_the_folder(tmp_path, most, said_as):
    rng = np.random.default_rng(0)
    for name, share in (("bright", 1.0), ("dim", 0.3)):
        for i in range(4):
            png16(tmp_path / name / f"{i}.png", (rng.random((16, 16)) * most * share).round())
    data = read(tmp_path, "all")
    means = [float(data.images[data.labels == k].float().mean()) for k in range(2)]
    assert means[0] > 100
    assert means[1] == pytest.approx(0.3 * means[0], rel=0.1)  # not stretched file by file
    assert f"8 pictures have more than 8 bits; {said_as} becomes 0 to 255" in said(data.report)
    assert data.report.scale == (0.0, float(said_as.split()[-1]))


def test_a_folder_that_uses_a_sliver_of_its_depth_is_stretched_to_its_own_range(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        for i in range(3):
            png16(tmp_path / name / f"{i}.png", 2000 + (rng.random((16, 16)) * 60).round())
    report = check(tmp_path, 16)
    assert report.grey_levels > 200
    assert "their own range, 2000 to 2060" in said(report)


def test_slightly_negative_floats_are_clipped_with_a_word(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        for i in range(3):
            save(tmp_path / name / f"{i}.tif", (rng.random((16, 16)) * 1.1 - 0.05).astype(np.float32))
    report = check(tmp_path, 16)
    assert "0 to 1 becomes 0 to 255; values below 0 (down to -0.0" in said(report)
    assert report.grey_levels == 256


def test_flat_colours_and_few_gray_levels_are_counted_and_said(tmp_path):
    for k, name in enumerate("ab"):
        for i in range(3):
            save(tmp_path / "flat" / name / f"{i}.png", np.full((16, 16, 4), (255, 255, 255, 0), np.uint8))
            save(tmp_path / "dark" / name / f"{i}.png", pixels(10 * k + i) // 32)
    report = check(tmp_path / "flat", 16)
    assert (report.blank, report.grey_levels) == (6, 1)
    assert "6 of 6 pictures are of one flat colour" in said(report)
    report = check(tmp_path / "dark", 16)
    assert (report.blank, report.grey_levels) == (0, 8)
    assert "within 8 of 256 gray levels" in said(report)


# ---- links, clutter, strays


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_links_up_and_broken_ones_are_passed_over(tmp_path):
    draw(tmp_path)
    for target, name in (("..", "owl/up"), (".", "yak/here"), ("nowhere.png", "owl/lost.png"), ("../..", "yak/far")):
        os.symlink(target, tmp_path / name)
    os.symlink("../owl/1.png", tmp_path / "yak" / "alias.png")
    report = check(tmp_path, 16)
    assert report.classes == {"owl": 5, "yak": 6}
    assert {s["file"]: s["why"] for s in report.skipped} == {
        "owl/up": "a link that leads back up",
        "yak/here": "a link that leads back up",
        "yak/far": "a link that leads back up",
        "owl/lost.png": "a broken link",
    }
    assert "in two classes" in said(report)


def test_what_systems_leave_behind_is_no_class_and_no_picture(tmp_path):
    draw(tmp_path)
    for folder in (
        "@eaDir",
        "#recycle",
        "lost+found",
        "$RECYCLE.BIN",
        "System Volume Information",
        ".Trash",
        "__MACOSX",
    ):
        save(tmp_path / folder / "x.png", pixels(70))
        save(tmp_path / "owl" / folder / "deep" / "thumb.png", pixels(71))
    for name in ("Thumbs.db", ".DS_Store", "._1.png", "desktop.ini", "1.png:Zone.Identifier"):
        (tmp_path / "yak" / name).write_bytes(b"\0")
    report = check(tmp_path, 16)
    assert report.classes == {"owl": 5, "yak": 5}
    assert report.skipped == ()


def test_stray_files_are_one_counted_warning_and_pictures_need_no_ending(tmp_path):
    draw(tmp_path)
    for name in ("owl/labels.txt", "yak/README.md", "annotations.csv", "owl/x.jpg.crdownload", "owl/logo.svg"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "owl" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "owl" / "page.jpg").write_text("<!DOCTYPE html>")
    for name, form in (
        ("owl/photo", "PNG"),
        ("yak/photo.jfif", "JPEG"),
        ("yak/12.30.45", "PNG"),
        ("yak/B.JPG", "JPEG"),
    ):
        with (tmp_path / name).open("wb") as file:
            Image.fromarray(pixels(len(name))).save(file, form)
    report = check(tmp_path, 16)
    assert report.classes == {"owl": 6, "yak": 8}
    why = {s["file"]: s["why"] for s in report.skipped}
    assert len(why) == 7
    assert "a web page" in why["owl/page.jpg"]
    assert "damaged" in why["owl/cut.jpg"]
    assert said(report).count("passed over") == 1
    with pytest.warns(UserWarning, match="7 files are passed over"):
        load_images(tmp_path, size=16, progress=False)


def test_pointers_of_git_lfs_are_named_as_such(tmp_path):
    draw(tmp_path)
    for file in (tmp_path / "owl").iterdir():
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(PudNetError, match=r"'owl' no training image can be decoded .*git-lfs.*git lfs pull"):
        check(tmp_path)


def test_one_picture_per_class_is_allowed_where_nothing_is_tested(tmp_path):
    report = check(draw(tmp_path, "abcd", 1), 16)
    assert report.split == {"source": "none", "train": 4, "test": 0}
    assert "4 classes have one picture" in said(report)
    assert len(read(tmp_path, "auto")) == len(read(tmp_path)) == 4
    with pytest.raises(PudNetError, match="no test image"):
        read(tmp_path, "test")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_print_and_load(tmp_path, capsys):
    draw(tmp_path, ("a", b"k\xe9".decode("utf-8", "surrogateescape")))
    report = check(tmp_path, 16)
    assert list(report.classes) == ["a", "k\u00e9"]
    str(report).encode()


def test_results_in_the_image_folder_are_refused(tmp_path):
    for out in (tmp_path, tmp_path / "out", tmp_path / "owl" / ".." / "out"):
        with pytest.raises(PudNetError, match=r"lies in .*another place"):
            refuse_inside(out, tmp_path)
    refuse_inside(tmp_path.parent / "out", tmp_path)
    refuse_inside("out", "fashion")


@pytest.mark.parametrize("options", [{"size": 0}, {"size": -3}, {"size": 2.5}, {"channels": 0}, {"split": "dev"}])
def test_impossible_sizes_and_splits_are_one_line(tmp_path, options):
    with pytest.raises(PudNetError, match=r"expected|Known"):
        load_images(draw(tmp_path), progress=False, **options)


def test_a_prediction_for_a_folder_learns_from_its_training_part_alone(tmp_path, pudnet):
    draw(tmp_path / "train", count=12)
    draw(tmp_path / "test", count=4, seed=9)
    model = pudnet()
    with warnings.catch_warnings(action="ignore"):
        network = predict(model, str(tmp_path), size=16)
        assert torch.equal(network.means, predict(model, load_images(tmp_path, "train", 16, progress=False)).means)
    assert not torch.equal(network.means, predict(model, read(tmp_path, "all")).means)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_an_impossible_size_is_one_line_in_predict_too(tmp_path, pudnet, size):
    for model in (pudnet(), "auto"):
        with pytest.raises(PudNetError, match=f"Asked for size {size}"):
            predict(model, str(draw(tmp_path)), size=size)


# ---- zips


def zipped(path, names, raw=None):
    """A zip of pictures by name; ``raw`` puts bytes in place of text, without the UTF-8 flag."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, name in enumerate(names):
            inner = io.BytesIO()
            Image.fromarray(pixels(i)).save(inner, "PNG")
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            archive.writestr(info, inner.getvalue() if name.endswith(("g", "f")) else b"text")
    content = buffer.getvalue()
    for old, new in (raw or {}).items():
        assert len(old) == len(new)
        content = content.replace(old, new)
    path.write_bytes(content)
    return path


def numbered(template, classes=("owl", "yak"), count=4):
    return [template.format(c=c, i=i) for c in classes for i in range(count)]


@pytest.mark.parametrize(
    ("names", "raw", "classes"),
    [
        (numbered("pets/{c}/{i}.png") + numbered("__MACOSX/pets/{c}/._{i}.png"), {}, ["owl", "yak"]),
        (numbered("{c}\\{i}.png"), {}, ["owl", "yak"]),
        (
            numbered("{c}/{i}.png", ["AAAAA", "BBBBBB"]),
            {b"AAAAA": b"caf\xc3\xa9", b"BBBBBB": "猫犬".encode()},
            ["café", "猫犬"],
        ),
        ([*numbered("set/{c}/{i}.png"), "set/README.txt", "set/labels.csv", "LICENSE"], {}, ["owl", "yak"]),
        (numbered("{c}/2024-01-02 12:30:0{i}.png"), {}, ["owl", "yak"]),
        (numbered("{c}/{i}.jfif", ["owl?", "misc."]), {}, ["misc.", "owl?"]),
        (numbered("content/drive/MyDrive/data/pets/{c}/{i}.png"), {}, ["owl", "yak"]),
    ],
)
def test_zips_of_every_system_are_read(tmp_path, names, raw, classes):
    report = check(zipped(tmp_path / "pets.zip", names, raw), 16)
    assert list(report.classes) == classes
    assert report.images == 8
    assert "/tmp" not in said(report).replace(str(tmp_path), "")


def test_names_in_an_unknown_encoding_are_read_with_a_warning(tmp_path):
    raw = {b"AAAA": "猫犬".encode("cp932"), b"BBBB": "表白".encode("cp932")}  # the second has a backslash's byte
    report = check(zipped(tmp_path / "jp.zip", numbered("{c}/{i}.png", ["AAAA", "BBBB"]), raw), 16)
    assert (len(report.classes), report.images) == (2, 8)
    assert "unknown encoding" in said(report)


def test_a_zip_with_a_split_learns_from_its_training_part_and_leaves_nothing(tmp_path):
    path = zipped(tmp_path / "s.zip", numbered("train/{c}/{i}.png") + numbered("test/{c}/{i}.png", count=2))
    with warnings.catch_warnings(action="ignore"):
        data = load_zip(path.read_bytes())
        assert len(load_images(path, "test", 16)) == 4
    assert len(data) == 8
    assert data.report.split["source"] == "own"
    assert list(tmp_path.iterdir()) == [path]


def test_messages_about_a_zip_name_it_and_not_where_it_was_unpacked(tmp_path):
    path = zipped(tmp_path / "flat.zip", ["owl.0.png", "owl.1.png", "yak.0.png", "yak.1.png"])
    with pytest.raises(PudNetError) as caught:
        check(path)
    assert str(caught.value).startswith(f"{path} holds 4 pictures but no subfolders")
    assert "owl, yak: make folders of those" in str(caught.value)
    with pytest.raises(PudNetError, match=r"It holds 'train.zip': unpack that first"):
        check(zipped(tmp_path / "outer.zip", ["train.zip", "sample.csv"]))


# ---- the command, the picture, arrays


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, arguments)])
    return ended.value.code


def test_the_command_prints_one_screen_or_one_object(tmp_path, capsys):
    draw(tmp_path / "pets", "abc")
    assert run(tmp_path / "pets", "--sheet", tmp_path / "sheet.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pets: 15 pictures in 3 classes"
    assert len(lines) < 24
    assert Image.open(tmp_path / "sheet.png").width > 400
    assert run(tmp_path / "pets", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "classes": {"a": 5, "b": 5, "c": 5},
        "images": 15,
        "split": {"source": "drawn", "train": 12, "test": 3},
        "duplicates": {"within_class": 0, "across_classes": 0, "across_split": 0},
        "blank": 0,
        "grey_levels": 256,
        "skipped": [],
        "warnings": [],
    }
    assert run(tmp_path / "nothing") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_the_contact_sheet_takes_any_name(tmp_path):
    figure = contact_sheet(read(draw(tmp_path, ("$1-$5 bills", "x" * 60))))
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert texts[0].startswith("$1-$5 bills")
    assert all(len(text) < 25 for text in texts)


def test_lists_of_pictures_and_paths_are_a_dataset(tmp_path):
    draw(tmp_path)
    paths = [tmp_path / "owl" / "0.png", tmp_path / "yak" / "0.png"]
    data = as_dataset(paths, ["owl", "yak"], size=16)
    assert torch.equal(data.images, as_dataset([Image.open(p) for p in paths], [0, 1], size=16).images)
    assert data.class_names == ("owl", "yak")
    content = paths[0].read_bytes()
    for given in (content, io.BytesIO(content), str(paths[0]), Image.open(paths[0])):
        assert np.array_equal(to_pixels(given, 16, 3), data.images[0].numpy())
    with pytest.raises(PudNetError, match="the picture is not an image"):
        to_pixels(b"hello", 16, 3)


@pytest.mark.parametrize(
    "labels", [["a", None, "b"], ["a", float("nan"), "b"], ["a", pd.NA, "b"], np.array([0, np.nan, 1])]
)
def test_a_missing_label_is_no_class_of_its_own(labels):
    with pytest.raises(PudNetError, match="labels are missing"):
        as_dataset(np.stack([pixels(i) for i in range(3)]), labels)
