"""``pudnet predict``: a folder of images in, a working network out, with a word on how far to trust it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

HELP = "Predict a ConvNet for a folder (or zip) of images, one subfolder a class, without training."
DETAILS = (
    "Writes OUT/network.safetensors and OUT/README.md (model card); see pudnet_lib.export.models.load_network. "
    "Example: pudnet predict FOLDER --out runs/mine --onnx. With --task denoise FOLDER holds noisy pictures of any "
    "size; OUT/cleaned gets the cleaned ones, OUT/network.safetensors the network (pudnet_lib.denoise.Denoiser.load)."
)
TASKS = ("classify", "denoise")
DEFAULT_MODELS = {"classify": "auto", "denoise": "denoiser"}


def build() -> Callable[..., None]:
    """Build the command."""
    from pudnet_lib.cli.options import with_options
    from pudnet_lib.core.predict import PredictConfig

    @with_options(PredictConfig, "config")
    def predict(
        config: PredictConfig,
        images: Annotated[
            str, typer.Argument(help="Image folder, zip of one, or a name that `pudnet datasets` lists.")
        ],
        out: Annotated[Path, typer.Option(help="Folder for the network.")],
        task: Annotated[str, typer.Option(help="What the network is for.", metavar="|".join(TASKS))] = "classify",
        model: Annotated[
            str | None,
            typer.Option(help="A model that comes with the kit, or a .safetensors file. [default: by task]"),
        ] = None,
        classify: Annotated[list[Path] | None, typer.Option(help="Pictures to classify at once; repeatable.")] = None,
        onnx: Annotated[
            bool, typer.Option("--onnx", help="Write OUT/network.onnx too, checked with onnxruntime.")
        ] = False,
        export: Annotated[
            bool, typer.Option("--export", help="Write OUT/network.pt2 (torch.export), which needs PyTorch alone.")
        ] = False,
        trust: Annotated[bool, typer.Option(help="Estimate the accuracy by cross-validation and advise.")] = True,
        seconds: Annotated[float, typer.Option(help="How long --model auto may compare predictors.")] = 20.0,
    ) -> None:
        from pudnet_lib.errors import PudNetError, unknown_name
        from pudnet_lib.export.folder import predict_folder

        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
        model = model or DEFAULT_MODELS[task]
        if task == "denoise":
            if onnx or export or classify or config != PredictConfig(seed=config.seed):
                raise PudNetError("--task denoise takes --out, --model and --seed; the other options are for classify.")
            _denoise(model, Path(images), out, config.seed)
            return
        what = {"onnx": onnx, "export": export, "trust": trust, "seconds": seconds}
        for line in predict_folder(images, out, model, config, classify=classify or [], **what):  # type: ignore[arg-type]
            typer.echo(line)

    return predict


def _denoise(model: str, folder: Path, out: Path, seed: int) -> None:
    """Clean a folder of noisy pictures and say what was done."""
    from pudnet_lib.denoise import DenoiserConfig
    from pudnet_lib.denoise.folder import clean_folder
    from pudnet_lib.export.models import load_model
    from pudnet_lib.shipped import load_shipped

    predictor = load_model(model)[0] if model.endswith(".safetensors") else load_shipped(model)
    done = clean_folder(predictor, folder, out, DenoiserConfig(seed=seed))
    milliseconds = 1000 * sum(done.network.seconds.values())
    typer.echo(f"{out / 'network.safetensors'}: predicted in {milliseconds:.0f} ms from {folder.name}")
    typer.echo("\n".join([f"{out / 'cleaned'}:", *done.lines()]))
