"""Model cards as Hugging Face reads them (YAML head, Markdown body), folders in the Hub's layout, and the Hub itself.

A card says what was measured and by what, and nothing else. Names of functions and files are those of huggingface_hub;
what is written is the kit's own file, so that a user's own network comes back too. A local folder needs no package.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import LinearNetwork, load, save
from pudnet_lib.export.program import preparation
from pudnet_lib.files import load_tensors, write_atomically

if TYPE_CHECKING:
    from pudnet_lib.trust import TrustReport

WEIGHTS = "model.safetensors"
_HEAD = """---
library_name: pudnet-kit
pipeline_tag: image-classification
license: other
tags:
- hypernetwork
- parameter-prediction
---
"""
#: Three lines to load, classify and fine-tune, at the end of ``pudnet predict`` and in the card.
END_NOTE = """network = pudnet_lib.load("network.safetensors")          # load
network.classify("picture.jpg").label                     # classify
better = pudnet_lib.finetune(network, pudnet_lib.load_images("FOLDER")).network  # fine-tune"""


def card(
    network: PredictedNetwork, report: "TrustReport | None" = None, licence: str | None = None,
    choice: Sequence[str] = (),
) -> str:  # fmt: skip
    """Write a predicted network's card."""
    origin = network.origin
    target = "a user's own module" if network.target is None else f"{network.target.name}, width {network.target.width}"
    parts = ", ".join(f"{part} {1000 * value:.0f} ms" for part, value in network.seconds.items()) or "not measured"
    by = plain(origin.get("predictor") or origin.get("model", "a hypernetwork"))
    steps = origin.get("refinement_steps", 0)
    refined = f", then refined in {steps} gradient steps on the same images"
    how = refined if steps else " in one forward pass; it was not trained on them"
    made = f"were predicted by {by}, from {origin.get('looked_at', 'a few')} images of the dataset{how}"
    if origin.get("looked_at") == 0:  # what the choice may take in place of a prediction
        made = f"are those of {by}, whatever the dataset; it was not trained on it"
    linear = isinstance(network, LinearNetwork)
    head = "a linear discriminant of its features" if linear else "its features' cosine to each class's mean features"
    trust = "\n".join(report.lines(plain)) if report else "No trust report was made for this network."
    chosen = "\n".join([*choice, "", ""]) if choice else ""
    return f"""{_HEAD}# Predicted network for {plain(origin.get("dataset", "an image dataset"))}

All convolution weights of this network {made}. A picture is classified by {head}.

| | |
|---|---|
| Architecture | {plain(target)} ({sum(p.numel() for p in network.backbone.parameters()):,} parameters) |
| Input | {network.channels} channels, {network.image_size} × {network.image_size} pixels, values in 0..1 |
| Images | {plain(origin.get("images", "unknown"))} (terms: {plain(licence or origin.get("licence", "unknown"))}) |
| Prediction | {sum(network.seconds.values()):.3f} s ({parts}) |
| Classes | {len(network.class_names)}: {", ".join(plain(name) for name in network.class_names)} |

{chosen}## How far to trust it

{trust}

## Use it

```python
{END_NOTE}
```

Without the kit (ONNX, torch.export) a picture is prepared like this: {"; ".join(preparation(network))}.

## Limits

It knows the classes above and answers with one of them whatever the picture shows. Its accuracy on pictures from \
elsewhere than its training images was not measured.
"""


def plain(text: object) -> str:
    """Keep a name from a user's folder or file from being read as Markdown or HTML."""
    line = escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|#$~!])", r"\\\1", line)


def predictor_card(model: ParameterModel) -> str:
    """Write the card of a predictor (PudNet, shared network) that ``save_pretrained`` puts beside it."""
    layout, own = model.layout, model.own_target
    target = "a user's own module" if own else f"{model.config.target.name}, width {model.config.target.width}"
    return f"""{_HEAD}# {type(model).__name__}: parameters of a ConvNet for a dataset that it has not seen

| | |
|---|---|
| Target network | {plain(target)} |
| Predicted | {layout.num_predicted:,} numbers in {len(layout.predicted)} convolutions |
| Learned, the same for every dataset | {", ".join(map(plain, (*layout.shared, *layout.kept))) or "none"} |
| Size of the predictor | {sum(p.numel() for p in model.parameters()):,} parameters |

```python
from pudnet_lib import load_images, predict
from pudnet_lib.export import from_pretrained

model = from_pretrained("this folder or repository"{", target=YOUR_MODULE" if own else ""})
network = predict(model, load_images("a folder of class folders"))
```

What it was meta-trained on, and its measured accuracy, are not in this file; add them here.
"""


def save_pretrained(model: Any, folder: Path | str) -> Path:
    """Save into a folder: ``model.safetensors``, ``config.json`` (its description, to read), ``README.md``."""
    folder = Path(folder).expanduser()
    description = load_tensors(save(model, folder / WEIGHTS))[1]
    write_atomically(folder / "config.json", (json.dumps(description, indent=1, sort_keys=True) + "\n").encode())
    if not (folder / "README.md").exists():
        text = card(model) if isinstance(model, PredictedNetwork) else predictor_card(model)
        write_atomically(folder / "README.md", text.encode())
    return folder


def from_pretrained(
    folder_or_repo: Path | str, *, target: nn.Module | None = None, backbone: nn.Module | None = None, **download: Any
) -> Any:
    """Load what ``save_pretrained`` wrote, from a folder or the Hub; ``download`` goes to ``hf_hub_download``."""
    path, module = Path(folder_or_repo).expanduser() / WEIGHTS, target if backbone is None else backbone
    if path.parent.is_dir():
        if not path.is_file():
            raise PudNetError(f"{path.parent} has no {WEIGHTS}; expected a folder that save_pretrained wrote.")
        return load(path, module)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder_or_repo)):
        raise PudNetError(f"{folder_or_repo} is neither a folder nor a repository's name (owner/name).")
    hub = _hub()
    try:
        path = hub.hf_hub_download(str(folder_or_repo), WEIGHTS, **download)
    except (OSError, ValueError) as error:  # the Hub's errors are all kinds of these
        what = f"{WEIGHTS} of {folder_or_repo} could not be had ({str(error).strip().splitlines()[0]})"
        remedy = "Check the name, the token and the connection, or give a folder that save_pretrained wrote."
        raise PudNetError(f"{what}. {remedy}") from error
    return load(path, module)


def push_to_hub(model: Any, repo_id: str, *, private: bool = False, token: Any = None, **commit: Any) -> str:
    """Upload to a repository of the Hub, which is made if need be."""
    api = _hub().HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        return str(api.upload_folder(repo_id=repo_id, folder_path=save_pretrained(model, folder), **commit))


def _hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise PudNetError("The Hub needs the package huggingface_hub: pip install 'pudnet-kit[hub]'.") from None
