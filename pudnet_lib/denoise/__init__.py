"""Denoising with predicted U-Nets: the paper's last experiment, with the faults of its released code put right."""

import pudnet_lib.more_targets  # noqa: F401  (registers the U-Net)
from pudnet_lib.denoise.episodes import add_noise, is_gray, scores
from pudnet_lib.denoise.folder import CleanedFolder, clean_folder, clean_picture
from pudnet_lib.denoise.predict import Denoiser, DenoiserConfig, predict_denoiser

__all__ = ["CleanedFolder", "Denoiser", "DenoiserConfig", "add_noise", "clean_folder", "clean_picture", "is_gray"]
__all__ += ["predict_denoiser", "scores"]
