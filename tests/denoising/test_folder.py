"""``pudnet predict FOLDER --task denoise``: a made-up folder of noisy pictures to cleaned ones and the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pudnet_lib.cli import main
from pudnet_lib.core.targets import TargetConfig, UNet
from pudnet_lib.denoise.folder import clean_picture
from pudnet_lib.denoise.predict import Denoiser


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(a) for a in arguments])
    return int(done.value.code or 0)


@pytest.fixture
def noisy(tmp_path):
    """Two colour pictures of one stem and a gray one, noise of σ = 25 on flat areas; and their clean selves."""
    rng, truth = np.random.default_rng(0), {}
    for name, shape, level in (("a.png", (48, 64, 3), 90), ("a.bmp", (40, 40, 3), 120), ("sub/c.png", (50, 45), 160)):
        path = tmp_path / "noisy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        clean = np.full(shape, level, dtype=float)
        clean[: shape[0] // 2] -= 50
        pixels = (clean + rng.normal(0, 25, shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        truth[name] = clean
    return tmp_path / "noisy", truth


def test_pictures_come_out_cleaner_at_their_own_size(noisy, tmp_path, capsys):
    folder, truth = noisy
    out = tmp_path / "out"
    assert run("predict", folder, "--task", "denoise", "--out", out) == 0
    assert "3 pictures" in capsys.readouterr().out
    names = {"a.png": "a.png.png", "a.bmp": "a.bmp.png", "sub/c.png": "sub/c.png"}
    written = {str(p.relative_to(out / "cleaned")) for p in (out / "cleaned").rglob("*.png")}
    assert written == set(names.values())
    for name, clean in truth.items():
        cleaned = np.asarray(Image.open(out / "cleaned" / names[name])).astype(float)
        before = np.asarray(Image.open(folder / name)).astype(float)
        assert cleaned.shape == clean.shape
        assert ((cleaned - clean) ** 2).mean() < 0.3 * ((before - clean) ** 2).mean()  # more than 5 dB
    assert isinstance(Denoiser.load(out / "network.safetensors"), Denoiser)


def test_bad_input_is_one_line(noisy, tmp_path, capsys):
    folder, _ = noisy
    out = tmp_path / "out"
    for arguments, words in (
        ((tmp_path / "nowhere",), "is not a folder"),
        ((folder, "--onnx"), "other options are for classify"),
        ((folder, "--sketch-per-class", 3), "other options are for classify"),
        ((folder, "--model", "pudnet"), "cleans no images"),
    ):
        assert run("predict", *arguments, "--task", "denoise", "--out", out) == 2
        assert words in capsys.readouterr().err
    assert run("predict", folder, "--task", "denoize", "--out", out) == 2
    assert "Did you mean 'denoise'" in capsys.readouterr().err
    assert run("predict", folder, "--task", "denoise", "--out", folder / "out") == 2
    assert "taken for noisy ones" in capsys.readouterr().err
    Image.new("L", (20, 40)).save(folder / "small.png")
    assert run("predict", folder, "--task", "denoise", "--out", out) == 2
    assert "20×40 pixels; expected at least 32×32" in capsys.readouterr().err
    (folder / "small.png").write_text("no picture")
    assert run("predict", folder, "--task", "denoise", "--out", out) == 2
    assert "not an image" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("predict", tmp_path / "empty", "--task", "denoise", "--out", out) == 2
    assert "holds no file" in capsys.readouterr().err
    assert run("predict", "emoji", "--model", "denoiser", "--out", out) == 2
    assert "pass --task denoise" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_leave_no_trace(channels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Denoiser(UNet(4, 3), TargetConfig("unet", 4))
        picture = torch.randint(0, 256, (channels, 150, 131), dtype=torch.uint8)
    whole = clean_picture(network, picture, tile=512)
    tiled = clean_picture(network, picture, tile=48)
    assert (whole.int() - tiled.int()).abs().max() <= 1  # rounding
    assert tiled.shape == picture.shape
