"""``pudnet train``: meta-train a predictor (or the shared network, the control) on a pool of sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Meta-train a hypernetwork on a pool of image sources; an interrupted run goes on where it stopped."
DETAILS = (
    "Writes RUN/model.safetensors, log.csv and TensorBoard events. The shipped predictors: "
    "`python scripts/build_shipped.py` makes them. On several GPUs: "
    "torchrun --nproc-per-node 8 -m pudnet_lib train RUN --meta-episodes-per-step 8 (docs/scaling.md)."
)


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.cli.options import with_options
    from pudnet_lib.core.meta import ScaleConfig, is_first_rank
    from pudnet_lib.methods.run import TrainConfig, train_run

    @with_options(ScaleConfig, "scale")
    @with_options(TrainConfig, "config", known=(ScaleConfig,))
    def train(
        config: TrainConfig,
        scale: ScaleConfig,
        run: Annotated[Path, typer.Argument(help="Folder of the run; made if need be, resumed if it holds one.")],
    ) -> None:
        outcome = train_run(config, run, scale=scale)
        if not is_first_rank():
            return
        typer.echo(f"{outcome.model_path}: {outcome.steps} steps, {outcome.seconds:.0f} s")
        if outcome.validation is not None:
            typer.echo(f"accuracy on held-out training classes: {100 * outcome.validation:.1f} %")

    return train
