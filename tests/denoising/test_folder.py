"""``pudnet predict FOLDER --task denoise``: a made-up folder of noisy pictures to cleaned ones and the network."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from pudnet_lib.cli import main
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise import clean_folder, clean_picture
from pudnet_lib.denoise.folder import distinct_names
from pudnet_lib.denoise.predict import Denoiser
from pudnet_lib.more_targets import UNet


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
    assert "3 pictures cleaned" in capsys.readouterr().out
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
    assert "taken for images" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("predict", tmp_path / "empty", "--task", "denoise", "--out", out) == 2
    assert "holds no picture that can be cleaned" in capsys.readouterr().err
    Image.new("L", (20, 40)).save(tmp_path / "empty" / "small.png")
    assert run("predict", tmp_path / "empty", "--task", "denoise", "--out", out) == 2
    assert "20×40 pixels; expected at least 32×32" in capsys.readouterr().err
    assert run("predict", "emoji", "--model", "denoiser", "--out", out) == 2
    assert "pass --task denoise" in capsys.readouterr().err
    assert not out.exists()


def tiny() -> PudNet:
    """A denoiser that adds up what it sees: untrained, but quick."""
    return PudNet(PudNetConfig(TargetConfig("unet", 2), dim=8, residual=True))


def test_no_two_cleaned_pictures_meet_on_any_system():
    names = ["a.png", "a.jpg", "a.jpg.png", "A.bmp", "x.jpg", "x.png/y.gif", "caf\u00e9.png", "cafe\u0301.tif", "b.tif"]
    found = distinct_names(names)
    assert len({unicodedata.normalize("NFC", n).casefold() for n in found}) == len(names)
    assert found[-1] == "b.png"
    assert found[4] == "x.jpg.png"  # x.png is a folder
    assert all(n.endswith(".png") for n in found)


def test_pages_depth_and_alpha_stay(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "in"
    folder.mkdir()
    pages = [Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)) for _ in range(3)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    deep = rng.integers(1000, 4000, (40, 48)).astype(np.uint16)  # 12 bit in a 16-bit file
    Image.fromarray(deep).save(folder / "deep.png")
    clear = rng.integers(0, 256, (40, 40, 4), dtype=np.uint8)
    Image.fromarray(clear).save(folder / "clear.png")
    turned = Image.Exif()
    turned[0x0112], turned[0x010F] = 6, "a camera"
    Image.fromarray(clear[:, :, :3].repeat(2, axis=1)).save(folder / "turned.jpg", exif=turned)
    Image.new("CMYK", (40, 40)).save(folder / "ink.jpg")
    done = clean_folder(tiny(), folder, tmp_path / "out")
    written = {p.name: Image.open(p) for p in done.files}
    assert set(written) == {
        "stack-page1.png", "stack-page2.png", "stack-page3.png", "deep.png", "clear.png", "turned.png", "ink.png"
    }  # fmt: skip
    assert written["deep.png"].mode == "I;16"
    assert 900 < np.asarray(written["deep.png"]).mean() < 4200  # the file's own scale
    assert (np.asarray(written["clear.png"])[:, :, 3] == clear[:, :, 3]).all()
    assert written["turned.png"].size == (40, 80)  # upright
    said = ("CMYK became RGB", "the camera's notes (EXIF) are left out")
    assert done.notes == tuple(f"1 of 7 pictures: {words}." for words in said)
    assert done.skipped == ()


def test_a_zip_is_cleaned_and_what_is_no_use_is_skipped_with_a_word(noisy, tmp_path, capsys):
    folder, _ = noisy
    Image.new("L", (20, 40)).save(folder / "small.png")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder).as_posix())
    done = clean_folder(tiny(), tmp_path / "mine.zip", tmp_path / "out")
    assert len(done.files) == 3
    assert done.skipped == (("small.png", "20×40 pixels; expected at least 32×32"),)
    assert done.network.origin["folder"] == "mine"
    (folder / "README.md").write_text("no picture")
    Image.fromarray(np.zeros((40, 40), dtype=np.float32)).save(folder / "float.tif")
    assert run("predict", folder, "--task", "denoise", "--out", tmp_path / "out2") == 0
    said = capsys.readouterr().out
    assert "skipped README.md: " in said
    assert "skipped float.tif: floating-point or 32-bit pixels; save it as 8 or 16 bit" in said
    assert "3 pictures cleaned" in said


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise import clean_folder, folder
folder.clean_picture = lambda network, picture: picture.float() / 255  # the network's own memory is a tile's
model = PudNet(PudNetConfig(TargetConfig("unet", 2), dim=8, residual=True))
torch.set_num_threads(1)
peaks = []
for name in ("one", "three"):
    clean_folder(model, Path(sys.argv[1]) / name, Path(sys.argv[1]) / "out" / name)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_number_of_six_megapixel_pictures(tmp_path):
    picture = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (10, 3000, 3)))  # 3000×2000
    for name, count in (("one", 1), ("three", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            picture.save(tmp_path / name / f"{i}.bmp")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) < 60  # MB; two more decoded pictures are 36, their cleaned floats 144


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_leave_no_trace(channels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Denoiser(UNet(4, 3), TargetConfig("unet", 4))
        picture = torch.randint(0, 256, (channels, 150, 131), dtype=torch.uint8)
    whole = clean_picture(network, picture, tile=512)
    tiled = clean_picture(network, picture, tile=48)
    assert (whole - tiled).abs().max() < 1e-4
    assert tiled.shape == picture.shape
