"""The embedded packs: whole, licensed, small, and split so that nothing of a test image was seen in training."""

import hashlib
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from pudnet_lib.errors import PudNetError
from pudnet_lib.images import check, list_sources, load_images, named
from pudnet_lib.images.named import load_pack, manifest, pack_names
from pudnet_lib.images.pool import default_class_split

FOLDER = Path(str(files("pudnet_lib.images") / "embedded"))
ROOT = Path(__file__).parents[2]
EVERY_PACK = pytest.mark.parametrize("name", ["emoji", "fashion", "glyphs"])


def pictures(dataset):
    """Each image's bytes."""
    return [image.tobytes() for image in dataset.images.numpy()]


def test_these_are_the_packs_and_there_is_nothing_else_in_the_folder():
    assert pack_names() == ["emoji", "fashion", "glyphs"]
    notices = {facts["notice"] for facts in manifest().values()}
    assert {p.name for p in FOLDER.iterdir()} == {"manifest.json", *notices, *(f"{n}.npz" for n in pack_names())}


def test_all_packs_together_are_at_most_16_mb():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16_000_000


@EVERY_PACK
def test_a_pack_is_the_one_that_the_manifest_describes(name):
    facts = manifest()[name]
    content = (FOLDER / f"{name}.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == facts["sha256"]
    assert len(content) == facts["bytes"]
    train, test, both = (load_pack(name, split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(both)) == (facts["train"], facts["test"], facts["train"] + facts["test"])
    assert list(both.class_names) == facts["class_names"]
    assert both.num_classes == facts["classes"] == len(set(both.class_names))
    assert (both.channels, both.size) == (facts["channels"], facts["size"])
    assert both.licence == facts["licence"]
    row = next(source for source in list_sources() if source.name == name)
    size = f"{both.size} {'gray' if both.channels == 1 else 'RGB'}"
    assert (row.classes, row.images, row.size, row.licence) == (both.num_classes, len(both), size, both.licence)


@EVERY_PACK
def test_every_class_has_images_on_both_sides(name):
    assert int(load_pack(name, "train").class_counts().min()) >= 5
    assert int(load_pack(name, "test").class_counts().min()) >= 1


@EVERY_PACK
def test_no_item_is_on_both_sides_of_the_split(name):
    train, test = load_pack(name, "train"), load_pack(name, "test")
    assert not set(train.items.tolist()) & set(test.items.tolist())


@pytest.mark.parametrize("name", ["emoji", "fashion"])
def test_no_picture_is_on_both_sides_of_the_split(name):
    assert not set(pictures(load_pack(name, "train"))) & set(pictures(load_pack(name, "test")))


def test_what_is_predicted_for_a_pack_learns_from_its_training_part_alone():
    data = load_images("glyphs", "auto", progress=False)
    assert len(data) == manifest()["glyphs"]["train"]
    assert data.report == check("glyphs", progress=False)
    assert data.report.split == {"source": "own", "train": len(data), "test": manifest()["glyphs"]["test"]}


def test_hardly_a_glyph_is_on_both_sides_of_the_split():
    """Fonts that differ elsewhere may draw one letter alike at 32 pixels; more than a few would be a leak."""
    seen = set(pictures(load_pack("glyphs", "train")))
    test = pictures(load_pack("glyphs", "test"))
    assert sum(picture in seen for picture in test) <= 0.01 * len(test)


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_no_emoji_is_in_two_parts_of_the_class_split(split):
    emoji = load_pack("emoji", split)
    parts = default_class_split("emoji", emoji.num_classes)
    items = [
        set(emoji.items[torch.isin(emoji.labels, torch.tensor(part))].tolist())
        for part in (parts.train, parts.validation, parts.unseen)
    ]
    assert all(items)
    assert not items[0] & items[1]
    assert not items[0] & items[2]
    assert not items[1] & items[2]


def test_an_emoji_has_several_drawings():
    """Otherwise the tests of items above would show nothing."""
    _, counts = np.unique(load_pack("emoji", "all").items.numpy(), return_counts=True)
    assert (counts > 1).mean() > 0.5


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("fashion", ["MIT", "Zalando", "Permission is hereby granted"]),
        ("emoji", ["Apache", "CC-BY", "MIT", "Noto", "Twemoji", "Fluent"]),
        ("glyphs", ["nigma", "Brian Kent"]),
    ],
)
def test_a_notice_names_the_authors_and_the_terms(name, terms):
    notice = (FOLDER / manifest()[name]["notice"]).read_text(encoding="utf-8")
    for term in terms:
        assert term.lower() in notice.lower().replace("cc by", "cc-by")
    assert manifest()[name]["changes"]


def test_a_damaged_pack_is_refused(tmp_path, monkeypatch):
    for path in FOLDER.iterdir():
        if path.name.startswith(("glyphs", "manifest")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = bytearray((tmp_path / "glyphs.npz").read_bytes())
    damaged[1000] ^= 1
    (tmp_path / "glyphs.npz").write_bytes(damaged)
    monkeypatch.setattr(named, "_FOLDER", tmp_path)
    named._arrays.cache_clear()
    try:
        with pytest.raises(PudNetError, match="'glyphs' is damaged"):
            load_pack("glyphs")
    finally:
        named._arrays.cache_clear()


def test_the_script_checks_the_checksums(tmp_path):
    def check(folder):
        command = [sys.executable, str(ROOT / "scripts" / "build_packs.py"), "--check", "--out", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert check(FOLDER).returncode == 0
    manifest_of_one = {"glyphs": manifest()["glyphs"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest_of_one))
    (tmp_path / "glyphs.npz").write_bytes(b"something else")
    broken = check(tmp_path)
    assert broken.returncode == 1
    assert "glyphs" in broken.stdout
