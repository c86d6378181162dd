"""``pudnet predict``: a folder of images in, a working network out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Predict a ConvNet for a folder of images (one subfolder a class), without training."
DETAILS = "Writes OUT/network.safetensors; load it with pudnet_lib.PredictedNetwork.load. Example: pudnet predict emoji --out runs/emoji"


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.cli.options import with_options
    from pudnet_lib.prediction import PredictConfig

    @with_options(PredictConfig, "config")
    def predict(
        config: PredictConfig,
        images: Annotated[str, typer.Argument(help="Image folder, or a name that `pudnet datasets` lists.")],
        out: Annotated[Path, typer.Option(help="Folder for the network.")],
        model: Annotated[str, typer.Option(help="A model that comes with the kit, or a .safetensors file.")] = "pudnet",
        classify: Annotated[list[Path] | None, typer.Option(help="Pictures to classify at once; repeatable.")] = None,
    ) -> None:
        from pudnet_lib.datasets import load_images
        from pudnet_lib.prediction import predict as predict_network
        from pudnet_lib.shipped import load_shipped
        from pudnet_lib.training.models import load_model

        predictor = load_model(model)[0] if model.endswith(".safetensors") else load_shipped(model)
        channels = predictor.config.target.channels  # type: ignore[union-attr]
        dataset = load_images(images, split="all", channels=channels)
        network = predict_network(predictor, dataset, config)
        network.save(out / "network.safetensors")
        seconds = network.seconds
        typer.echo(f"{dataset.name}: {len(dataset)} images, {dataset.num_classes} classes")
        typer.echo(f"{out / 'network.safetensors'}: predicted in {1000 * sum(seconds.values()):.0f} ms (" + ", ".join(
            f"{part} {1000 * value:.0f}" for part, value in seconds.items()
        ) + ")")
        for picture in classify or []:
            found = network.classify(picture)
            typer.echo(f"{picture}: {found.label} ({100 * found.probabilities[found.label]:.0f} %)")

    return predict
