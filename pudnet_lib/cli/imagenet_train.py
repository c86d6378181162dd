"""``pudnet imagenet-train``: the meta-training runs of the large-scale experiment, on one GPU or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

HELP = "Meta-train the contenders of notebook 04, on one device or under torchrun; the notebook then finds them."
DETAILS = """Examples:

pudnet imagenet-train --profile laptop

torchrun --nproc-per-node 8 -m pudnet_lib imagenet-train --profile paper --compile inductor --channels-last"""


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.cli.options import with_options
    from pudnet_lib.core.meta import ScaleConfig, is_first_rank
    from pudnet_lib.errors import PudNetError, unknown_name
    from pudnet_lib.methods.contenders import train
    from pudnet_lib.studies import imagenet

    @with_options(ScaleConfig, "scale")
    def command(
        scale: ScaleConfig,
        profile: Annotated[str, typer.Option(help="smoke, laptop or paper.")] = "laptop",
        methods: Annotated[str, typer.Option(help="Some of the methods, separated by commas; by default all.")] = "",
        seeds: Annotated[str, typer.Option(help="Some of the seeds, separated by commas; by default all.")] = "",
    ) -> None:
        if profile not in imagenet.PROFILES:
            raise unknown_name("profile", profile, imagenet.PROFILES)
        if scale.patience:
            raise PudNetError("--patience would give the contenders different numbers of steps; leave it at 0.")
        config = imagenet.available(imagenet.PROFILES[profile])
        if methods:
            config = replace(config, methods=tuple(name.strip() for name in methods.split(",")))
        if seeds:
            config = replace(config, seeds=tuple(int(seed) for seed in seeds.split(",")))
        for run in imagenet.trainings(config):
            outcome = train(run, scale=scale)
            if is_first_rank():
                typer.echo(f"{outcome.model_path}: {outcome.steps} steps, {outcome.seconds:.0f} s")

    return command
