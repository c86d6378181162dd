"""``pudnet predict``: a folder of images in, a working network out, with a word on how far to trust it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pudnet_lib.core.dataset import ImageDataset

HELP = "Predict a ConvNet for a folder (or zip) of images, one subfolder a class, without training."
DETAILS = (
    "Writes OUT/network.safetensors and OUT/README.md (model card); see pudnet_lib.export.models.load_network. "
    "Example: pudnet predict FOLDER --out runs/mine --onnx. With --task denoise FOLDER holds noisy pictures of any "
    "size; OUT/cleaned gets the cleaned ones, OUT/network.safetensors the network (pudnet_lib.denoise.Denoiser.load)."
)
TASKS = ("classify", "denoise")
DEFAULT_MODELS = {"classify": "pudnet", "denoise": "denoiser"}


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
    ) -> None:
        from pudnet_lib.core.predict import predict as predict_network
        from pudnet_lib.errors import PudNetError, unknown_name
        from pudnet_lib.export import model_card, to_onnx, to_torch_export
        from pudnet_lib.export.models import save_network
        from pudnet_lib.export.onnx_file import require_export
        from pudnet_lib.files import write_atomically

        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
        model = model or DEFAULT_MODELS[task]
        if task == "denoise":
            if onnx or export or classify or config != PredictConfig(seed=config.seed):
                raise PudNetError("--task denoise takes --out, --model and --seed; the other options are for classify.")
            _denoise(model, Path(images), out, config.seed)
            return
        if onnx:
            require_export()  # before any work is done
        predictor, pool = _predictor(model)
        if predictor.config.target.name == "unet":
            raise PudNetError(f"{model} predicts denoisers; pass --task denoise with it.")
        channels = predictor.config.target.channels
        dataset = _dataset(images, channels)
        network = predict_network(predictor, dataset, config)
        save_network(network, out / "network.safetensors")
        seconds = network.seconds
        typer.echo(f"{dataset.name}: {len(dataset)} images, {dataset.num_classes} classes")
        typer.echo(
            f"{out / 'network.safetensors'}: predicted in {1000 * sum(seconds.values()):.0f} ms ("
            + ", ".join(f"{part} {1000 * value:.0f}" for part, value in seconds.items())
            + ")"
        )
        report = None
        if trust:
            from pudnet_lib.trust import TrustConfig, trust_report

            report = trust_report(predictor, network, dataset, TrustConfig(predict=config), pool)
            typer.echo("\n".join(report.lines()))
        write_atomically(out / "README.md", model_card(network, report, dataset.licence).encode())
        if export:
            to_torch_export(network, out / "network.pt2")
            typer.echo(f"{out / 'network.pt2'}: the same logits as before to 1e-5")
        if onnx:
            difference = to_onnx(network, out / "network.onnx", dataset.images)
            typer.echo(f"{out / 'network.onnx'}: onnxruntime's logits differ by {difference:.1e} at most")
        for picture in classify or []:
            found = network.classify(picture)
            typer.echo(f"{picture}: {found.label} ({100 * found.probabilities[found.label]:.0f} %)")

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


def _predictor(model: str):  # type: ignore[no-untyped-def]  # its types would import torch for --help
    """The predictor, and the training classes of its pool where all of its sources are embedded packs."""
    from pudnet_lib.export.models import load_model
    from pudnet_lib.images.packs import pack_names
    from pudnet_lib.pool_distance import default_pool
    from pudnet_lib.shipped import load_shipped, shipped_notes

    if model.endswith(".safetensors"):
        predictor, notes = load_model(model)
    else:
        predictor, notes = load_shipped(model), shipped_notes(model)
    pool = notes.get("train", {}).get("pool", {})
    names = [name for name in pool.get("sources", pack_names()) if name in pack_names()]
    channels = predictor.config.target.channels
    return predictor, default_pool(pool.get("size", 32), channels, tuple(names)) if names else None


def _dataset(images: str, channels: int) -> ImageDataset:
    """Load a name, a folder or a zip."""
    from pudnet_lib.images import load_images

    path = Path(images)
    if path.suffix.lower() == ".zip" and path.is_file():
        from pudnet_lib.figures.upload_widget import Upload, dataset_from_upload

        return dataset_from_upload([Upload(path.name, path.read_bytes())], channels=channels)
    return load_images(images, split="all", channels=channels)
