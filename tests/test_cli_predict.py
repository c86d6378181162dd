"""``pudnet predict`` from end to end: an image folder to a network, ONNX file, model card and trust report."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pudnet_lib import predict
from pudnet_lib.cli import main
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import load_network, save
from pudnet_lib.images import load_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three classes of eight photograph-sized pictures."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for kind, colour in {"red": 0, "green": 1, "blue": 2}.items():
        (root / kind).mkdir()
        for i in range(8):
            pixels = rng.integers(0, 90, (60, 80, 3), dtype=np.uint8)
            pixels[..., colour] += 150
            Image.fromarray(pixels).save(root / kind / f"{i}.jpg")
    return root


@pytest.fixture
def model_path(pudnet, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    save(pudnet(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    return int(done.value.code or 0)


def test_folder_to_onnx_that_classifies_a_new_picture(folder, model_path, tmp_path, capsys):
    import onnxruntime

    out = tmp_path / "out"
    picture = folder / "red" / "0.jpg"
    assert run("predict", folder, "--out", out, "--model", model_path, "--onnx", "--export", "--classify", picture) == 0
    text = capsys.readouterr().out
    for expected in ("24 images, 3 classes", "Estimated accuracy: ", "Distance to the meta-training pool", "Advice: "):
        assert expected in text
    assert {p.name for p in out.iterdir()} == {
        "README.md", "network.onnx", "network_any_size.onnx", "network.pt2", "network.safetensors"
    }  # fmt: skip
    assert "Estimated accuracy: " in (out / "README.md").read_text()
    network = load_network(out / "network.safetensors")
    session = onnxruntime.InferenceSession(out / "network.onnx", providers=["CPUExecutionProvider"])
    images = load_images(folder, "all").images.numpy().astype(np.float32) / 255
    (logits,) = session.run(None, {"images": images[:1]})
    assert network.class_names[logits.argmax()] == network.classify(load_images(folder, "all").images[0]).label


def test_zip_without_trust_report(folder, model_path, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for path in sorted(folder.rglob("*.jpg")):
            archive.write(path, path.relative_to(folder.parent))
    out = tmp_path / "out"
    assert run("predict", tmp_path / "pictures.zip", "--out", out, "--model", model_path, "--no-trust") == 0
    text = capsys.readouterr().out
    assert "pictures: 24 images, 3 classes" in text
    assert "Advice" not in text
    assert "No trust report was made" in (out / "README.md").read_text()


def test_bad_zip_is_one_line_and_writes_nothing(model_path, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../../evil.png", b"x")
    assert run("predict", tmp_path / "bad.zip", "--out", tmp_path / "out", "--model", model_path) == 2
    assert "leads out of the folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_onnx_packages_stop_the_command_before_any_work(folder, tmp_path, monkeypatch, capsys):
    from pudnet_lib.export import program

    monkeypatch.setattr(program, "_NEEDED", ("no_such_package",))
    assert run("predict", folder, "--out", tmp_path / "out", "--onnx") == 2
    assert "pudnet-kit[export]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_is_measured_and_trained_on(folder, model_path, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("predict", folder, "--out", out, "--model", model_path, "--no-trust") == 0
    assert run("evaluate", out / "network.safetensors", folder, "--split", "all") == 0
    assert "of 24 images of" in capsys.readouterr().out
    assert run("finetune", out / "network.safetensors", folder, "--out", tmp_path / "tuned", "--epochs", "1") == 0
    assert "% before, " in capsys.readouterr().out
    assert run("evaluate", tmp_path / "tuned" / "network.safetensors", folder) == 0
    assert run("evaluate", out / "network.safetensors", "emoji") == 2
    assert "has other classes than the network, which tells apart: blue, green, red." in capsys.readouterr().err


def test_results_beside_the_images_are_refused_before_any_work(folder, model_path, tmp_path, capsys):
    net = tmp_path / "net"
    assert run("predict", folder, "--out", net, "--model", model_path, "--no-trust") == 0
    capsys.readouterr()
    for line in (
        ("predict", folder, "--out", folder / "red" / "out"),
        ("predict", folder, "--task", "denoise", "--out", folder / "out"),
        ("finetune", net / "network.safetensors", folder, "--out", folder),
        ("check", folder, "--sheet", folder / "sheet.png"),
    ):
        assert run(*line) == 2
        assert capsys.readouterr().err.count("another place") == 1
    assert len(list(folder.rglob("*"))) == 3 + 24


def test_every_command_that_reads_pictures_skips_a_bad_one_or_stops(folder, model_path, tmp_path, capsys):
    bad, net = tmp_path / "bad", tmp_path / "net"
    shutil.copytree(folder, bad)
    (bad / "red" / "0.jpg").write_bytes((bad / "red" / "0.jpg").read_bytes()[:300])
    (bad / "README.md").write_text("notes")
    assert run("predict", bad, "--out", net, "--model", model_path, "--no-trust", "--on-error", "skip") == 0
    trained = net / "network.safetensors"
    capsys.readouterr()
    for line in (
        ("predict", bad, "--out", tmp_path / "o", "--model", model_path),
        ("predict", bad, "--out", tmp_path / "o", "--task", "denoise"),
        ("evaluate", trained, bad),
        ("finetune", trained, bad, "--out", tmp_path / "o"),
        ("check", bad),
        ("prepare", bad, "--sizes", "16"),
    ):
        assert run(*line, "--on-error", "stop") == 2
        text = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
        assert "red/0.jpg" in text
        assert "give --on-error skip" in text
    assert run("check", bad, "--on-error", "never") == 2
    assert "Known: skip, stop" in capsys.readouterr().err


def test_two_classes_of_one_name_are_refused(pudnet):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    with pytest.raises(PudNetError, match="two classes are called 'café'"):
        predict(pudnet(), images, ["caf\u00e9", "cafe\u0301"] * 4)


def test_what_is_passed_over_is_one_note_and_no_warning(folder, model_path, tmp_path, capsys, recwarn):
    shutil.copytree(folder, tmp_path / "mine")
    (tmp_path / "mine" / "red" / "README.md").write_text("no picture")
    assert run("predict", tmp_path / "mine", "--out", tmp_path / "out", "--model", model_path) == 0
    assert capsys.readouterr().out.count("README.md: no picture") == 1
    assert not [w for w in recwarn if "README.md" in str(w.message)]
