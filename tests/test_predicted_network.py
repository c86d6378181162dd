"""A predicted network is an ordinary module: it saves, loads, classifies, and refuses what it can't read."""

import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import PredictedNetwork, predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.export import load_network, save
from pudnet_lib.export.models import LinearNetwork
from pudnet_lib.supervised import ImageClassifier, train_from_scratch


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def network(images) -> PredictedNetwork:
    dataset = ImageDataset(images, torch.arange(12) % 3, ("ant", "bee", "cat"), "toy")
    return predict(PudNet(PudNetConfig(TargetConfig(width=4))), dataset)


def test_logits_by_hand():
    network = PredictedNetwork(nn.Flatten(), torch.tensor([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), 10, ["a", "b"], 1, 3)
    image = torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1)  # normalised: (2, 0, 0)
    assert network(image)[0].tolist() == pytest.approx([10, 0])
    found = network.classify(image[0])
    assert found.label == "a"
    assert list(found.probabilities) == ["a", "b"]
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_networks_and_predictors_print_as_one_line_and_escape_names(images):
    data = ImageDataset(images, torch.arange(12) % 4, ("<b>", "bee", "cat", "dog"), "toy")
    model = PudNet(PudNetConfig(TargetConfig(width=4)))
    network, own = predict(model, data), sum(p.numel() for p in model.parameters())
    assert repr(model) == f"PudNet: predicts a ConvNet-3 of width 4, {own:,} parameters of its own"
    assert (
        str(network)
        == "PredictedNetwork: ConvNet-3 of width 4, 420 parameters, tells 4 classes apart (<b>, bee, cat, …)"
    )
    assert "generator of" in model._repr_html_()
    assert "&lt;b&gt;, bee, cat, dog" in network._repr_html_()
    assert "<b>" not in network._repr_html_()


def test_bytes_and_floats_mean_the_same(network, images):
    with torch.no_grad():
        assert torch.allclose(network(images), network(images.float() / 255), atol=1e-4)


def test_a_new_process_loads_it_and_gives_the_same_bits(network, images, tmp_path):
    save(network, tmp_path / "n.safetensors")
    script = (
        "import sys, torch; from safetensors.torch import load_file, save_file;"
        "from pudnet_lib import load; torch.set_num_threads(1);"
        "n = load(sys.argv[1]); x = load_file(sys.argv[2])['x'];"
        "save_file({'y': n(x).detach()}, sys.argv[3]); print(n.class_names)"
    )
    from safetensors.torch import load_file, save_file

    save_file({"x": images}, tmp_path / "x.safetensors")
    names = [str(tmp_path / f"{n}.safetensors") for n in ("n", "x", "y")]
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=True)
    assert "('ant', 'bee', 'cat')" in done.stdout
    with torch.no_grad():
        assert torch.equal(load_file(names[2])["y"], network(images))


def test_pictures_of_any_size_are_classified(network, images, tmp_path):
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((50, 40))
    picture.save(tmp_path / "p.png")
    assert network.classify(picture).label == network.classify(tmp_path / "p.png").label
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(PudNetError, match=r"broken\.jpg"):
        network.classify(tmp_path / "broken.jpg")


def test_what_it_cannot_read_is_refused(network):
    with pytest.raises(PudNetError, match="2 channels; this network reads 3"):
        network(torch.zeros(1, 2, 16, 16))
    with pytest.raises(PudNetError, match="NaN"):
        network.classify(torch.full((3, 16, 16), float("nan")))
    with pytest.raises(PudNetError, match=r"expected \(C, H, W\)"):
        network.classify(torch.zeros(16, 16))


def test_images_too_small_for_the_network_are_refused(network, images):
    data = ImageDataset(images[:, :, :2, :2], torch.arange(12) % 3)
    for call in (
        lambda: predict(PudNet(PudNetConfig(TargetConfig(width=4))), data),
        lambda: network.classify(images[0, :, :4, :4]),
        lambda: train_from_scratch(data),
    ):
        with pytest.raises(PudNetError, match=r"have \d×\d pixels; 3 blocks halve them, so at least 8"):
            call()


def test_own_backbones_need_the_module_to_load(images, tmp_path):
    own = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    dataset = ImageDataset(images, torch.arange(12) % 3, ("ant", "bee", "cat"))
    network = predict(PudNet(PudNetConfig(), target=own), dataset)
    save(network, tmp_path / "own.safetensors")
    with pytest.raises(PudNetError, match="network of your own"):
        load_network(tmp_path / "own.safetensors")
    again = load_network(tmp_path / "own.safetensors", own)
    with torch.no_grad():
        assert torch.equal(again(images), network(images))
    other = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(PudNetError, match="does not fit"):
        load_network(tmp_path / "own.safetensors", other)


def test_a_model_file_is_no_network(tmp_path):
    from pudnet_lib.export.models import save

    save(PudNet(PudNetConfig(TargetConfig(width=2))), tmp_path / "m.safetensors")
    with pytest.raises(PudNetError, match="no predicted network"):
        load_network(tmp_path / "m.safetensors")


def test_arrays_bytes_open_files_and_tilde_are_classified(network, images, tmp_path, monkeypatch):
    array = images[0].permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "p.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = network.classify(images[0]).probabilities
    with (tmp_path / "p.png").open("rb") as file:
        given = (array, array.transpose(2, 0, 1), array / 255, (tmp_path / "p.png").read_bytes(), file, "~/p.png")
        for picture in given:
            assert network.classify(picture).probabilities == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("factor", [255.0, -1.0, 2.0])
def test_pixels_of_another_range_are_refused_with_the_fix(network, images, factor):
    wrong = images[0].float() / 255 * factor
    fix = r"Divide by 255|\(x \+ 1\) / 2|Rescale|convert them: images.astype\('uint8'\)"
    for picture in (wrong, wrong.numpy(), images[0].long(), images[0].long().numpy()):
        with pytest.raises(PudNetError, match=fix):
            network.classify(picture)
    trained = ImageClassifier(network.backbone, nn.Identity())
    linear = LinearNetwork.of(network, network.means, torch.zeros(3))
    for module in (network, linear, trained):
        for batch in (wrong[None], images.long(), images.short()):
            with pytest.raises(PudNetError, match=fix):
                module(batch)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_work(network, images, dtype):
    import copy

    other = copy.deepcopy(network).to(dtype)
    with torch.inference_mode():
        logits = other(images.to(dtype) / 255)
    assert (logits.argmax(1) == network(images).argmax(1)).float().mean() > 0.7
    assert other.classify(images[0]).label in network.class_names


def test_inference_mode_and_a_float64_default_change_nothing(images):
    data = ImageDataset(images, torch.arange(12) % 3, ("ant", "bee", "cat"), "toy")
    model = PudNet(PudNetConfig(TargetConfig(width=4)))
    expected = predict(model, data)(images)
    with torch.inference_mode():
        assert torch.allclose(predict(model, data)(images), expected, atol=1e-4)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.allclose(predict(model, data)(images), expected, atol=1e-4)
    finally:
        torch.set_default_dtype(torch.float32)
