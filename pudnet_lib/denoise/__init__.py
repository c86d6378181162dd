"""Denoising with predicted U-Nets: the paper's last experiment, with the faults of its released code put right."""

from pudnet_lib.denoise.noise import add_noise, is_gray
from pudnet_lib.denoise.predict import Denoiser, DenoiserConfig, predict_denoiser

__all__ = ["Denoiser", "DenoiserConfig", "add_noise", "is_gray", "predict_denoiser"]
