"""Uploads: a zip, labelled pictures, pictures labelled by their names, bad ones; the panel over the plain function."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from pudnet_lib import widgets
from pudnet_lib.errors import PudNetError
from pudnet_lib.plots import figure
from pudnet_lib.widgets import BLANK, Drop, ImagesPanel, Shown, Upload, images_from_upload, labels_from_names


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(**files: bytes) -> Upload:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/") + ".png", content)
    return Upload("pets.zip", buffer.getvalue())


PETS = zipped(cat__1=png(10), cat__2=png(20), dog__1=png(200), dog__2=png(210))
PICTURES = [Upload(f"{kind}_{i}.png", png(10 * i)) for i, kind in enumerate(["dog", "cat", "dog", "cat"])]


def test_zip_becomes_a_dataset():
    data = images_from_upload([PETS])
    assert (data.name, data.class_names, tuple(data.images.shape)) == ("pets", ("cat", "dog"), (4, 3, 128, 128))
    by_class = {
        name: sorted(int(image[0, 0, 0]) for image in data.images[data.labels == label])
        for label, name in enumerate(data.class_names)
    }
    assert by_class == {"cat": [10, 20], "dog": [200, 210]}


def test_pictures_are_labelled_by_their_names_or_by_the_text():
    named = images_from_upload(PICTURES)
    assert named.class_names == ("cat", "dog")
    assert named.labels.tolist() == [1, 0, 1, 0]
    assert named.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    given = images_from_upload(PICTURES, "a, b, b, a")
    assert given.labels.tolist() == [0, 1, 1, 0]


def test_labels_from_names():
    names = ["cat_1.jpg", "big dog 12.png", "dog(3).png", "7.png", "x/bird-02.gif", "IMG.png"]
    assert labels_from_names(names) == ["cat", "big dog", "dog", "7", "bird", "IMG"]


@pytest.mark.parametrize(
    ("files", "labels", "message"),
    [
        ([], "", "No file was dropped"),
        ([PETS, PICTURES[0]], "", "came with 1 other files"),
        (PICTURES, "a, b", "2 labels for 4 pictures"),
        (PICTURES, "a, b, , a", "none empty"),
        (PICTURES, "a, a, a, b", "'b' has one picture only"),
        (PICTURES, "a, a, a, a", "all pictures are 'a'"),
        ([*PICTURES, Upload("cat_9.png", b"no image")], "", "cat_9.png is not an image"),
        ([Upload("x.zip", b"no zip")], "", "no zip"),
        ([zipped(cat__1=png(1), cat__2=png(2))], "", "class"),
    ],
)
def test_bad_uploads_are_named(files, labels, message):
    with pytest.raises(PudNetError, match=message):
        images_from_upload(files, labels)


def show(images) -> Shown:
    made, axes = figure(3, 2)
    axes[0, 0].plot(images.labels.numpy())
    return Shown([f"{len(images)} images of <{images.name}>"], made, b"abc")


def test_a_panel_shows_a_path_or_its_error_and_the_old_figure_goes(tmp_path):
    for kind, value in (("cat", 10), ("dog", 200)):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "pets" / kind / f"{i}.png").write_bytes(png(value + i))
    panel = ImagesPanel(show, str(tmp_path / "pets"))
    assert "4 images of &lt;pets&gt;" in panel.message.value
    assert "Download the network" in panel.message.value
    assert bytes(panel.image.value).startswith(b"\x89PNG")
    assert len(panel.image.value) > 1000
    panel.path.value = str(tmp_path / "<nowhere>")
    assert "does not exist" in panel.message.value
    assert "<nowhere>" not in panel.message.value
    assert (panel.image.value, panel.images) == (BLANK, None)
    assert panel.children.index(panel.message) == 2  # directly under the controls


def test_a_panel_takes_what_is_dropped():
    panel = ImagesPanel(show)
    panel.files.value = tuple(PICTURES)
    assert "4 images of &lt;uploaded pictures&gt;" in panel.message.value
    panel.labels.value = "<b>, a"
    assert "2 labels for 4 pictures" in panel.message.value
    assert panel.images is None


def test_the_limit_is_named(monkeypatch):
    monkeypatch.setattr(widgets, "LIMIT_MB", 0)
    with pytest.raises(PudNetError, match="type the folder's or zip's path"):
        images_from_upload(PICTURES)
    assert "0 MB through the browser" in ImagesPanel(show).children[1].value


def test_files_come_in_pieces_and_are_not_in_the_saved_state(monkeypatch):
    drop, sent = Drop(multiple=True), []
    monkeypatch.setattr(drop, "send", sent.append)
    for file, name, piece, first, last in ((0, "a", b"01", 1, 0), (0, "a", b"23", 0, 0), (1, "a", b"4", 0, 1)):
        drop._handle_custom_msg(dict(file=file, name=name, first=bool(first), last=bool(last)), [memoryview(piece)])
    assert drop.value == (Upload("a", b"0123"), Upload("a", b"4"))
    assert sent == [{"received": 2}, {"received": 2}, {"received": 1}]
    assert "value" not in drop.get_state()
    drop._handle_custom_msg({"first": True, "last": True}, [])  # taken away
    assert drop.value == ()
