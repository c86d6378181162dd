"""Predicted networks as torch.export programs, ONNX files and model cards; used again without the kit."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import PredictedNetwork, predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.export import card, onnx, program, torch_export
from pudnet_lib.images import load_images

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def emoji() -> ImageDataset:
    return load_images("emoji", split="test").select_classes((0, 1, 2))


@pytest.fixture(scope="module")
def network(pudnet, emoji) -> PredictedNetwork:
    return predict(pudnet(), emoji)


@pytest.fixture(scope="module")
def onnx_path(network, emoji, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    assert onnx(network, path, emoji.images) <= 1e-4
    return path


def test_torch_export_gives_the_same_logits_for_any_number_of_images(network, emoji, tmp_path):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch_export(network, tmp_path / "network.pt2")
    files = {"pudnet.json": ""}
    program = torch.export.load(tmp_path / "network.pt2", extra_files=files).module()
    floats = emoji.images.float() / 255
    with torch.no_grad():
        for count in (1, 2, 7):
            torch.testing.assert_close(program(floats[:count]), network(floats[:count]), atol=1e-5, rtol=0)
    assert json.loads(files["pudnet.json"])["class_names"] == list(emoji.class_names)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_onnx_gives_the_same_logits_on_real_images_for_any_number_of_them(network, emoji, onnx_path):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["pudnet"])
    assert facts["class_names"] == list(emoji.class_names)
    assert (facts["image_size"], facts["channels"]) == (32, 3)
    with torch.no_grad():
        for count in (1, 5, 33):
            images = emoji.images[:count]
            (logits,) = session.run(None, {"images": images.numpy().astype(np.float32) / 255})
            np.testing.assert_allclose(logits, network(images).numpy(), atol=1e-4)


def picture_of(emoji, index: int, width: int, height: int) -> Image.Image:
    plain = Image.fromarray(emoji.images[index].permute(1, 2, 0).numpy())
    return plain.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_onnx_file_prepares_pictures_of_any_size_as_the_kit_does(channels, pudnet, emoji, tmp_path):
    import onnxruntime

    network = predict(pudnet(target=TargetConfig(width=4, channels=channels)), emoji.with_channels(channels))
    assert onnx(network, tmp_path / "any.onnx", any_size=True) <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "any.onnx", providers=["CPUExecutionProvider"])
    for index, (width, height) in enumerate([(97, 61), (33, 120), (32, 32), (20, 24), (640, 480)]):
        picture = picture_of(emoji, index, width, height)
        for mode in ("RGB", "L", "RGBA"):
            converted = picture.convert(mode)
            if mode == "RGBA":
                converted.putalpha(Image.linear_gradient("L").resize(picture.size))
            array = np.asarray(converted)
            (logits,) = session.run(None, {"picture": array.reshape(*array.shape[:2], -1)})
            expected = network.classify(converted)
            chances = torch.tensor(logits[0]).softmax(0)
            assert network.class_names[int(chances.argmax())] == expected.label, (width, height, mode)
            assert float(chances.max()) == pytest.approx(expected.probabilities[expected.label], abs=0.03)


def test_exported_files_and_cards_say_how_a_picture_is_prepared(network, onnx_path):
    import onnxruntime

    told = json.loads(onnxruntime.InferenceSession(onnx_path).get_modelmeta().custom_metadata_map["pudnet"])["prepare"]
    assert len(told) == 5
    assert all(step in card(network) for step in told)
    assert "middle square" in " ".join(told)
    assert "EXIF" in told[0]


def test_names_of_users_never_become_markup_in_a_card(images):
    origin = {"dataset": "<img src=x> | [a](b)", "model": "*M*", "licence": "`x`"}
    network = PredictedNetwork(nn.Flatten(), torch.randn(2, 3), 1.0, ("a|b", "<b>"), 1, 3, origin=origin)
    text = card(network)
    assert "<img" not in text
    assert "<b>" not in text
    assert r"\[a\](b)" in text
    assert r"a\|b" in text
    assert r"\*M\*" in text


def test_onnx_file_that_computes_something_else_is_not_written(network, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "_difference", lambda *_: 0.5)
    monkeypatch.setattr(program, "onnx_bytes", lambda _: b"")
    with pytest.raises(PudNetError, match=r"differ from PyTorch's by 0\.5"):
        onnx(network, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_onnx_packages_are_named(network, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "_NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(PudNetError, match=r"needs no_such_package.*pudnet-kit\[export\]"):
        onnx(network, tmp_path / "x.onnx")


class BranchOnPixels(nn.Module):
    """Something that can't be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return maps.mean((2, 3)) if float(maps.sum()) > 0 else maps.amax((2, 3))


def test_backbone_that_cannot_be_traced_is_named():
    network = PredictedNetwork(BranchOnPixels(), torch.randn(2, 4), 10.0, ("a", "b"), 8, 3)
    with pytest.raises(PudNetError, match="can't trace this BranchOnPixels"):
        torch_export(network)


def test_model_card_states_what_was_measured(network, emoji):
    text = card(network)
    assert text.startswith("---\nlibrary_name: pudnet-kit\n")
    assert "convnet3, width 4 (420 parameters)" in text  # 3·4·9 + 2 · 4·4·9 weights and 3 · 2·4 of batch norm
    assert f"3: {', '.join(emoji.class_names)}" in text
    assert "No trust report was made" in text
    assert f"{sum(network.seconds.values()):.3f} s" in text


def test_model_card_tells_refined_from_predicted_in_one_pass(network, pudnet, emoji):
    assert network.origin["looked_at"] <= 3 * 10  # 3 classes, 10 images each at the most
    assert f"from {network.origin['looked_at']} images of the dataset in one forward pass" in card(network)
    refined = predict(pudnet(refine=LastBlock(2)), emoji)
    assert "then refined in 2 gradient steps on the same images" in card(refined)
    assert "one forward pass" not in card(refined)


def test_example_uses_the_onnx_file_without_the_kit(network, emoji, onnx_path, tmp_path):
    picture = tmp_path / "picture.png"
    Image.fromarray(emoji.images[0].permute(1, 2, 0).numpy()).resize((90, 90), Image.Resampling.NEAREST).save(picture)
    script = EXAMPLES / "use_without_pudnet.py"
    check = "import sys, runpy; sys.modules['pudnet_lib'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    done = subprocess.run(
        [sys.executable, "-c", check, str(script), str(onnx_path), str(picture)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = network.classify(picture)
    assert done.stdout.startswith(f"{expected.label} ")
    assert float(done.stdout.split()[-2]) == pytest.approx(100 * expected.probabilities[expected.label], abs=0.06)


def test_example_uses_the_torch_export_file_without_the_kit(network, emoji, tmp_path, capsys, monkeypatch):
    torch_export(network, tmp_path / "network.pt2")
    picture = tmp_path / "picture.png"
    Image.fromarray(emoji.images[5].permute(1, 2, 0).numpy()).save(picture)
    source = (EXAMPLES / "use_with_torch_only.py").read_text()
    assert "pudnet_lib" not in source.replace("without pudnet_lib", "")
    monkeypatch.setattr(sys, "argv", ["use", str(tmp_path / "network.pt2"), str(picture)])
    runpy.run_path(str(EXAMPLES / "use_with_torch_only.py"))
    expected = network.classify(picture)
    assert capsys.readouterr().out.startswith(f"{expected.label} ")


@pytest.mark.parametrize("name", ["use_without_pudnet.py", "use_with_torch_only.py"])
def test_examples_are_short(name):
    lines = (EXAMPLES / name).read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.startswith(("#", '"""'))]
    assert len(code) <= 14
