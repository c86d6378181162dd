"""Image folders through ``load_images``: pixels, split, cache, bad files."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import load_images, reading
from pudnet_lib.images.cache import in_parallel

VALUES = {"a": (10, 20, 30, 40, 50), "b": (110, 120, 130, 140, 150)}


def make_folder(root, values=VALUES, side=4):
    """Write flat gray pictures, two classes of five."""
    for name, grays in values.items():
        (root / name).mkdir(parents=True)
        for i, gray in enumerate(grays):
            Image.new("L", (side, side), gray).save(root / name / f"{i}.png")
    return root


def load(root, tmp_path, **options):
    return load_images(root, cache_dir=tmp_path / "cache", progress=False, **{"size": 2, **options})


@pytest.fixture
def decoded(monkeypatch):
    """Which files were decoded."""
    files, lock, decode = [], threading.Lock(), reading.decode_image

    def counting(path, *rest):
        with lock:
            files.append(path)
        return decode(path, *rest)

    monkeypatch.setattr(reading, "decode_image", counting)
    return files


def test_a_folder_is_split_once_and_for_all(tmp_path):
    root = make_folder(tmp_path / "pictures")
    train, test, both = (load(root, tmp_path, split=split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(both)) == (8, 2, 10)
    assert train.class_counts().tolist() == [4, 4]
    assert test.class_counts().tolist() == [1, 1]
    assert not set(train.items.tolist()) & set(test.items.tolist())
    assert torch.equal(torch.cat([train.images, test.images]), both.images)
    assert sorted(both.images[:, 0, 0, 0].tolist()) == sorted(VALUES["a"] + VALUES["b"])
    assert all((image[0, 0, 0] > 100) == label for image, label in zip(both.images, both.labels, strict=True))
    assert (train.name, train.class_names, train.images.shape[1:]) == ("pictures", ("a", "b"), (3, 2, 2))


def test_mixed_kinds_of_pictures_come_out_alike(tmp_path):
    root = tmp_path / "mixed"
    for name in "ab":
        (root / name).mkdir(parents=True)
    deep = Image.fromarray(np.full((9, 5), 128 * 257, np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    gray = Image.new("RGB", (40, 30), (128, 128, 128))
    deep.save(root / "a" / "deep.png")
    gray.convert("P").save(root / "a" / "palette.gif")
    gray.save(root / "a" / "photo.JPG", exif=exif, quality=100)
    Image.new("RGBA", (8, 8), (128, 128, 128, 255)).save(root / "b" / "alpha.webp", lossless=True)
    gray.convert("L").save(root / "b" / "gray.bmp")
    gray.convert("CMYK").save(root / "b" / "cmyk.tiff")
    images = load(root, tmp_path, split="all", size=6).images
    assert images.shape == (6, 3, 6, 6)
    assert (images.int() - 128).abs().max() <= 2


def test_the_second_load_decodes_nothing(tmp_path, decoded):
    root = make_folder(tmp_path / "pictures")
    first = load(root, tmp_path)
    assert len(decoded) == 10
    again, test = load(root, tmp_path), load(root, tmp_path, split="test")
    assert len(decoded) == 10
    assert torch.equal(first.images, again.images)
    assert len(test) == 2
    load(root, tmp_path, size=3)
    load(root, tmp_path, channels=1)
    assert len(decoded) == 30  # another size and another channel count are other caches


def test_a_changed_file_is_read_anew(tmp_path, decoded):
    root = make_folder(tmp_path / "pictures")
    load(root, tmp_path)
    Image.new("L", (9, 9), 255).save(root / "a" / "0.png")
    assert 255 in load(root, tmp_path, split="all").images
    assert len(decoded) == 20
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1  # the old cache was replaced


def test_a_damaged_cache_is_rebuilt_with_a_message(tmp_path, decoded):
    root = make_folder(tmp_path / "pictures")
    first = load(root, tmp_path, split="all").images.clone()
    (file,) = (tmp_path / "cache").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged .*built anew"):
        again = load(root, tmp_path, split="all")
    assert torch.equal(first, again.images)
    assert len(decoded) == 20


def test_folders_of_one_name_have_their_own_caches(tmp_path):
    one = make_folder(tmp_path / "here" / "pictures")
    other = make_folder(tmp_path / "there" / "pictures", {"x": (1, 2), "y": (3, 4)})
    assert load(one, tmp_path).class_names == ("a", "b")
    assert load(other, tmp_path).class_names == ("x", "y")
    assert load(one, tmp_path).class_names == ("a", "b")


def spoil(root):
    """Put a cut JPEG and a text file among the pictures."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(root / "a" / "cut.jpg")
    (root / "a" / "cut.jpg").write_bytes((root / "a" / "cut.jpg").read_bytes()[:900])
    (root / "b" / "notes.txt").write_text("nothing to see")
    return root


def test_a_bad_file_is_left_out_with_a_warning_every_time_and_an_error_where_asked_for(tmp_path, decoded):
    root = spoil(make_folder(tmp_path / "pictures"))
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"pictures: 2 files are passed over, such as a/cut.jpg: damaged or truncated"
        ):
            data = load(root, tmp_path, split="all")
        assert sorted(data.images[:, 0, 0, 0].tolist()) == sorted(VALUES["a"] + VALUES["b"])
    assert len(decoded) == 11
    assert data.report.skipped[0] == {"file": "b/notes.txt", "why": "no picture"}
    with pytest.raises(PudNetError, match=r"pictures/a/cut.jpg is damaged.*on_error='skip'"):
        load(root, tmp_path, on_error="raise")


def test_the_split_is_drawn_from_what_decodes(tmp_path):
    root = make_folder(tmp_path / "pictures", {"a": (10, 200), "b": (50, 150)})
    for i in range(20):
        (root / "b" / f"bad{i}.png").write_bytes(b"spoiled")
    assert load(root, tmp_path, split="test").class_counts().tolist() == [1, 1]


def test_skipping_must_not_lose_a_class(tmp_path):
    root = make_folder(tmp_path / "pictures")
    for file in (root / "b").iterdir():
        file.write_bytes(b"spoiled")
    with pytest.raises(
        PudNetError, match=r"of the class 'b' no training image can be decoded \(5 files; first: b/0.png"
    ):
        load(root, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size 0"),
        ({"channels": 2}, "2 channels"),
        ({"channels": 5}, "5 channels"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; expected 'raise' or 'skip'"),
        ({"split": "training"}, "Did you mean 'train'"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(PudNetError, match=message):
        load(make_folder(tmp_path / "pictures"), tmp_path, **options)


def test_a_progress_bar_is_shown_where_it_takes_long_alone(tmp_path, capsys):
    load_images(make_folder(tmp_path / "pictures"), cache_dir=tmp_path / "cache", size=2)
    assert "Reading" not in capsys.readouterr().err


def test_parallel_work_is_in_order_and_what_was_not_begun_is_left():
    begun = []
    results = in_parallel(lambda i: begun.append(i) or time.sleep(0.001) or i * i, range(2000), workers=3)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()
    assert len(begun) < 1000
    assert list(in_parallel(lambda i: i * i, range(2000))) == [i * i for i in range(2000)]


def test_relative_and_absolute_paths_share_one_cache(tmp_path, decoded, monkeypatch):
    root = make_folder(tmp_path / "pictures")
    load(root, tmp_path)
    monkeypatch.chdir(tmp_path)
    load("pictures", tmp_path)
    load("./pictures/../pictures", tmp_path)
    assert len(decoded) == 10
