"""Denoising: the noise level, the blind spots, the metrics, and a tiny comparison from end to end."""

import dataclasses

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pudnet_lib.denoising.blind_spot import blind_spot_loss, grid_mask, hide
from pudnet_lib.denoising.metrics import scores
from pudnet_lib.denoising.noise import add_noise, is_gray
from pudnet_lib.denoising.rivals import Noise2VoidConfig
from pudnet_lib.denoising.train import DenoiserTrainConfig, train_denoiser
from pudnet_lib.errors import PudNetError
from pudnet_lib.experiments import denoising
from pudnet_lib.hypernetwork import PudNetConfig
from pudnet_lib.report import denoising_figures as figures
from pudnet_lib.targets import TargetConfig
from pudnet_lib.training.meta import MetaConfig


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_is_sigma_over_255_on_pixels_in_0_1(generator):
    clean = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    noise = add_noise(clean, 25, generator) - 128 / 255
    assert noise.std().item() == pytest.approx(25 / 255, rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)
    gray = add_noise(clean, 25, generator, gray=True)
    assert is_gray(gray)
    with pytest.raises(PudNetError, match="expected a σ of 0 or more"):
        add_noise(clean, -1, generator)


def test_masks_lie_on_the_spatial_axes_one_pixel_a_cell(generator):
    mask = grid_mask(2, 8, 12, generator)
    assert mask.shape == (2, 1, 8, 12)
    cells = mask.view(2, 2, 4, 3, 4).sum((2, 4))
    assert (cells == 1).all()


def test_hidden_pixels_never_see_themselves_and_the_rest_stays(generator):
    images = torch.arange(2 * 3 * 64, dtype=torch.float32).view(2, 3, 8, 8)  # every value once
    mask = grid_mask(2, 8, 8, generator)
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


TINY = DenoiserTrainConfig(
    pudnet=PudNetConfig(TargetConfig("unet", 2), dim=8, residual=True),
    sources=("emoji", "glyphs"),
    meta=MetaConfig(steps=2, validate_every=0, accelerator="cpu"),
)


def test_meta_training_is_found_again_and_changes_the_weights(tmp_path):
    first = train_denoiser(TINY, tmp_path, progress=False)
    again = train_denoiser(TINY, tmp_path, progress=False)
    states = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert any(float(g.basis.detach().abs().sum()) > 0 for g in first.model.generators)  # a residual starts at zero


def test_a_tiny_comparison_from_end_to_end():
    config = dataclasses.replace(
        denoising.PROFILES["smoke"],
        sources=("emoji", "glyphs"),
        train=TINY,
        images=3,
        own_images=8,
        scratch=Noise2VoidConfig(budgets=(1, 2), batch=4),
    )
    table = denoising.run(config)
    methods = set(table["method"])
    assert {"noisy", "PudNet", "PudNet, far swap", "PudNet, near swap", "shared network", "non-local means"} <= methods
    summary = denoising.summary(table)
    noisy = summary[(summary["method"] == "noisy") & (summary["metric"] == "PSNR")]["mean"]
    assert noisy.between(19, 23).all()  # 20·log10(255/25) = 20.2 dB, a little more for clipping
    assert "dB over the noisy input" in denoising.answer(table)
    assert len(figures.figure_psnr(table, 25).axes[0].get_yticklabels()) == len(methods)
    assert len(figures.figure_by_source(table, denoising.MAIN).axes) == 2
    assert len(figures.figure_pictures(denoising.pictures(config, 2), 2).axes) == 2 * 6
    with pytest.raises(PudNetError, match="No images with both"):
        denoising.gain(table, "BM4D", 25)


def test_without_a_shipped_denoiser_the_remedy_is_named(monkeypatch):
    from pudnet_lib.denoising import models

    monkeypatch.setattr(models, "shipped_models", lambda: ["pudnet"])
    with pytest.raises(PudNetError, match="denoise-train"):
        models.load_predictors()
