"""``pudnet predict``: images in, a folder with a working network, its card and its exports out. Our choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import PredictConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.cards import END_NOTE, card
from pudnet_lib.export.models import save_network
from pudnet_lib.export.onnx_files import onnx as write_onnx
from pudnet_lib.export.onnx_files import require_export
from pudnet_lib.export.program import torch_export
from pudnet_lib.files import write_atomically


def own_test_part(images: str | Path, data: ImageDataset) -> ImageDataset | None:
    """The folder's own test part, at the size and channels of ``data``; None where it has none."""
    from pudnet_lib.images import load_images

    if data.report is None or data.report.split.get("source") != "own":
        return None
    test = load_images(images, "test", data.size, data.channels, progress=False)
    return test if test.class_names == data.class_names else None


def predict_folder(
    images: str | Path,
    out: Path,
    model: str | Path = "auto",
    config: PredictConfig | None = None,
    *,
    onnx: bool = False,
    export: bool = False,
    classify: Sequence[Path] = (),
    trust: bool = True,
    seconds: float = 20.0,
    on_error: Literal["raise", "skip"] = "skip",
) -> Iterator[str]:
    """Predict a network for a folder, zip or known name and write all that one needs to use it."""
    from pudnet_lib.auto import SIZE, at_size, choose_predictor
    from pudnet_lib.face import predict, trained_size
    from pudnet_lib.images import load_images
    from pudnet_lib.images.folder import refuse_inside
    from pudnet_lib.shipped import load_pudnet
    from pudnet_lib.trust import TrustConfig, trust_report

    refuse_inside(out, images)
    if onnx:
        require_export()  # before any work is done
    config, predictor = config or PredictConfig(), None
    if str(model) == "auto":
        data = load_images(images, "auto", SIZE, on_error=on_error)
        choice = choose_predictor(data, seconds, config)
        network, about = choice.network, choice.lines()
    else:
        predictor = load_pudnet(model)
        if predictor.config.target.name == "unet":
            raise PudNetError(f"{model} predicts denoisers; pass --task denoise with it.")
        size, channels = trained_size(predictor), predictor.config.target.channels
        data = load_images(images, "auto", size, channels, on_error=on_error)
        network, about = predict(predictor, data, config=config), []
    save_network(network, out / "network.safetensors")
    parts = ", ".join(f"{part} {1000 * value:.0f}" for part, value in network.seconds.items())
    yield f"{data.name}: {len(data)} images, {data.num_classes} classes"
    yield from [f"Note: {line}" for line in (data.report.warnings if data.report is not None else ())]
    yield f"{out / 'network.safetensors'}: predicted in {1000 * sum(network.seconds.values()):.0f} ms ({parts})"
    yield from about
    report = None
    small = at_size(data.with_channels(network.channels), network.image_size)
    if trust:
        test = own_test_part(images, small)
        report = trust_report(network, small, predictor, TrustConfig(predict=config), test=test)
        yield from report.lines()
    write_atomically(out / "README.md", card(network, report, data.licence, about).encode())
    if export:
        torch_export(network, out / "network.pt2")
        yield f"{out / 'network.pt2'}: the same logits as before to 1e-5"
    if onnx:
        difference = write_onnx(network, out / "network.onnx", small.images)
        write_onnx(network, out / "network_any_size.onnx", small.images, any_size=True)
        yield f"{out / 'network.onnx'}: onnxruntime's logits differ by {difference:.1e} at most"
        yield f"{out / 'network_any_size.onnx'}: the same for one picture of any size"
    for picture in classify:
        found = network.classify(picture)
        yield f"{picture}: {found.label} ({100 * found.probabilities[found.label]:.0f} %)"
    yield "\n".join(("Next, in Python:", "import pudnet_lib", *END_NOTE))
