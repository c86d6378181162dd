"""``pudnet denoise-train``: meta-train a denoiser's predictor (or the shared U-Net, the control)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Meta-train a hypernetwork that predicts denoising U-Nets; an interrupted run goes on where it stopped."
DETAILS = (
    "Writes RUN/model.safetensors, log.csv and TensorBoard events. The shipped denoisers' cards hold their commands."
)


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.cli.options import with_options
    from pudnet_lib.denoise.train import DenoiserTrainConfig, train_denoiser

    @with_options(DenoiserTrainConfig, "config")
    def denoise_train(
        config: DenoiserTrainConfig,
        run: Annotated[Path, typer.Argument(help="Folder of the run; made if need be, resumed if it holds one.")],
    ) -> None:
        outcome = train_denoiser(config, run)
        typer.echo(f"{outcome.model_path}: {outcome.steps} steps, {outcome.seconds:.0f} s")

    return denoise_train
