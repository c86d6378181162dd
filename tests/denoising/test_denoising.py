"""Denoising: the noise level, the blind spots, the metrics, the U-Net, the rivals, meta-training."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.episodes import (
    DenoisingStep,
    add_noise,
    blind_spot_loss,
    grid_mask,
    hide,
    is_gray,
    noisy_episode,
    scores,
    to_unit,
)
from pudnet_lib.denoise.predict import Denoiser, DenoiserConfig, predict_denoiser
from pudnet_lib.denoise.train import DenoiserTrainConfig, train_denoiser
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import load_tensors, save_tensors
from pudnet_lib.more_targets import UNet, local_mean


@pytest.fixture(scope="module")
def rivals(notebook_functions):
    return notebook_functions("08_denoising")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_is_sigma_over_255_on_pixels_in_0_1(generator):
    clean = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    noise = add_noise(clean, 25, generator) - 128 / 255
    assert noise.std().item() == pytest.approx(25 / 255, rel=0.01)  # not 25/255 times the normalisation's 0.25
    assert noise.mean().item() == pytest.approx(0, abs=0.002)
    gray = add_noise(clean, 25, generator, gray=True)
    assert is_gray(gray)
    with pytest.raises(PudNetError, match="expected a σ of 0 or more"):
        add_noise(clean, -1, generator)


def test_pixels_on_another_scale_are_refused(generator):
    clean = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    noisy = add_noise(clean, 75, generator)  # far below 0 and above 1, as noise goes
    assert noisy.min() < -0.5
    assert torch.equal(to_unit(noisy, noisy=True), noisy)
    smooth = torch.linspace(0, 1, 32).expand(4, 3, 32, 32)
    for wrong in (clean.float(), clean.int(), noisy * 255, 2 * smooth - 1, add_noise(smooth, 25, generator) * 2 - 1):
        for call in (lambda w=wrong: to_unit(w, noisy=True), lambda w=wrong: scores(w, clean)):
            with pytest.raises(PudNetError, match=r"expected uint8 in 0..255, or floating point in \[0, 1\]"):
                call()
    network = predict_denoiser(PudNet(TINY_PUDNET), clean)
    assert network(clean).shape == clean.shape
    with pytest.raises(PudNetError, match="range over"):
        network(clean.float())
    with pytest.raises(PudNetError, match="range over"):
        add_noise(clean.float(), 25, generator)


def test_masks_lie_on_the_spatial_axes_one_pixel_a_cell(generator):
    mask = grid_mask(2, 8, 12, generator)
    assert mask.shape == (2, 1, 8, 12)
    cells = mask.view(2, 2, 4, 3, 4).sum((2, 4))
    assert (cells == 1).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(4, 13), st.integers(4, 13), st.integers(0, 99))
def test_hidden_pixels_never_see_themselves_and_the_rest_stays(n, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.arange(n * 3 * height * width, dtype=torch.float32).view(n, 3, height, width)  # every value once
    mask = grid_mask(n, height, width, generator)
    seen = hide(images, mask, generator)
    wide = mask.expand_as(images)
    assert (seen[wide] != images[wide]).all()
    assert torch.equal(seen[~wide], images[~wide])


def test_loss_counts_hidden_pixels_alone():
    estimate, noisy = torch.zeros(1, 1, 2, 2), torch.tensor([[[[3.0, 9.0], [9.0, 9.0]]]])
    mask = torch.tensor([[[[True, False], [False, False]]]])
    assert blind_spot_loss(estimate, noisy, mask).item() == 9


def test_metrics_equal_scikit_images(generator):
    clean = torch.rand(3, 1, 32, 32, generator=generator)
    noisy = (clean + 0.1 * torch.randn(3, 1, 32, 32, generator=generator)).clamp(0, 1)
    found = scores(noisy, clean)
    for i in range(3):
        truth, image = clean[i, 0].numpy(), noisy[i, 0].numpy()
        assert found["PSNR"][i].item() == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=1), rel=1e-4)
        ssim = structural_similarity(
            truth, image, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert found["SSIM"][i].item() == pytest.approx(ssim, abs=0.01)
    with pytest.raises(PudNetError, match="NaN"):
        scores(torch.full_like(clean, float("nan")), clean)
    with pytest.raises(PudNetError, match="PSNR is infinite"):
        scores(clean, clean)


def test_unet_has_no_batch_norm_and_scales_with_its_input(generator):
    unet = UNet(4, 3)
    assert {type(m).__name__ for m in unet.modules() if list(m.parameters(recurse=False))} == {
        "Conv2d",
        "ConvTranspose2d",
    }
    assert [n for n, _ in unet.named_parameters() if n.endswith("bias")] == []
    images = torch.randn(2, 3, 10, 13, generator=generator)  # no multiples of four
    with torch.no_grad():
        once, twice = unet(images), unet(2 * images)
    assert once.shape == images.shape
    assert torch.allclose(twice, 2 * once, atol=1e-5)
    alone = unet(images[:1])
    assert torch.allclose(alone, once[:1], atol=1e-5)  # what else is in the batch does not matter
    with pytest.raises(PudNetError, match="needs 4×4"):
        unet(images[..., :3])


def test_a_flat_picture_keeps_its_colour_whatever_the_weights(generator):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet(4, 3)  # random weights: before, a colour became whatever they made of it
    colour = torch.tensor([0.8, -0.5, 0.3]).view(1, 3, 1, 1)
    flat = colour.expand(1, 3, 60, 60)
    inner = unet(flat).detach()[..., 20:40, 20:40]
    assert torch.allclose(inner.mean((2, 3)), colour[..., 0, 0], atol=0.03)
    by_hand = local_mean(torch.arange(25.0).view(1, 1, 5, 5), 3)
    assert by_hand[0, 0, 0, 0].item() == pytest.approx((0 + 1 + 5 + 6) / 4)  # pixels beyond the border do not count
    assert by_hand[0, 0, 2, 2].item() == pytest.approx(12)


def test_unet_can_hand_its_input_on():
    unet = UNet(4, 3)
    with torch.no_grad():
        unet.last.weight.zero_()
        unet.last.weight[:, 4:, 0, 0] = torch.eye(3)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(unet(images), images)


TINY_PUDNET = PudNetConfig(TargetConfig("unet", 2), dim=8, residual=True)
TINY = DenoiserTrainConfig(
    model=TINY_PUDNET,
    pool=("emoji", "glyphs"),
    meta=MetaConfig(steps=2, validate_every=0, accelerator="cpu"),
    base_steps=1,
)


def test_meta_training_is_found_again_and_changes_the_weights(tmp_path):
    first = train_denoiser(TINY, tmp_path, progress=False)
    again = train_denoiser(TINY, tmp_path, progress=False)
    assert first.steps == 3
    states = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(float(g.basis.detach().abs().sum()) > 0 for g in first.model.generators)  # a residual starts at zero
    with pytest.raises(PudNetError, match="only that has a learned base"):
        dataclasses.replace(TINY, method="shared")


def test_loss_of_an_untouched_picture_is_the_logarithm_of_one(generator):
    model = PudNet(TINY_PUDNET)
    with torch.no_grad():
        for generated in model.generators:
            generated.base.zero_()
        model.generators[-1].base[:, 2:, 0, 0] = torch.eye(3)  # the last layer hands the input on
    clean = torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = add_noise(clean, 50, generator)
    episode = noisy_episode("flat", 50, noisy[:2], noisy, clean, generator)
    assert DenoisingStep(model)(episode).total.item() == pytest.approx(0, abs=0.05)


def test_noise2void_learns_from_noisy_pictures_alone(rivals, generator):
    clean = (torch.rand(64, 3, 1, 1, generator=generator) * 255).to(torch.uint8).expand(-1, -1, 16, 16)
    noisy = add_noise(clean, 25, generator)
    trained = [rivals.noise2void(noisy, steps, 1e-2, target=TargetConfig("unet", 4), batch=16) for steps in (1, 60)]
    psnr = [scores(network(noisy), clean)["PSNR"].mean() for network, _ in trained]
    assert psnr[1] > psnr[0] + 3
    assert trained[1][1] > 0


def test_fine_tuning_starts_from_the_prediction(rivals, generator):
    noisy = add_noise(torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8), 25, generator)
    start = predict_denoiser(PudNet(TINY_PUDNET), noisy, DenoiserConfig(patch=16))
    before = {n: p.clone() for n, p in start.backbone.named_parameters()}
    tuned, _ = rivals.noise2void(noisy, 1, 1e-6, start, batch=4)
    assert torch.allclose(tuned(noisy), start(noisy), atol=1e-3)  # one tiny step away
    assert all(torch.equal(p, before[n]) for n, p in start.backbone.named_parameters())
    with pytest.raises(PudNetError, match="leave target out"):
        rivals.noise2void(noisy, 1, 1e-3, start, TargetConfig("unet", 3))
    with pytest.raises(PudNetError, match="at least one"):
        rivals.noise2void(noisy, 0, 1e-3)


@pytest.mark.parametrize("method", ["non-local means", "total variation"])
@pytest.mark.parametrize("gray", [True, False])
def test_filters_clean_and_their_factor_is_the_best_on_clean_images(rivals, method, gray, generator):
    clean = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    clean[..., 8:] = 200
    noisy = add_noise(clean, 25, generator, gray)
    factor = rivals.best_factor(method, clean, 25, gray)
    assert factor in rivals.FACTORS
    cleaned = rivals.classic(method, noisy, 25, factor, gray)
    assert (scores(cleaned, clean)["PSNR"] > scores(noisy, clean)["PSNR"] + 3).all()
    with pytest.raises(PudNetError, match="Did you mean 'total variation'"):
        rivals.classic("total variatio", noisy, 25, 0.5)


@pytest.mark.parametrize("gray", [True, False])
def test_bm3d_gives_each_picture_back_in_its_place(rivals, gray, generator):
    pytest.importorskip("bm3d", exc_type=(ImportError, OSError))
    clean = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    for i in range(3):
        clean[i, :, :, : 4 * (i + 1)] = 200
    noisy = add_noise(clean, 25, generator, gray)
    assert (scores(rivals.bm3d(noisy, 25, gray), clean)["PSNR"] > scores(noisy, clean)["PSNR"] + 3).all()


def test_without_bm3d_the_licence_and_the_remedy_are_named(rivals, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm3d", None)
    assert not rivals.bm3d_available()
    with pytest.raises(PudNetError, match="non-commercial"):
        rivals.bm3d(torch.zeros(1, 3, 8, 8), 25)


def test_a_predicted_denoiser_is_saved_whole_and_changes_nothing(tmp_path, generator):
    model = PudNet(TINY_PUDNET)
    noisy = torch.rand(6, 3, 16, 16, generator=generator)
    state = torch.get_rng_state()
    network = predict_denoiser(model, noisy, DenoiserConfig(patch=16))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    network.save(tmp_path / "network.safetensors")
    assert torch.equal(Denoiser.load(tmp_path / "network.safetensors")(noisy), network(noisy))
    tensors, about = load_tensors(tmp_path / "network.safetensors")
    for field, value, words in (
        ("width", 12_000, "does not fit this Denoiser"),
        ("width", "wide", r"x: denoiser\.target\.width: .*integer"),
        ("name", "unett", r"x: denoiser\.target\.name: .*'unet'"),
    ):
        target = {**about["denoiser"]["target"], field: value}
        save_tensors(tmp_path / "x", tensors, {"denoiser": {**about["denoiser"], "target": target}})
        with pytest.raises(PudNetError, match=words):
            Denoiser.load(tmp_path / "x")
    with pytest.raises(PudNetError, match="cleans no images"):
        predict_denoiser(PudNet(PudNetConfig(TargetConfig(width=4), dim=8)), noisy)
    with pytest.raises(PudNetError, match="expected at least one"):
        predict_denoiser(model, noisy[:0])


def test_the_command_meta_trains_and_names_the_model_file(tmp_path, capsys):
    from pudnet_lib.cli import main

    options = "--pool emoji,glyphs --meta-steps 1 --base-steps 1 --episodes-loss supervised --model-residual"
    options += " --model-target-width 2 --model-dim 8"
    with pytest.raises(SystemExit) as done:
        main(["denoise-train", str(tmp_path / "run"), *options.split()])
    assert not done.value.code
    assert "model.safetensors: 2 steps" in capsys.readouterr().out
    from pudnet_lib.export.models import load_model

    model, notes = load_model(tmp_path / "run" / "model.safetensors")
    assert notes["train"]["episodes"]["loss"] == "supervised"
    assert model.config.target == TargetConfig("unet", 2)
